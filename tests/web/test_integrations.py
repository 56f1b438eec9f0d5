"""Settings → Integrations: who sees what, what a save checks, and that a key never comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
import time_machine
from fastapi import FastAPI
from sqlalchemy import URL, insert

from ownkey import audit, clock, plans
from ownkey.accounts import workspaces
from ownkey.credentials import Secret
from ownkey.db.engine import Database
from ownkey.db.tables import usage_events
from ownkey.db.usage_tables import fallback_calls
from ownkey.mail import Mailer
from ownkey.node import Node
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.settings import read_settings
from ownkey.vault import key_health, provider_keys
from ownkey.vault.keyring import KeyRing
from tests import build
from tests.fakes.provider import FakeProvider
from tests.web.conftest import Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

PATH = "/settings/integrations"
OPENAI = f"{PATH}/openai"
# Shaped like OpenAI's, so that nothing is advised about it.
KEY = "sk-proj-7hQ2mZx9LrT4vB8nYc3KdW6sPfJ1aE5uG0"
OTHER_KEY = "sk-proj-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7"
MANAGED = "AI provider keys are managed by workspace admins."


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The provider that keys are checked with."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def managed_by() -> Literal["admin", "owner"]:
    """The setting ``keys_managed_by``."""
    return "admin"


@pytest.fixture
async def node(
    sqlite_url: URL, tmp_path: Path, provider: FakeProvider, public_url: str, managed_by: Literal["admin", "owner"]
) -> AsyncIterator[Node]:
    """A node whose providers are all the fake one; the operator has a key for OpenAI only."""
    settings = read_settings(
        data_dir=tmp_path,
        public_url=public_url,
        keys_managed_by=managed_by,
        platform_keys={"openai": Secret("sk-proj-the-operators-own")},
        base_urls=dict.fromkeys(("openai", "anthropic", "gemini", "acme-llm"), provider.url),
    )
    db = Database(sqlite_url, synchronous="OFF")
    yield Node(
        settings,
        db,
        KeyRing.load(settings, sealed_kek_ids=(), embedded=True),
        plans.DEFAULT_CATALOGUE,
        Mailer(settings),
    )
    await db.close()


async def test_page_without_keys(client_for: Callable[[str], Browser]) -> None:
    """Without a key a section says whether the plan's allowance serves the provider, and offers to add one."""
    page = await client_for("admin").page(PATH)
    for name in ("OpenAI", "Anthropic", "Google Gemini", "Mistral", "Groq", "DeepSeek", "xAI", "OpenRouter"):
        assert ("h2", name) in page.headings
    openai, anthropic = page.text.split("OpenAI", 1)[1].split("Anthropic", 1)
    assert "Runs on your plan's allowance." in openai
    assert "Not available until a key is connected." in anthropic
    assert page.form(OPENAI).buttons == ["Add API Key"]
    assert MANAGED not in page.text


@pytest.mark.parametrize("role", ["user", "developer"])
async def test_others_see_no_controls(role: str, client_for: Callable[[str], Browser]) -> None:
    """Users and developers read who manages the keys, and find no control."""
    page = await client_for(role).page(PATH)
    assert MANAGED in page.text
    assert not [form for form in page.forms if PATH in form.action]
    assert "Add API Key" not in page.text


@pytest.mark.parametrize("role", ["user", "developer"])
@pytest.mark.parametrize("path", [OPENAI, f"{OPENAI}/check", f"{OPENAI}/remove"])
async def test_others_are_refused_by_the_server(
    role: str, path: str, client_for: Callable[[str], Browser], provider: FakeProvider, node: Node, acme: Acme
) -> None:
    """A form that a user or developer sends directly is 403, asks no provider, changes nothing, and is recorded."""
    reply = await client_for(role).send(path, {"api_key": KEY})
    assert reply.status_code == 403
    assert provider.requests == []
    assert await provider_keys.list_keys(node.db, acme.actor("admin")) == []
    latest = (await audit.entries(node.db, acme.organization.id))[0]
    assert (latest.actor_id, latest.allowed) == (acme.people[role].id, False)
    assert latest.action.startswith("provider_key.")


async def test_connect(client_for: Callable[[str], Browser], provider: FakeProvider, node: Node, acme: Acme) -> None:
    """A key the provider accepts is saved; the section shows Active, the first characters, and who added it."""
    provider.accept([KEY])
    admin = client_for("admin")
    form = (await admin.page(OPENAI)).form(OPENAI)
    assert set(form.fields) == {"csrf", "api_key", "expires"}
    reply = await admin.send(OPENAI, {"api_key": f"  {KEY}\n"})
    assert reply.status_code == 303
    assert reply.headers["location"] == f"{PATH}#openai"
    page = await admin.page(PATH)
    for shown in ("Active", "sk-proj-••••••••", "Admin Name", "Update API Key", "Remove", "accepted the key"):
        assert shown in page.text
    assert [request.method for request in provider.requests] == ["GET"]
    key = (await provider_keys.list_keys(node.db, acme.actor("user")))[0]
    assert key.health is Health.ACTIVE
    assert key.fingerprint in page.text


AZURE = f"{PATH}/azure"


async def test_an_address_is_asked_for_beside_the_key(
    client_for: Callable[[str], Browser], provider: FakeProvider, node: Node, acme: Acme
) -> None:
    """A provider whose host is the customer's has one more field; what was given is shown, and offered again."""
    admin = client_for("admin")
    form = (await admin.page(AZURE)).form(AZURE)
    assert set(form.fields) == {"csrf", "address", "api_key", "expires"}
    reply = await admin.send(AZURE, {"address": "Acme-East", "api_key": "k" * 32, "unchecked": "yes"})
    assert reply.status_code == 303
    page = await admin.page(PATH)
    assert "https://acme-east.openai.azure.com" in page.text
    assert (await admin.page(AZURE)).form(AZURE).fields["address"] == "https://acme-east.openai.azure.com"
    (key,) = await provider_keys.list_keys(node.db, acme.actor("user"))
    assert key.address == "https://acme-east.openai.azure.com"
    assert "address" not in (await admin.page(OPENAI)).form(OPENAI).fields


async def test_a_provider_that_the_operator_added_has_a_section(
    client_for: Callable[[str], Browser], provider: FakeProvider
) -> None:
    """It takes keys like any other, checked at the operator's address."""
    admin, path = client_for("admin"), f"{PATH}/acme-llm"
    assert ("h2", "Acme Llm") in (await admin.page(PATH)).headings
    assert set((await admin.page(path)).form(path).fields) == {"csrf", "api_key", "expires"}
    reply = await admin.send(path, {"api_key": KEY})
    assert "Acme Llm accepted the key." in await admin.notice(reply)
    assert provider.last.path == "/v1/models"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "needs its resource beside the key"),
        ("not a resource", "This is no resource of Azure OpenAI. It looks like my-resource."),
        ("https://127.0.0.1", "inside a private network"),
        ("https://acme.evil.example", "OWNKEY_ALLOWED_HOSTS"),
        ("http://acme.openai.azure.com", "must begin with https://"),
    ],
)
async def test_an_address_that_cannot_be_used_is_told_at_its_field(
    address: str, said: str, client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """Nothing is saved or sent; the address stays in its field, the key does not."""
    reply = await client_for("admin").send(AZURE, {"address": address, "api_key": KEY, "unchecked": "yes"})
    assert reply.status_code == 422
    page = Page(reply.text)
    assert said in page.text
    assert KEY not in reply.text
    assert page.form(AZURE).fields["address"] == address
    assert await provider_keys.list_keys(node.db, acme.actor("admin")) == []


async def test_an_address_alone_is_not_saved(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Changing the address of a key needs the key again."""
    admin = client_for("admin")
    await admin.send(AZURE, {"address": "acme", "api_key": KEY, "unchecked": "yes"})
    reply = await admin.send(AZURE, {"address": "evil", "api_key": "", "unchecked": "yes"})
    assert reply.status_code == 422
    assert "Paste the API key." in Page(reply.text).text
    (key,) = await provider_keys.list_keys(node.db, acme.actor("admin"))
    assert key.address == "https://acme.openai.azure.com"


async def test_rejected_key_is_not_saved(
    client_for: Callable[[str], Browser], provider: FakeProvider, node: Node, acme: Acme
) -> None:
    """A key the provider refuses blocks the save and says what the provider said, the key taken out of it."""
    provider.accept([OTHER_KEY])
    reply = await client_for("admin").send(OPENAI, {"api_key": KEY})
    assert reply.status_code == 422
    page = Page(reply.text)
    assert "OpenAI answered 401" in page.text
    assert "Nothing was saved." in page.text
    assert KEY not in reply.text
    assert await provider_keys.list_keys(node.db, acme.actor("admin")) == []


@pytest.mark.parametrize(
    ("status", "badge"),
    [(429, "Limited"), (500, "Unreachable"), (402, "Out of credit"), (403, "Unverified")],
)
async def test_what_cannot_be_checked_is_saved_with_a_warning(
    status: int, badge: str, client_for: Callable[[str], Browser], provider: FakeProvider
) -> None:
    """A provider that does not say yes or no to a key does not keep it from being saved; the admin is warned."""
    provider.script(status=status)
    admin = client_for("admin")
    await admin.send(OPENAI, {"api_key": KEY})
    page = await admin.page(PATH)
    assert "The key was saved." in page.text
    assert badge in page.text
    assert "notice-warning" in page.html


async def test_unreachable_provider(client_for: Callable[[str], Browser], provider: FakeProvider) -> None:
    """A provider that cannot be reached is no reason not to save a key."""
    provider.script(no_reply=True)
    admin = client_for("admin")
    assert "Unreachable" in await admin.notice(await admin.send(OPENAI, {"api_key": KEY}))


async def test_save_without_checking(client_for: Callable[[str], Browser], provider: FakeProvider) -> None:
    """The admin may save a key unchecked; the provider is then not asked."""
    provider.accept([])
    admin = client_for("admin")
    assert "Unverified" in await admin.notice(await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes"}))
    assert provider.requests == []


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("sk-ant-api03-" + "a" * 93 + "AA", "looks like a key of Anthropic"),
        ("sk-admin-" + "a" * 40, "looks like an admin key of OpenAI"),
        ("sk-proj-••••••••", "looks like a masked preview"),
    ],
)
async def test_advice_is_no_gate(
    key: str, named: str, client_for: Callable[[str], Browser], provider: FakeProvider
) -> None:
    """A key that looks like something else is named as such, and still saved if the provider takes it."""
    admin = client_for("admin")
    reply = await admin.send(OPENAI, {"api_key": key, "unchecked": "yes"})
    assert named in await admin.notice(reply)


@pytest.mark.parametrize("key", ["", "   ", "sk-proj-two words", "sk-proj-line\nbreak", "k" * 17_000])
async def test_unusable_text(key: str, client_for: Callable[[str], Browser], provider: FakeProvider) -> None:
    """What cannot be a key is refused at the field, and nothing is sent to the provider."""
    reply = await client_for("admin").send(OPENAI, {"api_key": key})
    assert reply.status_code == 422
    assert 'aria-invalid="true"' in reply.text
    assert provider.requests == []
    if key.strip():
        assert key.strip() not in reply.text


async def test_the_key_never_comes_back(client_for: Callable[[str], Browser], provider: FakeProvider) -> None:
    """No page shows more of a key than its first eight characters, to anybody, and none is kept by the browser."""
    admin = client_for("admin")
    replies = [
        await admin.send(OPENAI, {"api_key": KEY}),
        await admin.send(f"{OPENAI}/check"),
    ]
    provider.script(echo=True)
    replies.append(await admin.send(OPENAI, {"api_key": OTHER_KEY}))
    replies.append(await admin.send(f"{OPENAI}/check"))
    for role in ("user", "admin", "owner"):
        for path in (PATH, OPENAI, f"{OPENAI}/remove", "/settings/audit", "/settings/usage"):
            replies.append(await client_for(role).get(path))
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store"
        for key in (KEY, OTHER_KEY):
            assert key[8:16] not in reply.text
            assert key[8:16] not in str(reply.headers)


async def test_update_replaces(
    client_for: Callable[[str], Browser], node: Node, acme: Acme, provider: FakeProvider
) -> None:
    """Update API Key puts the new key in the place of the old one."""
    admin = client_for("admin")
    await admin.send(OPENAI, {"api_key": KEY})
    before = (await provider_keys.list_keys(node.db, acme.actor("admin")))[0]
    await admin.send(OPENAI, {"api_key": OTHER_KEY})
    after = await provider_keys.list_keys(node.db, acme.actor("admin"))
    assert len(after) == 1
    assert after[0].id != before.id
    assert after[0].fingerprint != before.fingerprint


async def test_check_again(client_for: Callable[[str], Browser], provider: FakeProvider) -> None:
    """The stored key can be checked anew; what the provider says now is what the section shows."""
    admin = client_for("admin")
    await admin.send(OPENAI, {"api_key": KEY})
    provider.accept([])
    text = await admin.notice(await admin.send(f"{OPENAI}/check"))
    assert "Rejected" in text
    assert "OpenAI answered 401" in text
    provider.accept([KEY])
    assert "Active" in await admin.notice(await admin.send(f"{OPENAI}/check"))
    assert provider.last.key == KEY


async def test_remove(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Removing says what will happen, destroys the key, and says what AI runs on from then on."""
    owner = client_for("owner")
    await owner.send(OPENAI, {"api_key": KEY})
    page = await owner.page(PATH)
    assert "falls back to your plan's allowance" in page.text
    question = await owner.page(f"{OPENAI}/remove")
    assert question.form(f"{OPENAI}/remove").buttons == ["Remove"]
    assert "falls back to your plan's allowance" in question.text
    told = await owner.notice(await owner.send(f"{OPENAI}/remove"))
    assert "was removed and destroyed. AI on it runs on your plan's allowance again." in told
    assert await provider_keys.list_keys(node.db, acme.actor("owner")) == []
    assert (await owner.send(f"{OPENAI}/remove")).status_code == 404
    assert (await owner.get(f"{OPENAI}/remove")).status_code == 404


async def test_remove_where_there_is_no_platform_key(client_for: Callable[[str], Browser]) -> None:
    """Without a platform key for the provider, removing says that it stops being available."""
    owner = client_for("owner")
    await owner.send(f"{PATH}/anthropic", {"api_key": "sk-ant-api03-" + "a" * 93 + "AA", "unchecked": "yes"})
    assert "Anthropic is not part of your plan" in (await owner.page(f"{PATH}/anthropic/remove")).text
    told = await owner.notice(await owner.send(f"{PATH}/anthropic/remove"))
    assert "It is not available until a key is added." in told


@pytest.mark.parametrize("managed_by", ["owner"])
async def test_keys_managed_by_the_owner(client_for: Callable[[str], Browser]) -> None:
    """The operator may narrow the management of keys to the owner; an admin is then like everyone else."""
    page = await client_for("admin").page(PATH)
    assert "AI provider keys are managed by the organization's owner." in page.text
    assert "Add API Key" not in page.text
    refused = await client_for("admin").get(OPENAI)
    assert (refused.status_code, "managed by the organization" in refused.text) == (403, True)
    assert (await client_for("admin").send(OPENAI, {"api_key": KEY})).status_code == 403
    assert (await client_for("owner").send(OPENAI, {"api_key": KEY})).status_code == 303


async def test_locked_vault(web_app: FastAPI, node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A locked vault is said on the page and its controls are off; a key can still be removed."""
    admin = client_for("admin")
    await admin.send(OPENAI, {"api_key": KEY})
    web_app.state.node = replace(node, keyring=KeyRing([], locked_reason="the key file is gone: /secret/place"))
    page = await admin.page(PATH)
    assert "The key vault is locked" in page.text
    assert "/secret/place" not in page.html
    assert "disabled" in page.html
    assert (await admin.send(OPENAI, {"api_key": OTHER_KEY})).status_code == 503
    assert (await admin.send(f"{OPENAI}/remove")).status_code == 303
    assert await provider_keys.list_keys(node.db, acme.actor("admin")) == []


async def test_unknown_provider(client_for: Callable[[str], Browser]) -> None:
    """There is no page for a provider that is not in the table."""
    assert (await client_for("admin").get(f"{PATH}/nobody")).status_code == 404
    assert (await client_for("admin").send(f"{PATH}/nobody", {"api_key": KEY})).status_code == 404


@pytest.mark.parametrize("path", [OPENAI, f"{OPENAI}/remove"])
async def test_an_old_session_confirms_first(path: str, client_for: Callable[[str], Browser]) -> None:
    """Whoever gave their password over ten minutes ago gives it again before a key changes."""
    admin = client_for("admin")
    with time_machine.travel(clock.now() + timedelta(minutes=11)):
        reply = await admin.send(path, {"api_key": KEY})
    assert reply.status_code == 303
    assert reply.headers["location"].startswith("/confirm-password")


async def test_the_form_asks_first_too(client_for: Callable[[str], Browser]) -> None:
    """The form is not opened to somebody who would have to confirm after pasting the key."""
    admin = client_for("admin")
    with time_machine.travel(clock.now() + timedelta(minutes=11)):
        reply = await admin.get(OPENAI)
    assert reply.headers["location"].startswith("/confirm-password")


async def test_another_organization_has_its_own_keys(client_for: Callable[[str], Browser]) -> None:
    """A key of one organization is on no other organization's page."""
    await client_for("admin").send(OPENAI, {"api_key": KEY})
    page = await client_for("outsider").page(PATH)
    assert "Active" not in page.text
    assert "sk-proj-" not in page.text


async def test_every_provider_has_a_section(client_for: Callable[[str], Browser]) -> None:
    """The page and the provider table name the same providers, and link to where each one's keys are created."""
    page = await client_for("user").page(PATH)
    assert {provider.name for provider in registry.PROVIDERS.values()} <= {text for _, text in page.headings}
    assert {provider.console_url for provider in registry.PROVIDERS.values()} <= set(page.links)


async def served(node: Node, acme: Acme, key_id: str, tokens: int, by: str, days_ago: int = 1) -> None:
    """Write what a call on the key left behind."""
    at = clock.now() - timedelta(days=days_ago)
    async with node.db.transaction() as tx:
        await tx.execute(
            insert(usage_events).values(
                request_id=f"req_{key_id}_{by}_{days_ago}",
                organization_id=acme.organization.id,
                workspace_id=acme.workspace.id,
                period=clock.period_of(at),
                provider="openai",
                model="a-model",
                dialect="openai",
                billed_to="own_key",
                provider_key_id=key_id,
                user_id=acme.people[by].id,
                input_tokens=tokens,
                cached_input_tokens=0,
                cache_write_tokens=0,
                output_tokens=0,
                reasoning_tokens=0,
                charged_tokens=0,
                estimated=False,
                outcome="finished",
                started_at=at,
                duration_ms=1,
            )
        )


async def test_the_impact_is_shown_before_update_and_remove(
    client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """Who used the key, and how long the rest of the allowance would last at its rate; only to who may change it."""
    admin = client_for("admin")
    await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes"})
    assert "Nobody has used it in the last 30 days." in (await admin.page(f"{OPENAI}/remove")).text
    key = (await provider_keys.list_keys(node.db, acme.actor("admin")))[0]
    for by, days_ago in (("user", 10), ("developer", 2)):
        await served(node, acme, key.id, 2_000_000, by, days_ago)
    for path in (OPENAI, f"{OPENAI}/remove", PATH):
        text = (await admin.page(path)).text
        assert "In the last 30 days it served 2 requests by 2 members." in text, path
        assert "20,000,000 of its 20,000,000 tokens are left this month, which last about 50 days at this rate." in text
    assert "2 requests" not in (await client_for("user").page(PATH)).text
    await served(node, acme, key.id, 900_000_000, "user", 3)
    assert "which last less than a day at this rate" in (await admin.page(f"{OPENAI}/remove")).text


async def test_an_expiry_is_kept_and_shown(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A day after today; shown beside the key, marked when it is near or over; anything else is told at its field."""
    admin = client_for("admin")
    for wrong in ("2020-01-01", "soon", clock.now().date().isoformat(), "9999-12-31", "2027-02-30"):
        reply = await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes", "expires": wrong})
        assert reply.status_code == 422, wrong
        assert "expires-error" in reply.text
    day = clock.now() + timedelta(days=5)
    await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes", "expires": day.date().isoformat()})
    key = (await provider_keys.list_keys(node.db, acme.actor("admin")))[0]
    assert key.expires_at == day.replace(hour=0, minute=0, second=0, microsecond=0)
    assert f"{day.day} {day:%b %Y} in 5 days" in (await client_for("user").page(PATH)).text
    with time_machine.travel(day + timedelta(days=1)):
        token = await build.session(node.db, acme.people["user"])
        later = client_for("user")
        later.keep(later.cookie, token)
        assert "Expired" in (await later.page(PATH)).text


async def test_every_workspace_sees_the_same_truth(
    client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """A key's health is the organization's: another workspace shows the same, another organization its own."""
    admin, owner, outsider = client_for("admin"), client_for("owner"), client_for("outsider")
    await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes"})
    await outsider.send(OPENAI, {"api_key": KEY, "unchecked": "yes"})
    key = (await provider_keys.list_keys(node.db, acme.actor("admin")))[0]
    await key_health.note_health(node.db, key.id, key.organization_id, Health.REJECTED, "Revoked last night.")
    second = await workspaces.create(node.db, acme.actor("owner"), node.catalogue["professional"], "Second")
    shown = [(await admin.page(PATH)).text.split("OpenAI", 1)[1], (await owner.page(PATH)).text.split("OpenAI", 1)[1]]
    await owner.send("/workspace", {"workspace": second.id})
    elsewhere = await owner.page(PATH)
    assert "Second" in elsewhere.text
    for text in (*shown, elsewhere.text):
        assert "rejected since" in text
        assert "Revoked last night." in text
        assert key.fingerprint in text
    theirs = (await outsider.page(PATH)).text
    assert "Revoked" not in theirs
    assert "Saved without checking." in theirs


@pytest.mark.parametrize(("role", "told"), [("user", False), ("developer", False), ("admin", True), ("owner", True)])
async def test_who_can_act_is_told_on_the_pages(
    role: str, told: bool, client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """While a key fails, those who may change it read so where they look at AI; it is gone when the key works."""
    await client_for("admin").send(OPENAI, {"api_key": KEY, "unchecked": "yes"})
    key = (await provider_keys.list_keys(node.db, acme.actor("admin")))[0]
    await key_health.note_health(node.db, key.id, key.organization_id, Health.OUT_OF_CREDIT, "")
    for path in (PATH, "/settings/usage", "/assistant"):
        assert ("Your OpenAI key : out of credit since" in (await client_for(role).page(path)).text) is told, path
    await key_health.note_health(node.db, key.id, key.organization_id, Health.ACTIVE, "")
    assert "Your OpenAI key" not in (await client_for(role).page(PATH)).text


async def test_what_happens_when_a_key_fails_is_chosen(
    client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """Never at first; everyone reads the choice and what it took this month, and managers change it without the key."""
    admin, user = client_for("admin"), client_for("user")
    await admin.send(OPENAI, {"api_key": KEY, "unchecked": "yes"})
    assert "The allowance is not used" in (await user.page(PATH)).text
    assert "If this key fails" not in (await user.page(PATH)).text
    told = await admin.notice(await admin.send(f"{OPENAI}/fallback", {"fallback": "allowance", "tokens": "50,000"}))
    assert "the allowance serves up to 50,000 tokens a month" in told
    period = clock.period_of(clock.now())
    row = {"request_id": "req_2", "organization_id": acme.organization.id, "provider": "openai", "period": period}
    counts = {f"{kind}_tokens": 0 for kind in ("cached_input", "cache_write", "reasoning")}
    event = {"workspace_id": acme.workspace.id, "model": "m", "dialect": "openai", "billed_to": "allowance", **counts}
    async with node.db.transaction() as tx:
        await tx.execute(insert(fallback_calls).values(**row, reason="outage", after_request_id="req_1"))
        event |= {"input_tokens": 200, "output_tokens": 1_000, "charged_tokens": 1_200, "estimated": False}
        event |= {
            "outcome": "finished",
            "started_at": clock.now(),
            "duration_ms": 1,
            "position": 1,
            "used_after": 1_200,
        }
        await tx.execute(insert(usage_events).values(**row, **event))
    text = (await user.page(PATH)).text
    assert "serves up to 50,000 tokens a month; 1,200 tokens in 1 request this month" in text
    usage = (await user.page("/settings/usage")).text
    assert "In place of your OpenAI key 1,200 of those used, in 1 request that it could not serve" in usage
    for wrong in ("", "0", "-5", "many", "9" * 30, "1.5", "0.500", "5,00", "1,2345", "1,000.000", ",", "٣"):
        reply = await admin.send(f"{OPENAI}/fallback", {"fallback": "allowance", "tokens": wrong})
        assert reply.status_code == 422, wrong
    (key,) = await provider_keys.list_keys(node.db, acme.actor("admin"))
    assert key.fallback_tokens == 50_000
    for given, tokens in (("2.000.000", 2_000_000), ("30 000", 30_000), ("4,000", 4_000), (" 500 ", 500)):
        await admin.send(f"{OPENAI}/fallback", {"fallback": "allowance", "tokens": given})
        (key,) = await provider_keys.list_keys(node.db, acme.actor("admin"))
        assert key.fallback_tokens == tokens, given
    assert (await admin.send(f"{OPENAI}/fallback", {"fallback": "sometimes"})).status_code == 422
    await admin.send(f"{OPENAI}/fallback", {"fallback": "never"})
    (key,) = await provider_keys.list_keys(node.db, acme.actor("admin"))
    assert key.fallback_tokens is None
    assert (await user.send(f"{OPENAI}/fallback", {"fallback": "never"})).status_code == 403


async def test_without_a_platform_key_there_is_nothing_to_choose(client_for: Callable[[str], Browser]) -> None:
    """Where the operator has no key of its own for a provider the page offers none."""
    admin = client_for("admin")
    await admin.send(f"{PATH}/anthropic", {"api_key": "sk-ant-api03-0123456789", "unchecked": "yes"})
    page = await admin.page(PATH)
    assert "If this key fails" not in page.text
