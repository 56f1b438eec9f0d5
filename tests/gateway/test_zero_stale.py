"""Four nodes on one PostgreSQL under steady load: after the reply to a change, no call on any node ignores it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import URL

from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, memberships, organizations
from ownkey.db.engine import Database
from ownkey.plans import read_catalogue
from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation
from tests.gateway.scale import PROVING, scaled
from tests.gateway.wire import Wire, chat, post

REPLACEMENTS, AFTER_EACH = scaled(5, 50), scaled(40, 200)
RATE, NODES, THREADS = 200, 4, 12
CHAT = "/openai/v1/chat/completions"


class Sent(NamedTuple):
    """A call: its number, which is its model's name, when it was begun, and how it ended."""

    number: int
    began: float
    status: int


class Load:
    """Calls at a steady rate, each on a connection of its own, so that any of the nodes may get it."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.sent: list[Sent] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._number, self._start = 0, time.monotonic()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._number += 1
                number = self._number
            time.sleep(max(0.0, self._start + number / RATE - time.monotonic()))
            with Wire(self.url) as wire:
                began = time.monotonic()
                wire.send(post(CHAT, self.token, {**chat(max_tokens=5), "model": f"gpt-{number}"}))
                self.sent.append(Sent(number, began, wire.reply().status))

    def since(self, moment: float) -> list[Sent]:
        """What was begun after a moment and has ended."""
        return [one for one in list(self.sent) if one.began > moment]

    def change(self, made: Callable[[], httpx.Response]) -> float:
        """Make a change; returns the moment of its reply, after enough calls that began later."""
        reply = made()
        replied = time.monotonic()
        assert reply.status_code in (200, 204), reply.text
        while len(self.since(replied)) < AFTER_EACH:
            time.sleep(0.02)
        return replied


class Place(NamedTuple):
    """An organization, and a developer in it with an API token."""

    url: str
    organization_id: str
    workspace_id: str
    developer_id: str
    token_id: str
    token: str
    manager: str


async def furnish(postgres_url: URL, plans: Path, url: str, manager: str) -> Place:
    """Add the developer."""
    db, plan = Database(postgres_url), read_catalogue(plans)["free"]
    organization = await organizations.by_reference(db, "acme")
    async with db.read() as tx:
        workspace_id = str((await tx.exec_driver_sql("SELECT id FROM workspaces")).scalar_one())
    operator = Actor.operator(organization.id, workspace_id)
    added = await memberships.add(db, operator, "dev@acme.test", Role.DEVELOPER, workspace_id, plan)
    person = Actor("user", added.user.id, "Dev", organization.id, workspace_id, Role.DEVELOPER, user_id=added.user.id)
    made, token = await api_tokens.create(db, person, "load", ["gateway"])
    await db.close()
    return Place(url, organization.id, workspace_id, added.user.id, made.id, token, manager)


@pytest.fixture
def installation(postgres_url: URL, tmp_path: Path) -> Iterator[tuple[Installation, FakeProvider, str]]:
    """A migrated installation without platform keys, and the token of a program that manages it."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment |= {
            "OWNKEY_DATABASE_URL": postgres_url.render_as_string(hide_password=False),
            "OWNKEY_VAULT_KEYS": here.run("vault", "new-key").split()[-1],
            "OWNKEY_METRICS_ADDRESS": "",
            "OWNKEY_LOG_LEVEL": "WARNING",
        }
        here.run("migrate")
        here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json")
        scopes = ("provider_keys.manage", "api_tokens.manage", "members.manage")
        given = [word for scope in scopes for word in ("--scope", scope)]
        made = json.loads(here.run("tokens", "create", "acme", "--name", "manager", *given, "--json"))
        yield here, provider, made["token"]


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(1800 if PROVING else 240)
def test_nothing_stale_after_a_reply(
    installation: tuple[Installation, FakeProvider, str], postgres_url: URL, tmp_path: Path
) -> None:
    """Keys replaced again and again, then removed: no call begun after the reply carries an older one, or any."""
    here, provider, manager = installation
    keys = [f"sk-own-{number:03d}-0123456789-abcdefghijkl" for number in range(REPLACEMENTS + 1)]
    replies: list[float] = []
    with here.workers(NODES) as url, httpx.Client(base_url=f"{url}/api/v1", timeout=30) as program:
        program.headers["authorization"] = f"Bearer {manager}"
        place = asyncio.run(furnish(postgres_url, tmp_path / "plans.toml", url, manager))

        def save(key: str) -> httpx.Response:
            return program.put("/provider-keys/openai", json={"key": key, "unchecked": True})

        assert save(keys[0]).status_code == 200
        with Load(url, place.token) as load:
            replies = [load.change(lambda key=key: save(key)) for key in keys[1:]]  # type: ignore[misc]
            removed = load.change(lambda: program.delete("/provider-keys/openai"))
    began = {f"gpt-{one.number}": one.began for one in load.sent}
    stale = [
        one.model
        for one in provider.requests
        if keys.index(one.key) < bisect_right(replies, began[one.model]) or began[one.model] > removed
    ]
    judged = sum(one.began > replies[0] for one in load.sent)
    assert judged >= REPLACEMENTS * AFTER_EACH
    assert stale == []
    assert {one.status for one in load.sent if one.began < replies[-1]} == {200}
    assert {one.status for one in load.since(removed)} == {403}
    assert set(keys[1:]) <= {one.key for one in provider.requests} <= set(keys)  # the first may be gone before a call


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(600 if PROVING else 240)
@pytest.mark.parametrize("change", ["revoked", "demoted"])
def test_nobody_calls_after_losing_the_right(
    change: str, installation: tuple[Installation, FakeProvider, str], postgres_url: URL, tmp_path: Path
) -> None:
    """A revoked token, and one whose maker's role was lowered: no call begun after the reply is accepted."""
    here, provider, manager = installation
    with here.workers(NODES) as url, httpx.Client(base_url=f"{url}/api/v1", timeout=30) as program:
        program.headers["authorization"] = f"Bearer {manager}"
        place = asyncio.run(furnish(postgres_url, tmp_path / "plans.toml", url, manager))
        program.put("/provider-keys/openai", json={"key": "sk-own-0123456789-abcdefghijkl", "unchecked": True})
        role = f"/members/{place.developer_id}/roles/{place.workspace_id}"
        with Load(url, place.token) as load:
            while len(load.sent) < AFTER_EACH:
                time.sleep(0.02)
            if change == "revoked":
                replied = load.change(lambda: program.delete(f"/api-tokens/{place.token_id}"))
            else:
                replied = load.change(lambda: program.put(role, json={"role": "user"}))
    accepted = {one.model for one in provider.requests}
    assert {one.status for one in load.sent if one.began < replied - 1} <= {200}
    assert {one.status for one in load.since(replied)} == {401}
    assert [one for one in load.since(replied) if f"gpt-{one.number}" in accepted] == []
    assert accepted
