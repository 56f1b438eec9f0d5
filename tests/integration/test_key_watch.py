"""Connected keys are looked after without traffic: checked, their changes told by mail, expiry reminded of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest
import time_machine
from pydantic import SecretStr
from sqlalchemy import update

from ownkey import audit, clock, plans
from ownkey.access import Actor, Role
from ownkey.accounts import workspaces
from ownkey.accounts.organizations import Created
from ownkey.credentials import Secret
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.housekeeping import key_watch
from ownkey.mail import Mailer
from ownkey.node import Node
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.settings import Settings, read_settings
from ownkey.vault import key_health, provider_keys
from ownkey.vault.key_health import CHECK_EVERY
from ownkey.vault.keyring import KeyRing
from ownkey.vault.provider_keys import ProviderKey
from tests import build
from tests.fakes.post import Post, serving
from tests.fakes.provider import FakeProvider

pytestmark = pytest.mark.anyio

KEY = "sk-proj-7hQ2mZx9LrT4vB8nYc3KdW6sPfJ1aE5uG0"
PROVIDERS = ("openai", "deepseek", "azure", "acme-llm")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The provider that keys are checked with."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def settings(tmp_path: Path, provider: FakeProvider) -> Settings:
    """Settings that lead to it."""
    return read_settings(
        data_dir=tmp_path,
        public_url="https://ai.acme.example",
        app_name="Acme AI",
        base_urls={
            "openai": provider.url,
            "deepseek": provider.url,
            "openrouter": provider.url,
            "nvidia": provider.url,
            "acme-llm": provider.url,
        },
    )


@pytest.fixture
def post() -> Post:
    """The mail server's inbox."""
    return Post()


@pytest.fixture
async def node(database: Database, settings: Settings, post: Post) -> AsyncIterator[Node]:
    """A node that can mail."""
    async with serving(post) as address:
        mailing = settings.model_copy(update={"smtp_url": SecretStr(f"smtp://{address}")})
        yield Node(mailing, database, build.keyring(), plans.DEFAULT_CATALOGUE, Mailer(mailing))


async def connected(node: Node, made: Created, slug: str = "openai", health: Health = Health.ACTIVE) -> ProviderKey:
    """A key of the organization, long enough ago to be due."""
    actor = Actor.operator(made.organization.id, made.workspace.id)
    row = registry.PROVIDERS.get(slug) or node.providers[slug]
    key = await provider_keys.save(node.db, node.keyring, actor, row, Secret(KEY), health, "At first.")
    await make_due(node)
    return key


async def make_due(node: Node) -> None:
    """As if the time for the next check had come for every key."""
    async with node.db.transaction() as tx:
        past = clock.now() - timedelta(minutes=1)
        await tx.execute(update(tables.provider_key_health).values(next_check_at=past))


async def health_of(node: Node, key: ProviderKey) -> tuple[Health, str]:
    """What the page shows."""
    shown = await provider_keys.list_keys(node.db, Actor.operator(key.organization_id))
    return next((each.health, each.said) for each in shown if each.id == key.id)


def mails(post: Post) -> list[tuple[str, str, str]]:
    """To whom, subject, text."""
    found = []
    for envelope in post.received:
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        found.append((message["To"], message["Subject"], message.get_content()))
    return sorted(found)


async def test_a_revoked_key_is_noticed_without_traffic_and_told_once(
    node: Node, provider: FakeProvider, post: Post
) -> None:
    """The free check finds it; admins of every workspace and the owner get one message, nobody else any."""
    made = await build.organization(node.db, name="Acme")
    owner = build.acting(made.owner, made, Role.OWNER)
    second = await workspaces.create(node.db, owner, node.catalogue["enterprise"], "Second")
    await build.member(node.db, made, Role.ADMIN, email="a@acme.example")
    await build.member(node.db, made, Role.ADMIN, email="b@acme.example", workspace_id=second.id)
    await build.member(node.db, made, Role.DEVELOPER, email="dev@acme.example")
    key = await connected(node, made)
    provider.accept([])
    assert await key_watch.check_due(node) == 1
    assert [(r.method, r.path, r.tokens_in, r.tokens_out) for r in provider.requests] == [("GET", "/v1/models", 0, 0)]
    health, said = await health_of(node, key)
    assert health is Health.REJECTED
    assert "Incorrect API key" in said
    assert await key_watch.tell_changes(node) == 1
    await make_due(node)
    assert await key_watch.check_due(node) == 1
    assert await key_watch.tell_changes(node) == 0
    got = mails(post)
    assert [to for to, _, _ in got] == ["a@acme.example", "b@acme.example", made.owner.email]
    assert {subject for _, subject, _ in got} == {"OpenAI refuses the API key of Acme"}
    text = got[0][2]
    for part in ("sk-proj-••••••••", "Incorrect API key", "https://ai.acme.example/settings/integrations#openai"):
        assert part in text
    assert KEY[10:] not in text


async def test_a_chosen_fallback_is_told(node: Node, post: Post) -> None:
    """A message about a failing key says whether the allowance steps in: never, or when and how far as was chosen."""
    never, chosen = [await connected(node, await build.organization(node.db)) for _ in range(2)]
    await provider_keys.set_fallback(node.db, Actor.operator(chosen.organization_id), "openai", 50_000)
    for key in (never, chosen):
        await key_health.note_health(node.db, key.id, key.organization_id, Health.OUT_OF_CREDIT, "No credit.")
    assert await key_watch.tell_changes(node) == 2
    texts = [text for _, _, text in mails(post)]
    assert sorted("up to 50,000 tokens in a month" in text for text in texts) == [False, True]
    assert sorted("allowance is not used in its place" in text for text in texts) == [False, True]


async def test_only_the_owner_is_told_where_only_the_owner_manages(
    database: Database, settings: Settings, post: Post, provider: FakeProvider
) -> None:
    """The message goes to those who can act on it."""
    async with serving(post) as address:
        narrow = settings.model_copy(update={"smtp_url": SecretStr(f"smtp://{address}"), "keys_managed_by": "owner"})
        node = Node(narrow, database, build.keyring(), plans.DEFAULT_CATALOGUE, Mailer(narrow))
        made = await build.organization(database)
        await build.member(database, made, Role.ADMIN)
        await connected(node, made)
        provider.accept([])
        await key_watch.check_due(node)
        await key_watch.tell_changes(node)
    assert [to for to, _, _ in mails(post)] == [made.owner.email]


@pytest.mark.parametrize(
    ("slug", "before", "status", "after"),
    [
        ("openai", Health.REJECTED, 200, Health.ACTIVE),
        ("openai", Health.UNREACHABLE, 200, Health.ACTIVE),
        ("openai", Health.OUT_OF_CREDIT, 200, Health.OUT_OF_CREDIT),  # its list of models tells nothing of money
        ("openrouter", Health.OUT_OF_CREDIT, 200, Health.OUT_OF_CREDIT),  # nor does a key's own limit
        ("deepseek", Health.OUT_OF_CREDIT, 200, Health.ACTIVE),  # its balance does
        ("openai", Health.ACTIVE, 403, Health.ACTIVE),  # nor does a refused list of a restricted key
        ("openai", Health.REJECTED, 403, Health.REJECTED),
        ("openai", Health.LIMITED, 403, Health.UNVERIFIED),  # but there was an answer, and no limit
        ("openai", Health.UNREACHABLE, 404, Health.UNVERIFIED),
        ("nvidia", Health.LIMITED, 200, Health.UNVERIFIED),
        ("openai", Health.ACTIVE, 500, Health.UNREACHABLE),
        ("openai", Health.ACTIVE, 429, Health.LIMITED),
    ],
)
async def test_a_check_says_only_what_it_can_know(
    node: Node, provider: FakeProvider, slug: str, before: Health, status: int, after: Health
) -> None:
    """What traffic showed is not undone by an answer that says nothing of it; then the words stay, too."""
    key = await connected(node, await build.organization(node.db), slug, before)
    provider.script(status=status)
    assert await key_watch.check_due(node) == 1
    health, said = await health_of(node, key)
    assert health is after
    assert (said == "At first.") == (after is before)


@pytest.mark.parametrize("status", [200, 403])
async def test_what_traffic_tells_during_a_check_stays(node: Node, provider: FakeProvider, status: int) -> None:
    """The answer is older than what a call told meanwhile, whatever it says."""
    key = await connected(node, await build.organization(node.db), "openai")
    provider.script(status=status)
    provider.hold()
    checking = asyncio.create_task(key_watch.check_due(node))
    await provider.wait_async(lambda one: one.held == 1)
    await key_health.note_health(node.db, key.id, key.organization_id, Health.OUT_OF_CREDIT, "No credit.")
    provider.release()
    assert await checking == 1
    assert await health_of(node, key) == (Health.OUT_OF_CREDIT, "No credit.")


async def test_a_key_that_cannot_be_opened_is_told(node: Node, provider: FakeProvider) -> None:
    """Its row was changed: it goes nowhere, the audit log says so, and its admins hear of it."""
    key = await connected(node, await build.organization(node.db))
    async with node.db.transaction() as tx:
        changed = tables.provider_keys.c.id == key.id
        await tx.execute(update(tables.provider_keys).where(changed).values(base_url="https://evil.example"))
    assert await key_watch.check_due(node) == 1
    assert provider.requests == []
    health, said = await health_of(node, key)
    assert (health, "cannot be opened" in said) == (Health.UNREACHABLE, True)
    entries = await audit.entries(node.db, key.organization_id, action="provider_key.check")
    assert [(entry.target, entry.allowed) for entry in entries] == [(key.id, False)]


async def test_what_is_the_operators_business_changes_nothing(
    node: Node, settings: Settings, provider: FakeProvider
) -> None:
    """A locked vault, and a provider that was taken out of the settings: no check, and the key stays as it was."""
    key = await connected(node, await build.organization(node.db), "acme-llm")
    without = settings.model_copy(update={"base_urls": {}})
    for other in (
        Node(settings, node.db, KeyRing([], locked_reason="gone"), node.catalogue, Mailer(settings)),
        Node(without, node.db, node.keyring, node.catalogue, Mailer(without)),
    ):
        await key_watch.check_due(other)
    assert provider.requests == []
    assert await health_of(node, key) == (Health.ACTIVE, "At first.")


async def test_many_due_keys_make_no_storm(node: Node, provider: FakeProvider) -> None:
    """After a long standstill a node takes a few a round; each is checked once."""
    made = [await connected(node, await build.organization(node.db)) for _ in range(25)]
    rounds = [await key_watch.check_due(node) for _ in range(4)]
    assert rounds == [10, 10, 5, 0]
    assert len(provider.requests) == len(made)


async def test_one_that_cannot_be_told_keeps_no_other(node: Node, post: Post) -> None:
    """An organization that cannot be read, here because another is called as it, costs only its own message."""
    for name in ("A", "B", "C"):
        key = await connected(node, await build.organization(node.db, name=name))
        await key_health.note_health(node.db, key.id, key.organization_id, Health.REJECTED, "No.")
        if name == "B":
            another = await build.organization(node.db)
            async with node.db.transaction() as tx:
                its = tables.organizations.c.id == another.organization.id
                await tx.execute(update(tables.organizations).where(its).values(slug=key.organization_id))
    assert await key_watch.tell_changes(node) == 3
    assert sorted(subject.split()[-1] for _, subject, _ in mails(post)) == ["A", "C"]


async def test_the_end_of_a_key_is_reminded_of(node: Node, post: Post) -> None:
    """By mail, with the day, to those who can put in a new one; it goes on working meanwhile."""
    made = await build.organization(node.db, name="Acme")
    actor = Actor.operator(made.organization.id, made.workspace.id)
    end = provider_keys.expiry((clock.now() + timedelta(days=10)).date().isoformat())
    openai = node.providers["openai"]
    await provider_keys.save(node.db, node.keyring, actor, openai, Secret(KEY), Health.ACTIVE, expires_at=end)
    assert [await key_watch.remind(node) for _ in range(2)] == [1, 0]
    [(to, subject, text)] = mails(post)
    assert (to, subject) == (made.owner.email, f"The OpenAI key of Acme expires on {end:%Y-%m-%d}")
    assert "Update API Key" in text
    with time_machine.travel(clock.now() + timedelta(days=9), tick=True):
        assert await key_watch.remind(node) == 1


async def test_without_mail_the_log_says_it(
    database: Database, settings: Settings, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is waited for: the page shows it, and a line names organization, provider and health."""
    node = Node(settings, database, build.keyring(), plans.DEFAULT_CATALOGUE, Mailer(settings))
    key = await connected(node, await build.organization(database))
    provider.accept([])
    await key_watch.check_due(node)
    assert await key_watch.tell_changes(node) == 1
    shown = "".join(capsys.readouterr())
    assert key.organization_id in shown
    assert "rejected" in shown
    assert KEY[10:] not in shown
    assert timedelta(hours=1) < CHECK_EVERY
    assert await key_health.claim_changes(database, 9) == []
