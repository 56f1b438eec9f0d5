"""The management API through the ASGI client, on a real database and a simulated provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, memberships, subscriptions
from ownkey.accounts.organizations import Created
from ownkey.accounts.users import User
from ownkey.api.urls import mount as mount_api
from ownkey.db.engine import Database
from ownkey.demo.simulated_provider import SimulatedProvider
from ownkey.mail import Mailer
from ownkey.node import Node
from ownkey.plans import DEFAULT_CATALOGUE
from ownkey.providers import registry
from ownkey.settings import read_settings
from ownkey.web.urls import mount as mount_web
from tests import build


@pytest.fixture(scope="session")
def simulated_provider() -> Iterator[SimulatedProvider]:
    """Every provider, on this machine."""
    with SimulatedProvider(pause=0) as provider:
        yield provider


@pytest.fixture
def settings_overrides() -> dict[str, object]:
    """Settings that a test wants to be otherwise; it parametrizes this."""
    return {}


@pytest.fixture
async def node(
    database: Database,
    tmp_path: Path,
    simulated_provider: SimulatedProvider,
    settings_overrides: dict[str, object],
) -> Node:
    """A node whose providers are all simulated."""
    base_urls = {slug: simulated_provider.base_url(slug) for slug in registry.PROVIDERS}
    settings = read_settings(
        data_dir=tmp_path, public_url="http://ownkey.test", base_urls=base_urls, **settings_overrides
    )
    return Node(settings, database, build.keyring(), DEFAULT_CATALOGUE, Mailer(settings))


@pytest.fixture
def asgi(node: Node) -> FastAPI:
    """Management API and pages, without the gateway beside them."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.node = node
    mount_api(app)
    mount_web(app)
    return app


@dataclass
class Acme:
    """An organization, and tokens of its people."""

    db: Database
    created: Created
    client: httpx.AsyncClient

    @property
    def operator(self) -> Actor:
        """The operator, acting in the organization's first workspace."""
        return Actor.operator(self.created.organization.id, self.created.workspace.id)

    async def person(self, role: Role) -> tuple[User, Actor]:
        """A new person with this role."""
        user = await build.member(self.db, self.created, role)
        return user, build.acting(user, self.created, role)

    async def token(self, role: Role, *scopes: str) -> str:
        """The token of a new person with this role; without scopes it has all, more than the role could grant."""
        if role is Role.OWNER:
            actor = build.acting(self.created.owner, self.created, role)
            return await build.api_token(self.db, self.created, scopes=scopes or list(api_tokens.SCOPES), by=actor)
        # Made while they were above, and lowered then: so a role meets scopes that it could not give itself.
        user = await build.member(self.db, self.created, Role.ADMIN)
        actor = build.acting(user, self.created, Role.ADMIN)
        wanted = scopes or list(api_tokens.scopes_for(Role.ADMIN))
        text = await build.api_token(self.db, self.created, scopes=wanted, by=actor)
        if role is not Role.ADMIN:
            await memberships.change_role(self.db, self.operator, user.id, self.created.workspace.id, role)
        return text

    async def ask(self, method: str, path: str, token: str | None, **options: Any) -> httpx.Response:
        """Ask the API with a token."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **options)

    async def put_on(self, plan: str) -> None:
        """Change the plan, as the operator."""
        await subscriptions.change(self.db, self.operator, DEFAULT_CATALOGUE, plan)


@pytest.fixture
async def client(asgi: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A program on the other side."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://ownkey.test") as client:
        yield client


@pytest.fixture
async def acme(database: Database, client: httpx.AsyncClient) -> Acme:
    """An organization on a plan without limits."""
    return Acme(database, await build.organization(database, name="Acme"), client)


@pytest.fixture
async def elsewhere(database: Database, client: httpx.AsyncClient) -> Acme:
    """Another organization, whose things are not Acme's business."""
    return Acme(database, await build.organization(database, name="Globex"), client)
