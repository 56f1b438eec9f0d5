"""Settings → Developer: tokens are shown once, renamed, revoked; and the lines to copy."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import time_machine
from fastapi import FastAPI

from ownkey import clock
from ownkey.accounts import api_tokens
from ownkey.errors import NotAuthenticated
from ownkey.node import Node
from ownkey.providers.registry import PROVIDERS
from ownkey.web import snippets
from tests.web.conftest import PASSWORD, PUBLIC_URL, Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

PATH = "/settings/developer"
TOKENS = f"{PATH}/tokens"
_TOKEN = re.compile(r"ownkey_[0-9A-Za-z]{40}")


async def generated(browser: Browser, name: str = "Nightly report", scope: str = "gateway") -> str:
    """Generate a token on the page; its text."""
    reply = await browser.send(TOKENS, {"name": name, "scope": scope})
    assert reply.status_code == 200, Page(reply.text).text
    return str(_TOKEN.findall(reply.text)[0])


async def test_not_for_users(client_for: Callable[[str], Browser]) -> None:
    """Users have no tokens: the page is closed to them, and so are its forms."""
    user = client_for("user")
    assert (await user.get(PATH)).status_code == 403
    assert (await user.send(TOKENS, {"name": "Mine", "scope": "gateway"})).status_code == 403


@pytest.mark.parametrize("role", ["developer", "admin", "owner"])
async def test_generate(role: str, node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A token is shown in the reply to its making, with Copy and close, and never again; it works."""
    browser = client_for(role)
    assert (await browser.page(PATH)).form(f"{TOKENS}/new").buttons == ["Generate Token"]
    assert (await browser.page(f"{TOKENS}/new")).form(TOKENS).buttons == ["Generate Token"]
    reply = await browser.send(TOKENS, {"name": "Nightly report", "scope": "gateway"})
    token = _TOKEN.findall(reply.text)
    assert len(token) == 1
    assert "Copy and close" in reply.text
    assert reply.headers["cache-control"] == "no-store"
    listed = await browser.page(PATH)
    assert "Nightly report" in listed.text
    assert f"{token[0][:11]}…" in listed.text
    assert token[0] not in listed.html
    actor = await api_tokens.actor_for(node.db, token[0], node.catalogue)
    assert actor.organization_id == acme.organization.id


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "", "scope": "gateway"}, "Enter a name."),
        ({"name": "Report"}, "Choose at least one scope."),
        ({"name": "Report", "scope": "everything"}, "There is no scope"),
    ],
)
async def test_unusable(fields: dict[str, str], said: str, client_for: Callable[[str], Browser]) -> None:
    """A token needs a name and at least one scope that exists; the form says what is missing."""
    reply = await client_for("developer").send(TOKENS, fields)
    assert reply.status_code == 422
    assert said in Page(reply.text).text
    assert not _TOKEN.search(reply.text)


async def test_scopes_are_bounded_by_the_maker(client_for: Callable[[str], Browser]) -> None:
    """A developer is not offered an admin's scopes, and does not get one by asking."""
    developer = client_for("developer")
    assert "provider_keys.manage" not in (await developer.page(f"{TOKENS}/new")).text
    assert "provider_keys.manage" in (await client_for("admin").page(f"{TOKENS}/new")).text
    reply = await developer.send(TOKENS, {"name": "More", "scope": "provider_keys.manage"})
    assert reply.status_code == 403


async def test_the_password_is_asked_for_again(client_for: Callable[[str], Browser]) -> None:
    """A token may change keys and roles, so making one asks for the password, before anything is typed."""
    with time_machine.travel(clock.now() + timedelta(minutes=11), tick=True):
        admin = client_for("admin")
        reply = await admin.get(f"{TOKENS}/new")
        assert reply.headers["location"] == f"/confirm-password?next={TOKENS}/new"
        reply = await admin.send(TOKENS, {"name": "More", "scope": "members.manage"})
        assert reply.headers["location"].startswith("/confirm-password")
        assert "No tokens yet" in (await admin.page(PATH)).text
        given = {"password": PASSWORD, "next": f"{TOKENS}/new"}
        reply = await admin.send("/confirm-password", given, on="/confirm-password")
        assert reply.headers["location"] == f"{TOKENS}/new"
        await generated(admin, scope="members.manage")


async def test_rename(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A token can be renamed; a name is still needed."""
    developer = client_for("developer")
    await generated(developer)
    token = (await api_tokens.list_tokens(node.db, acme.actor("developer")))[0]
    target = f"{TOKENS}/{token.id}/rename"
    assert (await developer.page(target)).form(target).fields["name"] == "Nightly report"
    assert (await developer.send(target, {"name": " "})).status_code == 422
    assert "Weekly report" in await developer.notice(await developer.send(target, {"name": "Weekly report"}))


async def test_revoke(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Revoking asks first; from then on the token is refused and is no longer in the list."""
    developer = client_for("developer")
    text = await generated(developer)
    token = (await api_tokens.list_tokens(node.db, acme.actor("developer")))[0]
    target = f"{TOKENS}/{token.id}/revoke"
    assert "Revoke Nightly report?" in (await developer.page(target)).text
    assert "is revoked" in await developer.notice(await developer.send(target))
    assert "No tokens yet" in (await developer.page(PATH)).text
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(node.db, text, node.catalogue)
    assert (await developer.send(target)).status_code == 404


async def test_tokens_of_others_do_not_exist(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Another organization's token is not found, and stays."""
    await generated(client_for("developer"))
    token = (await api_tokens.list_tokens(node.db, acme.actor("developer")))[0]
    outsider = client_for("outsider")
    for what in ("rename", "revoke"):
        assert (await outsider.get(f"{TOKENS}/{token.id}/{what}")).status_code == 404
        assert (await outsider.send(f"{TOKENS}/{token.id}/{what}", {"name": "Stolen"})).status_code == 404
    assert [t.name for t in await api_tokens.list_tokens(node.db, acme.actor("developer"))] == ["Nightly report"]


async def test_share_of_the_request_limit(client_for: Callable[[str], Browser]) -> None:
    """The list says how many of the month's requests a token has made."""
    developer = client_for("developer")
    await generated(developer)
    assert "0 of 1,000,000 requests this month (0.0 %)" in (await developer.page(PATH)).text


@pytest.mark.parametrize(
    ("role", "way_out"),
    [("developer", "The owner of Acme can choose a plan that does"), ("owner", "Choose a plan with API access")],
)
async def test_plan_without_api_access(
    role: str, way_out: str, node: Node, acme: Acme, web_app: FastAPI, client_for: Callable[[str], Browser]
) -> None:
    """A plan without API access is said, with the way out for this person, and the server makes no token."""
    without = node.catalogue["professional"].model_copy(update={"api_access": False})
    web_app.state.node = replace(node, catalogue={"professional": without})
    browser = client_for(role)
    page = await browser.page(PATH)
    assert "The Professional plan does not include API access" in page.text
    assert way_out in page.text
    assert "Generate Token" not in page.text
    assert (await browser.send(TOKENS, {"name": "Mine", "scope": "gateway"})).status_code == 403
    assert await api_tokens.list_tokens(node.db, acme.actor("developer")) == []


def test_snippets_are_programs() -> None:
    """The Python lines parse, and all of them have this installation's address."""
    for snippet in snippets.for_programs(PUBLIC_URL):
        assert PUBLIC_URL in snippet.text
        assert "YOUR_API_TOKEN" in snippet.text
        if snippet.name != "curl":
            ast.parse(snippet.text)


async def test_base_urls(client_for: Callable[[str], Browser]) -> None:
    """The page has the base URL of every provider."""
    page = await client_for("developer").page(PATH)
    for slug, provider in PROVIDERS.items():
        assert f"{PUBLIC_URL}/{slug}{provider.sdk_path}" in page.text
