"""Who may open which page: every page and form there is, for every kind of person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ownkey import audit, clock
from ownkey.access import Action, Role
from ownkey.accounts import memberships
from ownkey.node import Node
from ownkey.web import navigation, urls
from ownkey.web.urls import PAGES
from tests.web.conftest import PUBLIC_URL, ROLES, Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

# The lowest role that may; "anyone" needs no session. A page that is not here fails the first test.
LOWEST: dict[tuple[str, str], str] = {
    ("GET", "/"): "anyone",
    ("GET", "/sign-in"): "anyone",
    ("POST", "/sign-in"): "anyone",
    ("GET", "/sign-in/{token}"): "anyone",
    ("POST", "/sign-in/{token}"): "anyone",
    ("POST", "/sign-out"): "anyone",
    ("GET", "/invitations/{token}"): "anyone",
    ("POST", "/invitations/{token}"): "anyone",
    ("GET", "/help"): "anyone",
    ("GET", "/help/{article}"): "anyone",
    ("GET", "/confirm-password"): "user",
    ("POST", "/confirm-password"): "user",
    ("GET", "/assistant"): "user",
    ("POST", "/assistant/messages"): "user",
    ("GET", "/assistant/conversations"): "user",
    ("GET", "/assistant/{conversation}"): "user",
    ("GET", "/assistant/{conversation}/delete"): "user",
    ("POST", "/assistant/{conversation}/delete"): "user",
    ("POST", "/workspace"): "user",
    ("GET", "/settings"): "user",
    ("GET", "/settings/account"): "user",
    ("POST", "/settings/account"): "user",
    ("GET", "/settings/security"): "user",
    ("POST", "/settings/security/password"): "user",
    ("POST", "/settings/security/sessions"): "user",
    ("GET", "/settings/workspace"): "user",
    ("POST", "/settings/workspace"): "admin",
    ("POST", "/settings/workspace/cap"): "admin",
    ("POST", "/settings/workspace/new"): "admin",
    ("GET", "/settings/members"): "admin",
    ("POST", "/settings/members/invitations"): "admin",
    ("POST", "/settings/members/invitations/{invitation}/revoke"): "admin",
    ("POST", "/settings/members/{user}/role"): "admin",
    ("GET", "/settings/members/{user}/workspaces"): "admin",
    ("POST", "/settings/members/{user}/workspaces"): "admin",
    ("GET", "/settings/members/{user}/cap"): "admin",
    ("POST", "/settings/members/{user}/cap"): "admin",
    ("GET", "/settings/members/{user}/remove"): "admin",
    ("POST", "/settings/members/{user}/remove"): "admin",
    ("GET", "/settings/integrations"): "user",
    ("GET", "/settings/integrations/{provider}"): "admin",
    ("POST", "/settings/integrations/{provider}"): "admin",
    ("POST", "/settings/integrations/{provider}/check"): "admin",
    ("POST", "/settings/integrations/{provider}/fallback"): "admin",
    ("GET", "/settings/integrations/{provider}/remove"): "admin",
    ("POST", "/settings/integrations/{provider}/remove"): "admin",
    ("GET", "/settings/usage"): "user",
    ("GET", "/settings/developer"): "developer",
    ("GET", "/settings/developer/tokens/new"): "developer",
    ("POST", "/settings/developer/tokens"): "developer",
    ("GET", "/settings/developer/tokens/{token}/rename"): "developer",
    ("POST", "/settings/developer/tokens/{token}/rename"): "developer",
    ("GET", "/settings/developer/tokens/{token}/revoke"): "developer",
    ("POST", "/settings/developer/tokens/{token}/revoke"): "developer",
    ("GET", "/settings/organization"): "admin",
    ("POST", "/settings/organization"): "admin",
    ("GET", "/settings/audit"): "admin",
    ("GET", "/settings/audit.csv"): "admin",
    ("GET", "/settings/billing"): "owner",
    ("POST", "/settings/billing"): "owner",
}
CLOSED = [(method, path, lowest) for (method, path), lowest in LOWEST.items() if lowest != "anyone"]
# Whoever may ask is told that there is no such thing, never that it is somebody else's.
UNKNOWN = "usr_00000000000000000000000000"


def _filled(path: str) -> str:
    return "/".join(UNKNOWN if part.startswith("{") else part for part in path.split("/"))


def _may(role: str, lowest: str) -> bool:
    return Role.of(role) >= Role.of(lowest)


def test_every_page_is_in_the_table() -> None:
    """A page nobody has decided about, or a decision about a page that is gone, fails here."""
    assert {(page.method, page.path) for page in PAGES} == set(LOWEST)


def test_no_two_lines_answer_the_same() -> None:
    """Every method and path stands once."""
    assert len({(page.method, page.path) for page in PAGES}) == len(PAGES)


@pytest.mark.parametrize("role", ROLES)
async def test_pages_by_role(role: str, client_for: Callable[[str], Browser]) -> None:
    """A page opens for the roles of its line and is 403 for the ones below; an unknown id is 404, to nobody else."""
    browser = client_for(role)
    for method, path, lowest in CLOSED:
        if method != "GET" or path.startswith("/assistant"):
            continue
        status = (await browser.get(_filled(path))).status_code
        if not _may(role, lowest):
            assert status == 403, path
        else:
            assert status in ((404,) if "{" in path else (200, 303)), (path, status)


@pytest.mark.parametrize("role", ["user", "developer", "admin"])
async def test_forms_are_refused_below_their_role(
    role: str, client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """A form sent by a role below its line is 403 and recorded; nothing it asks for happens."""
    browser = client_for(role)
    csrf = await browser.csrf()
    closed = [path for method, path, lowest in CLOSED if method == "POST" and not _may(role, lowest)]
    for path in closed:
        fields = {"csrf": csrf, "name": "Changed", "new_name": "Changed", "plan": "enterprise"}
        reply = await browser.client.post(_filled(path), data=fields, headers={"origin": browser.origin})
        assert reply.status_code == 403, path
    recorded = await audit.entries(node.db, acme.organization.id, limit=len(closed))
    assert [(entry.allowed, entry.actor_id) for entry in recorded] == [(False, acme.people[role].id)] * len(closed)


@pytest.mark.parametrize("path", sorted({path for _, path, _ in CLOSED}))
async def test_nobody_without_a_session(path: str, client_for: Callable[[str], Browser]) -> None:
    """Without a session a page leads to sign-in and back; a form leads to sign-in; a program is told 401."""
    browser = client_for("anonymous")
    for method in {method for method, known, _ in CLOSED if known == path}:
        headers = {"origin": browser.origin}
        reply = await browser.client.request(method, _filled(path), headers=headers)
        assert reply.status_code == 303, method
        assert reply.headers["location"].startswith("/sign-in"), method
        headers["accept"] = "application/json"
        reply = await browser.client.request(method, _filled(path), headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, "not_authenticated"), method


async def test_a_removed_member(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """From the reply to a removal on, the person's open session opens nothing, and a page says why."""
    browser = client_for("user")
    await browser.page("/settings/account")
    await memberships.remove(node.db, acme.actor("admin"), acme.people["user"].id, acme.workspace.id)
    for method, path, _ in CLOSED:
        reply = await browser.client.request(method, _filled(path), headers={"origin": browser.origin})
        assert reply.status_code in (303, 403), path
        if reply.status_code == 403:
            assert "not in any workspace" in reply.text
    assert (await browser.get("/sign-in")).status_code == 200


async def test_a_changed_role_counts_at_once(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A role taken away or given counts at the next request of a session that is already open."""
    browser = client_for("developer")
    assert (await browser.get("/settings/audit")).status_code == 403
    person = acme.people["developer"].id
    await memberships.change_role(node.db, acme.actor("admin"), person, acme.workspace.id, Role.ADMIN)
    assert (await browser.get("/settings/audit")).status_code == 200
    await memberships.change_role(node.db, acme.actor("admin"), person, acme.workspace.id, Role.USER)
    assert (await browser.get("/settings/audit")).status_code == 403


async def test_a_session_ended_on_the_server(signed_out: Browser) -> None:
    """A session that was revoked opens nothing, though the browser still has its cookie."""
    assert (await signed_out.get("/settings/account")).headers["location"] == "/sign-in?next=/settings/account"


async def test_an_outsider_sees_nothing_of_acme(client_for: Callable[[str], Browser], acme: Acme, node: Node) -> None:
    """The owner of another organization meets their own pages, and not a word about this one."""
    browser = client_for("outsider")
    secrets = [acme.organization.id, acme.organization.name + "<", acme.workspace.id, "admin@acme.test"]
    for method, path, _ in CLOSED:
        if method == "GET" and "{" not in path and not path.startswith("/assistant"):
            reply = await browser.client.get(path, follow_redirects=True)
            assert reply.status_code == 200, path
            assert not [secret for secret in secrets if secret in reply.text], path
    foreign = await browser.send("/workspace", {"workspace": acme.workspace.id})
    unknown = await browser.send("/workspace", {"workspace": "wsp_00000000000000000000000000"})
    assert foreign.status_code == unknown.status_code == 404
    assert Page(foreign.text).headings == Page(unknown.text).headings


@pytest.mark.parametrize("role", ROLES)
async def test_navigation_lists_what_opens(role: str, client_for: Callable[[str], Browser]) -> None:
    """The settings navigation lists every settings page the role may open, and no other."""
    browser = client_for(role)
    listed = {link for link in (await browser.page("/settings/account")).links if link.startswith("/settings/")}
    everything = {entry.path for _, entries in navigation.SETTINGS for entry in entries}
    assert listed == {path for path in everything if _may(role, LOWEST["GET", path])}


def test_navigation_asks_what_its_pages_ask() -> None:
    """A line of the navigation needs the same action as its page, so that none leads to a refusal."""
    needs = {page.path: page.needs for page in PAGES if page.method == "GET"}
    for _, entries in navigation.SETTINGS:
        for entry in entries:
            assert needs[entry.path] is entry.needs, entry.path


async def test_reading_changes_nothing(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """GET and HEAD of every page leave no entry in the audit log: what changes something is a form."""
    browser = client_for("owner")
    before = await audit.entries(node.db, acme.organization.id)
    for method, path, _ in CLOSED:
        if method == "GET" and not path.startswith("/assistant"):
            await browser.get(_filled(path))
            await browser.client.head(_filled(path))
    assert await audit.entries(node.db, acme.organization.id) == before


async def test_the_table_guards_by_itself(web_app: FastAPI, client_for: Callable[[str], Browser]) -> None:
    """A handler that checks nothing is still closed to lower roles, to other sites, and after ten minutes."""
    reached: list[str] = []

    async def careless(request: Request) -> Response:
        reached.append(request.method)
        return Response()

    for line in (
        urls.Page("GET", "/careless", careless, Action.BILLING_READ),
        urls.Page("POST", "/careless", careless, Action.BILLING_READ, recent=True),
    ):
        web_app.add_route(line.path, urls.guarded(line), methods=[line.method])
    admin, owner = client_for("admin").client, client_for("owner").client
    ours = {"origin": PUBLIC_URL}
    assert (await admin.get("/careless")).status_code == 403
    assert (await admin.post("/careless", headers=ours)).status_code == 403
    assert (await owner.post("/careless", headers={"origin": "https://evil.test"})).status_code == 403
    with time_machine.travel(clock.now() + timedelta(minutes=11), tick=True):
        assert (await owner.post("/careless", headers=ours)).status_code == 303
    assert reached == []
    assert (
        (await owner.get("/careless")).status_code == (await owner.post("/careless", headers=ours)).status_code == 200
    )
    assert reached == ["GET", "POST"]
