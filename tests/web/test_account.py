"""Settings → Account and Security: your name, your password, where you are signed in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI

from ownkey.accounts import sessions, sign_in, users
from ownkey.node import Node
from ownkey.web.pages.security import device
from tests.web.conftest import PASSWORD, Acme, Browser

pytestmark = pytest.mark.anyio

NEW_PASSWORD = "seven amber trains at dawn"


async def test_name(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A name is saved, told once in a notice, and shown wherever the person is shown."""
    browser = client_for("user")
    reply = await browser.send("/settings/account", {"name": "  Una   <b>Ünal</b> "})
    assert "Your name is saved." in await browser.notice(reply)
    page = await browser.page("/settings/account")
    assert "Your name is saved." not in page.text
    assert "<b>" not in page.html.replace("<body>", "")
    assert (await users.by_id(node.db, acme.people["user"].id)).name == "Una <b>Ünal</b>"


@pytest.mark.parametrize("name", ["", "   ", "a" * 101, "line\nbreak"])
async def test_an_unusable_name(client_for: Callable[[str], Browser], node: Node, acme: Acme, name: str) -> None:
    """What cannot be a name stays in the field with a sentence beside it, and nothing is saved."""
    reply = await client_for("user").send("/settings/account", {"name": name})
    assert reply.status_code == 422
    assert 'aria-invalid="true" aria-describedby="name-error"' in reply.text
    assert (await users.by_id(node.db, acme.people["user"].id)).name == "User Name"


async def test_password(client_for: Callable[[str], Browser], node: Node, web_app: FastAPI) -> None:
    """A new password ends all other sessions, keeps this one, and is the one that signs in from then on."""
    elsewhere = Browser(web_app, await sign_in.with_password(node.db, "user@acme.test", PASSWORD))
    browser = client_for("user")
    fields = {"current": PASSWORD, "new": NEW_PASSWORD}
    reply = await browser.send("/settings/security/password", fields)
    assert "Your password is changed" in await browser.notice(reply)
    assert (await elsewhere.get("/settings/account")).status_code == 303
    assert await sign_in.with_password(node.db, "user@acme.test", NEW_PASSWORD)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"current": "wrong guess 123456", "new": NEW_PASSWORD}, "current"),
        ({"current": PASSWORD, "new": "too short"}, "new"),
        ({"current": PASSWORD, "new": "user@acme.test user"}, "new"),
        ({"current": "", "new": ""}, "new"),
    ],
)
async def test_a_password_that_is_refused(
    client_for: Callable[[str], Browser], node: Node, fields: dict[str, str], field: str
) -> None:
    """A wrong current password and a poor new one are told apart, beside their fields; neither is shown again."""
    reply = await client_for("user").send("/settings/security/password", fields)
    assert reply.status_code == 422
    assert f'id="{field}-error"' in reply.text
    assert not [value for value in fields.values() if value and value in reply.text]
    assert await sign_in.with_password(node.db, "user@acme.test", PASSWORD)


async def test_guessing_the_current_password(client_for: Callable[[str], Browser]) -> None:
    """An unlocked browser is no way to guess the password: the eleventh try is 429."""
    browser = client_for("user")
    for expected in [422] * 10 + [429]:
        reply = await browser.send("/settings/security/password", {"current": "wrong", "new": NEW_PASSWORD})
        assert reply.status_code == expected


async def test_sessions(client_for: Callable[[str], Browser], node: Node, acme: Acme, web_app: FastAPI) -> None:
    """The list names every browser that is signed in; one, or all others, can be signed out from here."""
    agents = ["Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Mozilla/5.0 (Windows NT 10.0) Chrome/140 Edg/140"]
    others = [
        Browser(web_app, await sign_in.with_password(node.db, "user@acme.test", PASSWORD, "203.0.113.9", agent))
        for agent in agents
    ]
    browser = client_for("user")
    page = await browser.page("/settings/security")
    assert "Firefox on Linux" in page.text
    assert "Edge on Windows" in page.text
    assert page.text.count("This session") == 1
    listed = await sessions.list_for(node.db, acme.people["user"].id)
    firefox = next(item for item in listed if item.user_agent == agents[0])
    await browser.notice(await browser.send("/settings/security/sessions", {"session": firefox.id}))
    assert [(await other.get("/settings/account")).status_code for other in others] == [303, 200]
    await browser.notice(await browser.send("/settings/security/sessions"))
    assert (await others[1].get("/settings/account")).status_code == 303
    assert "Sign out other sessions" not in (await browser.page("/settings/security")).text


async def test_somebody_elses_session(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Another person's session is as unknown as one that never was, and stays open."""
    theirs = (await sessions.list_for(node.db, acme.people["owner"].id))[0].id
    for wanted in (theirs, "ses_00000000000000000000000000"):
        reply = await client_for("user").send("/settings/security/sessions", {"session": wanted})
        assert reply.status_code == 404
    assert (await client_for("owner").get("/settings/account")).status_code == 200


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iOS"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15_0) OPR/120 Chrome/140", "Opera on macOS"),
        ("curl/8.0", "Unknown browser"),
        ("", "Unknown browser"),
        (None, "Unknown browser"),
    ],
)
def test_device(user_agent: str | None, words: str) -> None:
    """A browser's own name for itself becomes two words that people know."""
    assert device(user_agent) == words
