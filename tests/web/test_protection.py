"""What protects every page: security headers, cookies, and proof that a form came from a page of ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from fastapi import FastAPI

from ownkey import clock
from ownkey.access import Actor, Role
from ownkey.accounts import memberships, users, workspaces
from ownkey.node import Node
from ownkey.vault import provider_keys
from ownkey.web import forms
from tests.web.conftest import PASSWORD, PUBLIC_URL, Acme, Browser

pytestmark = pytest.mark.anyio

ACCOUNT = "/settings/account"
FORM = "application/x-www-form-urlencoded"
SECURE_URL = "https://ownkey.test"


async def _name(node: Node, acme: Acme) -> str:
    return (await users.by_id(node.db, acme.people["user"].id)).name


@pytest.mark.parametrize(
    "path", ["/sign-in", "/settings/account", "/settings/billing", "/nothing", "/api/nothing", "/static/app.css"]
)
async def test_every_reply_has_the_headers(path: str, client_for: Callable[[str], Browser]) -> None:
    """Pages, refusals, errors, problem documents and static files all carry the security headers and a request id."""
    headers = (await client_for("user").get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-request-id"].startswith("req_")
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("public_url", [SECURE_URL])
async def test_tls_is_asked_for_where_there_is_tls(client_for: Callable[[str], Browser]) -> None:
    """Behind https every reply tells browsers to come back by TLS only."""
    reply = await client_for("user").get(ACCOUNT)
    assert reply.status_code == 200
    assert "max-age=31536000" in reply.headers["strict-transport-security"]


async def test_pages_are_not_kept(client_for: Callable[[str], Browser]) -> None:
    """No page is stored by browsers or proxies; a static file is kept under the address that changes with it."""
    browser = client_for("user")
    assert (await browser.get(ACCOUNT)).headers["cache-control"] == "no-store"
    assert (await browser.get("/static/app.css")).headers["cache-control"] == "no-cache"
    page = await browser.page(ACCOUNT)
    versioned = next(reference for reference in page.references if "app.css" in reference)
    assert "immutable" in (await browser.get(versioned)).headers["cache-control"]
    # During an update an old node may be asked for what only the new ones have.
    assert (await browser.get("/static/app.css?v=0123456789ab")).headers["cache-control"] == "no-cache"
    assert (await browser.get("/static/../rendering.py")).status_code == 404


@pytest.mark.parametrize(
    ("public_url", "name", "secure"), [(PUBLIC_URL, "session", False), (SECURE_URL, "__Host-session", True)]
)
async def test_cookie(client_for: Callable[[str], Browser], name: str, secure: bool, acme: Acme) -> None:
    """The session cookie is out of scripts' reach, sent to our own pages only, and bound to host and TLS."""
    browser = client_for("anonymous")
    fields = {"email": "user@acme.test", "password": PASSWORD}
    reply = await browser.send("/sign-in", fields, on="/sign-in")
    cookie = next(line for line in reply.headers.get_list("set-cookie") if line.startswith(f"{name}="))
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    assert ("secure" in attributes) is secure
    assert not [part for part in attributes if part.startswith("domain")]
    assert len(cookie.split(";")[0].split("=")[1]) >= 22


async def test_a_form_without_the_token(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A form without our token, with a wrong one, or with another person's, changes nothing."""
    browser, before = client_for("user"), await _name(node, acme)
    for token in ("", "0" * 64, await client_for("admin").csrf(), "é"):
        reply = await browser.client.post(
            ACCOUNT, data={"csrf": token, "name": "Changed"}, headers={"origin": browser.origin}
        )
        assert reply.status_code == 403
    assert await _name(node, acme) == before


async def test_a_form_acts_where_it_was_opened(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Sent after a switch to another workspace, in another tab, it changes nothing there, and says where one is."""
    elsewhere, admin = Actor.operator(acme.other_organization.id, acme.other_workspace.id), client_for("admin")
    await memberships.add(
        node.db, elsewhere, "admin@acme.test", Role.ADMIN, acme.other_workspace.id, node.catalogue["enterprise"]
    )
    headers = {"origin": PUBLIC_URL}
    opened = await admin.page("/settings/integrations/openai")
    await admin.send("/workspace", {"workspace": acme.other_workspace.id})
    for path in (
        "/settings/integrations/openai",
        "/settings/workspace",
        "/settings/developer/tokens",
        "/assistant/messages",
    ):
        data = {"csrf": opened.csrf, "api_key": "sk-mine", "unchecked": "yes", "name": "Changed", "message": "Hello"}
        reply = await admin.client.post(path, data=data, headers=headers)
        assert (reply.status_code, "of Globex now" in reply.text) == (409, True), path
    assert not await provider_keys.list_keys(node.db, elsewhere)
    assert "Changed" not in [one.name for one in await workspaces.list_for(node.db, elsewhere)]

    async def send(path: str, **fields: str) -> int:
        return (await admin.client.post(path, data={"csrf": opened.csrf, **fields}, headers=headers)).status_code

    assert await send(ACCOUNT, name="Changed") == 303  # means the same anywhere
    assert await send("/workspace", workspace=acme.workspace.id) == 303
    assert await send("/settings/workspace", name="Renamed") == 303
    assert await send("/sign-out") == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": f"{PUBLIC_URL}.evil.test"},
        {"origin": f"{PUBLIC_URL}:8080"},
        {"origin": "http://[::1].evil.test"},
        {"origin": PUBLIC_URL, "sec-fetch-site": "cross-site"},
        {"origin": PUBLIC_URL, "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_a_form_from_elsewhere(
    client_for: Callable[[str], Browser], node: Node, acme: Acme, headers: dict[str, str]
) -> None:
    """A form that comes from another site, or does not say where from, is refused even with the right token."""
    browser, before = client_for("user"), await _name(node, acme)
    data = {"csrf": await browser.csrf(), "name": "Changed"}
    assert (await browser.client.post(ACCOUNT, data=data, headers=headers)).status_code == 403
    assert await _name(node, acme) == before


@pytest.mark.parametrize("headers", [{"origin": PUBLIC_URL}, {"sec-fetch-site": "same-origin"}])
async def test_a_form_of_ours(
    client_for: Callable[[str], Browser], node: Node, acme: Acme, headers: dict[str, str]
) -> None:
    """Either way of saying that the form is from our own page is enough, with the token."""
    browser = client_for("user")
    data = {"csrf": await browser.csrf(), "name": "Changed"}
    assert (await browser.client.post(ACCOUNT, data=data, headers=headers)).status_code == 303
    assert await _name(node, acme) == "Changed"


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        ("https://Ownkey.test:443", "https://ownkey.test"),
        ("http://Ownkey.Test:80/", "http://ownkey.test"),
        ("https://OWNKEY.test:8443", "https://ownkey.test:8443"),
        ("http://[::A]:80", "http://[::a]"),
    ],
)
async def test_our_address_however_it_is_written(
    web_app: FastAPI, public_url: str, origin: str, acme: Acme, node: Node
) -> None:
    """A form is ours if the browser names the address people use, which the operator may have written differently.

    Behind a proxy nothing else says so: the host of the request is then another one.
    """
    assert node.settings.public_url == origin
    browser = Browser(web_app, acme.session_tokens["user"], origin)
    data = {"csrf": await browser.csrf(), "name": "Changed"}
    headers = {"origin": origin, "host": "10.0.0.5:8000"}
    assert (await browser.client.post(ACCOUNT, data=data, headers=headers)).status_code == 303
    headers["origin"] = f"{origin}.evil.test"
    assert (await browser.client.post(ACCOUNT, data=data, headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("form", "referer", "back"),
    [
        ("developer/tokens", f"{PUBLIC_URL}/settings/developer/tokens/new", "/settings/developer/tokens/new"),
        ("developer/tokens", f"{PUBLIC_URL}/settings/developer/tokens", "/settings/developer"),
        ("members/invitations", f"{PUBLIC_URL}/settings/members/invitations", "/settings/members"),
        ("members/invitations", f"{PUBLIC_URL}//evil.test", "/assistant"),
        ("members/invitations", "http://[::1", "/assistant"),
    ],
)
async def test_the_way_back_is_a_page(client_for: Callable[[str], Browser], form: str, referer: str, back: str) -> None:
    """Whoever has to give the password first returns to the page of the form, also of one that was shown again."""
    browser = client_for("admin")
    headers = {"origin": PUBLIC_URL, "referer": referer}
    with time_machine.travel(clock.now() + timedelta(minutes=11), tick=True):
        reply = await browser.client.post(f"/settings/{form}", headers=headers)
    assert reply.headers["location"] == f"/confirm-password?next={back}"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_other_bodies_are_no_form(client_for: Callable[[str], Browser], kind: str) -> None:
    """JSON, plain text and multipart, which other sites can send too, are 400."""
    browser = client_for("user")
    headers = {"origin": browser.origin, "content-type": kind}
    body = f"csrf={await browser.csrf()}&name=Changed"
    assert (await browser.client.post(ACCOUNT, content=body, headers=headers)).status_code == 400


async def test_a_form_has_a_size(client_for: Callable[[str], Browser]) -> None:
    """A body past 256 KiB is 413, one of too many fields or bad bytes 400."""
    browser = client_for("user")
    headers = {"origin": browser.origin, "content-type": FORM}
    for body, status in (
        (b"a" * (forms.LARGEST_FORM + 1), 413),
        (b"a=1&" * 600, 400),
        (b"name=\xff", 400),
        (b"name=%ff", 400),
    ):
        assert (await browser.client.post(ACCOUNT, content=body, headers=headers)).status_code == status


async def test_fields_that_are_nobodys_business(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Fields that a form does not have (role, owner, plan, ids) are ignored."""
    browser = client_for("user")
    before = await users.by_id(node.db, acme.people["user"].id)
    extra = {
        "name": before.name,
        "id": acme.people["owner"].id,
        "user_id": acme.people["owner"].id,
        "email": "other@acme.test",
        "role": "owner",
        "is_admin": "true",
        "organization_id": acme.other_organization.id,
        "plan": "enterprise",
        "password_hash": "x",
    }
    assert (await browser.send(ACCOUNT, extra)).status_code == 303
    assert await users.by_id(node.db, acme.people["user"].id) == before
    assert (await browser.get("/settings/organization")).status_code == 403
