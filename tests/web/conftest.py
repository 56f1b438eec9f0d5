"""Pages through the ASGI client on a real database: a small organization, and a browser for each of its people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL

from ownkey import plans
from ownkey.access import Actor, Role
from ownkey.accounts import links, memberships, organizations, sessions, sign_in
from ownkey.accounts.organizations import Organization
from ownkey.accounts.users import User
from ownkey.accounts.workspaces import Workspace
from ownkey.db.engine import Database
from ownkey.mail import Mailer
from ownkey.node import Node
from ownkey.settings import read_settings
from ownkey.vault.keyring import KeyRing
from ownkey.web.urls import mount
from tests.web.page import Page

PUBLIC_URL = "http://ownkey.test"
PASSWORD = "violet lamps over quiet harbours"
ROLES = ("user", "developer", "admin", "owner")


class Browser:
    """One person's browser: keeps cookies, sends forms as a page of ours would."""

    def __init__(self, app: FastAPI, session_token: str = "", public_url: str = PUBLIC_URL) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url=public_url, headers={"accept": "text/html"}
        )
        self.origin = public_url
        self.cookie = "__Host-session" if public_url.startswith("https") else "session"
        if session_token:
            self.keep(self.cookie, session_token)

    @property
    def session_token(self) -> str | None:
        """The session's token, as this browser keeps it."""
        return self.client.cookies.get(self.cookie)

    def keep(self, name: str, value: str) -> None:
        """Put a cookie into the browser as if this site had set it."""
        self.client.cookies.set(name, value, domain=str(urlsplit(self.origin).hostname), path="/")

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for a page; a redirect is returned, not followed."""
        return await self.client.get(path, **options)

    async def page(self, path: str) -> Page:
        """The page at a path; redirects are followed."""
        reply = await self.client.get(path, follow_redirects=True)
        assert reply.status_code == 200, (path, reply.status_code, reply.text)
        return Page(reply.text)

    async def csrf(self, on: str = "/settings/account") -> str:
        """The token of the forms on a page."""
        return (await self.page(on)).csrf

    async def send(
        self, path: str, fields: Mapping[str, str | list[str]] | None = None, *, on: str = "/settings/account"
    ) -> httpx.Response:
        """Send a form with the token found ``on`` a page, as a browser does; a redirect is returned, not followed."""
        data = {"csrf": await self.csrf(on), **(fields or {})}
        return await self.client.post(path, data=data, headers={"origin": self.origin})

    async def notice(self, reply: httpx.Response) -> str:
        """All text of the page that a form redirected to; its notice is in it."""
        assert reply.status_code == 303, (reply.status_code, Page(reply.text).text)
        return (await self.page(reply.headers["location"])).text


@dataclass
class Acme:
    """An organization on Professional with two workspaces, one person per role, and somebody from elsewhere."""

    organization: Organization
    workspace: Workspace
    other_organization: Organization
    other_workspace: Workspace
    people: dict[str, User] = field(default_factory=dict)
    session_tokens: dict[str, str] = field(default_factory=dict)

    def actor(self, role: str) -> Actor:
        """The person with this role, acting in the first workspace."""
        user = self.people[role]
        return Actor(
            "user", user.id, user.label, self.organization.id, self.workspace.id, Role.of(role), user_id=user.id
        )

    def operator(self) -> Actor:
        """The operator, acting on the organization."""
        return Actor.operator(self.organization.id, self.workspace.id)


@pytest.fixture
def public_url() -> str:
    """The address people use; a test about TLS parametrizes it."""
    return PUBLIC_URL


@pytest.fixture
async def node(sqlite_url: URL, tmp_path: Path, public_url: str) -> AsyncIterator[Node]:
    """A node on an empty embedded database."""
    settings = read_settings(data_dir=tmp_path, public_url=public_url, app_name="Acme AI")
    db = Database(sqlite_url, synchronous="OFF")
    keyring = KeyRing.load(settings, sealed_kek_ids=(), embedded=True)
    yield Node(settings, db, keyring, plans.DEFAULT_CATALOGUE, Mailer(settings))
    await db.close()


@pytest.fixture
def web_app(node: Node) -> FastAPI:
    """The pages, without the gateway around them."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.node = node
    mount(app)
    return app


@pytest.fixture
async def acme(node: Node) -> Acme:
    """Acme with its people, all of them signed in."""
    operator = Actor.operator()
    created = await organizations.create(
        node.db, operator, node.catalogue, "Acme", "owner@acme.test", plan="professional"
    )
    other = await organizations.create(node.db, operator, node.catalogue, "Globex", "outsider@globex.test")
    acme = Acme(created.organization, created.workspace, other.organization, other.workspace)
    acme.people = {"owner": created.owner, "outsider": other.owner}
    plan = node.catalogue["professional"]
    for role in ("user", "developer", "admin"):
        added = await memberships.add(
            node.db, acme.operator(), f"{role}@acme.test", Role.of(role), acme.workspace.id, plan
        )
        acme.people[role] = added.user
    for role, user in acme.people.items():
        async with node.db.transaction() as tx:
            link = await links.make_link(tx, user.email)
        acme.session_tokens[role] = await sign_in.redeem_link(node.db, link, PASSWORD, name=f"{role.capitalize()} Name")
    return acme


@pytest.fixture
def client_for(web_app: FastAPI, acme: Acme, public_url: str) -> Callable[[str], Browser]:
    """A browser of ``anonymous``, ``outsider``, ``user``, ``developer``, ``admin`` or ``owner``."""
    return lambda role: Browser(web_app, acme.session_tokens.get(role, ""), public_url)


@pytest.fixture
async def signed_out(web_app: FastAPI, acme: Acme, node: Node) -> Browser:
    """A browser with a session that was ended on the server."""
    await sessions.revoke(node.db, acme.session_tokens["user"])
    return Browser(web_app, acme.session_tokens["user"])
