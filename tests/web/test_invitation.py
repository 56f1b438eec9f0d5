"""Accepting an invitation, as each kind of person who may open its link."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine

from ownkey import clock
from ownkey.access import Role
from ownkey.accounts import invitations, memberships
from ownkey.node import Node
from tests.web.conftest import PASSWORD, Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

NEW_PASSWORD = "seven amber trains at dawn"


async def _invite(node: Node, acme: Acme, email: str, by: str = "admin") -> str:
    _, token = await invitations.create(node.db, acme.actor(by), email, Role.DEVELOPER, acme.workspace.id)
    return f"/invitations/{token}"


async def test_somebody_new(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A new person reads who invites them to what, chooses a password, and is in with the role that was offered."""
    path, browser = await _invite(node, acme, "new@acme.test"), client_for("anonymous")
    page = await browser.page(path)
    assert page.h1 == ["Join Acme"]
    for words in ("Admin Name invites you to the workspace General", "new@acme.test", "Role Developer"):
        assert words in page.html or words in page.text
    fields = {"password": NEW_PASSWORD, "name": "Nell", "role": "admin", "email": "evil@acme.test"}
    reply = await browser.send(path, fields, on=path)
    assert (reply.status_code, reply.headers["location"]) == (303, "/assistant")
    assert "Your role Developer" in (await browser.page("/settings/workspace")).text
    assert (await client_for("anonymous").get(path)).status_code == 410


async def test_a_poor_password(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A poor password is refused beside its field and leaves the invitation open."""
    path, browser = await _invite(node, acme, "new@acme.test"), client_for("anonymous")
    reply = await browser.send(path, {"password": "short"}, on=path)
    assert reply.status_code == 422
    assert 'id="password-error"' in reply.text
    assert (await browser.get(path)).status_code == 200


async def test_the_person_who_is_signed_in(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Whom the invitation is for, and is signed in, accepts with one button and is in the new workspace."""
    path, browser = await _invite(node, acme, "outsider@globex.test"), client_for("outsider")
    assert (await browser.page(path)).form("").buttons == ["Accept invitation"]
    assert (await browser.send(path, on=path)).status_code == 303
    assert (await browser.page("/settings/workspace")).text.count("Acme")


async def test_accepting_is_no_way_around_confirming(
    client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """Whoever accepts long after signing in is still asked for the password before a change of roles."""
    with time_machine.travel(clock.now() + timedelta(minutes=11), tick=True):
        path, browser = await _invite(node, acme, "outsider@globex.test"), client_for("outsider")
        assert (await browser.send(path, on=path)).status_code == 303
        assert (await browser.send("/workspace", {"workspace": acme.other_workspace.id})).status_code == 303
        fields = {"email": "x@example.com", "role": "admin", "workspace": acme.other_workspace.id}
        reply = await browser.send("/settings/members/invitations", fields)
        assert reply.headers["location"].startswith("/confirm-password")


async def test_an_account_that_is_not_signed_in(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Who has an account gives its password; the link alone, which an admin has seen, does not open the account."""
    path, browser = await _invite(node, acme, "outsider@globex.test"), client_for("anonymous")
    assert (await browser.page(path)).labels == ["Password"]
    reply = await browser.send(path, {"password": NEW_PASSWORD}, on=path)
    assert reply.status_code == 422
    assert browser.session_token is None
    assert (await browser.send(path, {"password": PASSWORD}, on=path)).status_code == 303
    assert "Your role Developer" in (await browser.page("/settings/workspace")).text


async def test_guessing_through_an_invitation(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """The page is no way around the limit of the sign-in page."""
    path, browser = await _invite(node, acme, "outsider@globex.test"), client_for("anonymous")
    for expected in [422] * 10 + [429]:
        assert (await browser.send(path, {"password": "wrong"}, on=path)).status_code == expected


async def test_somebody_else_who_is_signed_in(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Another person is told whom it is for and offered to sign out, then to accept; until then it is refused."""
    path, browser = await _invite(node, acme, "new@acme.test"), client_for("outsider")
    page = await browser.page(path)
    assert "You are signed in as outsider@globex.test" in page.text
    assert (await browser.send(path, on=path)).status_code == 403
    reply = await browser.send("/sign-out", {"next": path}, on=path)
    assert reply.headers["location"] == path
    assert (await browser.page(path)).labels == ["Email", "Name", "New password"]


async def test_a_removed_member_is_invited_again(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Somebody without any workspace, whose browser still has a session, gets in again through an invitation."""
    await memberships.remove(node.db, acme.actor("admin"), acme.people["user"].id, acme.workspace.id)
    path, browser = await _invite(node, acme, "user@acme.test"), client_for("user")
    assert (await browser.send(path, {"password": PASSWORD}, on=path)).status_code == 303
    assert (await browser.get("/settings/account")).status_code == 200


async def test_void(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """An unknown or revoked invitation, or one whose maker lost the right, is 410 alike."""
    revoked, orphaned = await _invite(node, acme, "a@acme.test"), await _invite(node, acme, "b@acme.test")
    opened = {item.email: item.id for item in await invitations.list_open(node.db, acme.actor("owner"))}
    await invitations.revoke(node.db, acme.actor("owner"), opened["a@acme.test"])
    person = acme.people["admin"].id
    await memberships.change_role(node.db, acme.actor("owner"), person, acme.workspace.id, Role.USER)
    replies = [await client_for("anonymous").get(path) for path in (revoked, orphaned, "/invitations/unknown")]
    assert [reply.status_code for reply in replies] == [410, 410, 410]
    assert len({Page(reply.text).h1[0] for reply in replies}) == 1
