"""Sign-in: with a password, with a one-time link; confirming the password; signing out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine

from ownkey import clock
from ownkey.access import Role
from ownkey.accounts import links, memberships, sessions, sign_in, users
from ownkey.node import Node
from tests.web.conftest import PASSWORD, Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

EMAIL = "user@acme.test"
NEW_PASSWORD = "seven amber trains at dawn"


async def _sign_in(browser: Browser, **fields: str) -> int:
    reply = await browser.send("/sign-in", {"email": EMAIL, "password": PASSWORD, **fields}, on="/sign-in")
    return reply.status_code


async def _link(node: Node, email: str = EMAIL) -> str:
    async with node.db.transaction() as tx:
        return await links.make_link(tx, email)


async def test_with_a_password(client_for: Callable[[str], Browser]) -> None:
    """E-mail (in any case) and password lead to the assistant, as that person."""
    browser = client_for("anonymous")
    reply = await browser.send("/sign-in", {"email": " User@ACME.test", "password": PASSWORD}, on="/sign-in")
    assert (reply.status_code, reply.headers["location"]) == (303, "/assistant")
    assert EMAIL in (await browser.page("/settings/account")).html


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("/settings/usage?month=2026-11", "/settings/usage?month=2026-11"),
        ("//evil.test", "/assistant"),
        ("/\\evil.test", "/assistant"),
        ("https://evil.test/", "/assistant"),
        ("/a\r\nset-cookie: x=1", "/assistant"),
        ("javascript:alert(1)", "/assistant"),
        ("settings", "/assistant"),
        ("/" + "a" * 3000, "/assistant"),
        ("", "/assistant"),
    ],
)
async def test_next_stays_here(client_for: Callable[[str], Browser], wanted: str, given: str) -> None:
    """After signing in one goes on to a path of ours, never to another host."""
    browser = client_for("anonymous")
    fields = {"email": EMAIL, "password": PASSWORD, "next": wanted}
    assert (await browser.send("/sign-in", fields, on="/sign-in")).headers["location"] == given
    reply = await client_for("user").get("/sign-in", params={"next": wanted})
    assert reply.headers["location"] == given


async def test_the_page_asked_for_comes_after_sign_in(client_for: Callable[[str], Browser]) -> None:
    """Whoever asks for a page without a session arrives there after signing in."""
    browser = client_for("anonymous")
    page = await browser.page("/settings/usage?month=2026-11")
    assert page.h1 == ["Sign in"]
    assert page.form("/sign-in").fields["next"] == "/settings/usage?month=2026-11"
    assert page.labels == ["Email", "Password"]


async def test_wrong_ones_look_alike(client_for: Callable[[str], Browser]) -> None:
    """A wrong password and an unknown address get the same page, with no session and the address still there."""
    browser, pages = client_for("anonymous"), []
    for email, password in ((EMAIL, "wrong"), ("nobody@acme.test", PASSWORD), ("no address", PASSWORD)):
        reply = await browser.send("/sign-in", {"email": email, "password": password}, on="/sign-in")
        assert reply.status_code == 401
        assert browser.session_token is None
        pages.append(Page(reply.text))
        assert pages[-1].form("/sign-in").fields["email"] == email
    assert pages[0].text == pages[1].text == pages[2].text
    assert "wrong" in pages[0].text


async def test_an_empty_form(client_for: Callable[[str], Browser]) -> None:
    """Each missing field has its own sentence."""
    reply = await client_for("anonymous").send("/sign-in", {"email": "", "password": ""}, on="/sign-in")
    assert reply.status_code == 422
    assert "Enter your e-mail address." in reply.text
    assert "Enter your password." in reply.text


async def test_too_many_wrong_ones(client_for: Callable[[str], Browser]) -> None:
    """After ten wrong passwords even the right one is refused for a while, with a sentence; an open session stays."""
    browser = client_for("anonymous")
    for _ in range(10):
        assert await _sign_in(browser, password="wrong") == 401
    reply = await browser.send("/sign-in", {"email": EMAIL, "password": PASSWORD}, on="/sign-in")
    assert reply.status_code == 429
    assert "Too many failed attempts" in reply.text
    assert int(reply.headers["retry-after"]) > 0
    assert (await client_for("user").get("/settings/account")).status_code == 200


async def test_the_session_is_new_at_sign_in(client_for: Callable[[str], Browser], node: Node) -> None:
    """A session token planted in the browser is replaced at sign-in, and never becomes a session."""
    browser = client_for("anonymous")
    browser.keep("session", "planted-by-somebody-else")
    assert await _sign_in(browser) == 303
    assert browser.session_token not in (None, "planted-by-somebody-else")
    assert await sessions.resolve(node.db, "planted-by-somebody-else") is None


async def test_one_session_a_browser(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A session that was open in the browser ends on the server when somebody signs in with a link there."""
    path, browser = f"/sign-in/{await _link(node, 'admin@acme.test')}", client_for("user")
    assert (await browser.send(path, {"password": NEW_PASSWORD}, on=path)).status_code == 303
    assert await sessions.resolve(node.db, acme.session_tokens["user"]) is None
    assert "admin@acme.test" in (await browser.page("/settings/account")).html


async def test_sign_out(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Signing out ends the session on the server and takes the cookie away."""
    browser = client_for("user")
    reply = await browser.send("/sign-out")
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in")
    assert await sessions.resolve(node.db, acme.session_tokens["user"]) is None
    assert browser.session_token is None
    assert (await browser.get("/sign-out")).status_code == 405


async def test_a_link_sets_the_password(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A one-time link shows whom it is for, takes a password and a name, and signs in; looking does not use it up."""
    path = f"/sign-in/{await _link(node)}"
    browser = client_for("anonymous")
    await browser.get(path)
    page = await browser.page(path)
    assert EMAIL in page.html
    assert page.labels == ["Email", "Name", "New password"]
    reply = await browser.send(path, {"password": NEW_PASSWORD, "name": "Una"}, on=path)
    assert (reply.status_code, reply.headers["location"]) == (303, "/assistant")
    assert (await users.by_id(node.db, acme.people["user"].id)).name == "Una"
    assert await sessions.resolve(node.db, acme.session_tokens["user"]) is None
    assert await _sign_in(client_for("anonymous"), password=NEW_PASSWORD) == 303
    assert (await client_for("anonymous").get(path)).status_code == 410


@pytest.mark.parametrize("password", ["short", "a" * 14, "aaaaaaaaaaaaaaaaaaaa", "acme ai acme ai acme ai", "x" * 201])
async def test_a_poor_password_leaves_the_link(client_for: Callable[[str], Browser], node: Node, password: str) -> None:
    """A password that is too easy is refused beside its field, and the link can still be used."""
    path = f"/sign-in/{await _link(node)}"
    browser = client_for("anonymous")
    reply = await browser.send(path, {"password": password, "name": ""}, on=path)
    assert reply.status_code == 422
    assert 'id="password-error"' in reply.text
    assert password not in reply.text
    assert (await browser.send(path, {"password": NEW_PASSWORD}, on=path)).status_code == 303


async def test_a_poor_name(client_for: Callable[[str], Browser], node: Node) -> None:
    """What is wrong with a name stands under the name, not under the password, and the link stays good."""
    path = f"/sign-in/{await _link(node)}"
    fields = {"password": NEW_PASSWORD, "name": "Ada\u202e"}
    reply = await client_for("anonymous").send(path, fields, on=path)
    assert reply.status_code == 422
    assert 'id="name-error"' in reply.text
    assert 'id="password-error"' not in reply.text
    assert (await client_for("anonymous").send(path, {**fields, "name": "Ada"}, on=path)).status_code == 303


async def test_the_longest_address(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """An address as long as one can be signs in with its password, too."""
    email = f"{'e' * 64}@{'.'.join(['d' * 60] * 3)}.test"
    added = await memberships.add(
        node.db, acme.operator(), email, Role.USER, acme.workspace.id, node.catalogue["professional"]
    )
    await sign_in.redeem_link(node.db, await _link(node, added.user.email), NEW_PASSWORD)
    assert await _sign_in(client_for("anonymous"), email=email, password=NEW_PASSWORD) == 303


async def test_an_unknown_link(client_for: Callable[[str], Browser]) -> None:
    """A link that was never made, or is too old, is 410 with a sentence; no form is shown."""
    reply = await client_for("anonymous").get("/sign-in/unknown")
    assert reply.status_code == 410
    assert Page(reply.text).forms == []


async def test_a_grave_change_asks_for_the_password_again(
    client_for: Callable[[str], Browser], node: Node, acme: Acme
) -> None:
    """Ten minutes after sign-in a change of the plan first asks for the password, then goes through."""
    browser, path = client_for("owner"), "/settings/billing"
    fields = {"plan": "enterprise", "interval": "month"}
    with time_machine.travel(clock.now() + timedelta(minutes=11), tick=True):
        csrf = await browser.csrf()
        headers = {"origin": browser.origin, "referer": f"{browser.origin}{path}"}
        reply = await browser.client.post(path, data={"csrf": csrf, **fields}, headers=headers)
        assert reply.headers["location"] == f"/confirm-password?next={path}"
        confirm = reply.headers["location"]
        wrong = await browser.send("/confirm-password", {"password": "wrong", "next": path}, on=confirm)
        assert wrong.status_code == 422
        assert (await browser.send(path, fields)).status_code == 303
        right = await browser.send("/confirm-password", {"password": PASSWORD, "next": path}, on=confirm)
        assert right.headers["location"] == path
        assert "You can make your change now" in await browser.notice(right)
        assert "You are on Enterprise now" in await browser.notice(await browser.send(path, fields, on=path))


async def test_the_way_back_is_ours(client_for: Callable[[str], Browser]) -> None:
    """Confirming leads to paths of ours only."""
    fields = {"password": PASSWORD, "next": "https://evil.test/"}
    reply = await client_for("owner").send("/confirm-password", fields)
    assert reply.headers["location"] == "/assistant"


async def test_first_page(client_for: Callable[[str], Browser]) -> None:
    """The bare address leads to the assistant, or to sign-in."""
    assert (await client_for("user").get("/")).headers["location"] == "/assistant"
    assert (await client_for("anonymous").get("/")).headers["location"] == "/sign-in"
