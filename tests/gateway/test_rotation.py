"""Rotating the key encryption key while calls run, and being killed at it again and again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL, func, insert, select

from ownkey import clock
from ownkey.credentials import Secret
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.ids import new_id
from ownkey.vault import envelope
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing
from ownkey.vault.provider_keys import SealedKey
from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation
from tests.gateway.scale import PROVING, scaled
from tests.gateway.wire import Wire, chat, post

SECRETS, KILLS = scaled(600, 10_000), scaled(2, 50)
CHAT = "/openai/v1/chat/completions"
OWN = "sk-own-0123456789-abcdefghijklmnop"


def database_of(here: Installation) -> Database:
    """The installation's database, for looking at it from outside."""
    url = here.environment.get("OWNKEY_DATABASE_URL")
    path = here.folder / "data" / "ownkey.db"
    return Database(URL.create("sqlite", database=str(path)) if url is None else _psycopg(url))


def _psycopg(url: str) -> URL:
    from sqlalchemy.engine import make_url

    return make_url(url).set(drivername="postgresql+psycopg")


async def fill(here: Installation, owner_id: str, ring: KeyRing, number: int) -> None:
    """So many sealed keys, of organizations that have nothing else."""
    organizations, keys = [], []
    for n in range(number):
        org = new_id("org")
        organizations.append(
            {"id": org, "name": f"N{n}", "slug": f"n{n}", "owner_id": owner_id, "created_at": clock.now()}
        )
        key = SealedKey(new_id("key"), org, "openai", "", b"", b"", "")
        sealed = envelope.seal(ring, Secret(f"sk-{n:08d}-{org}"), key.bound_to)
        keys.append(
            {
                "id": key.id,
                "organization_id": org,
                "provider": "openai",
                "base_url": "",
                "preview": "sk-…",
                "fingerprint": "0",
                "ciphertext": sealed.ciphertext,
                "wrapped_data_key": sealed.wrapped_data_key,
                "kek_id": sealed.kek_id,
                "created_at": clock.now(),
            }
        )
    db = database_of(here)
    async with db.transaction() as tx:
        await tx.execute(insert(tables.organizations), organizations)
        await tx.execute(insert(tables.provider_keys), keys)
    await db.close()


async def owner_of(here: Installation) -> str:
    """The only person there is."""
    db = database_of(here)
    async with db.read() as tx:
        found = await tx.scalar(select(tables.users.c.id))
    await db.close()
    return str(found)


class Progress:
    """How many keys are wrapped with which key encryption key, read from outside."""

    def __init__(self, here: Installation) -> None:
        self._runner = asyncio.Runner()
        self._db = database_of(here)

    def counts(self) -> dict[str, int]:
        """By the id of the key."""
        return self._runner.run(self._read())

    async def _read(self) -> dict[str, int]:
        kek_id = tables.provider_keys.c.kek_id
        async with self._db.read() as tx:
            return {row[0]: row[1] for row in await tx.execute(select(kek_id, func.count()).group_by(kek_id))}

    def close(self) -> None:
        """Give the connections back."""
        self._runner.run(self._db.close())
        self._runner.close()


def kill_at(here: Installation, progress: Progress, kek_id: str, done: int) -> None:
    """Begin a rotation and kill it as soon as so many keys are wrapped anew, or a moment later."""
    command = [sys.executable, "-m", "ownkey", "vault", "rotate", "--json"]
    process = subprocess.Popen(command, env=here.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and progress.counts().get(kek_id, 0) < done:
        time.sleep(0.002)
    time.sleep(random.random() * 0.02)  # noqa: S311 – anywhere in a transaction
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL, "the rotation was done before it could be killed"


@pytest.mark.prove
@pytest.mark.timeout(3600 if PROVING else 240)
@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)][: scaled(1, 2)])
def test_a_rotation_is_killed_again_and_again(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """No call fails meanwhile; in the end every key opens with the new key alone, and the old one opens nothing."""
    old, new = new_kek(), new_kek()
    old_id, new_id_ = Kek.parse(old).id, Kek.parse(new).id
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment |= {"OWNKEY_VAULT_KEYS": old, "OWNKEY_LOG_LEVEL": "WARNING"}
        if engine == "postgres":
            url: URL = request.getfixturevalue("postgres_url")
            here.environment["OWNKEY_DATABASE_URL"] = url.render_as_string(hide_password=False)
        here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json")
        token = json.loads(here.run("tokens", "create", "acme", "--name", "program", "--json"))["token"]
        here.run("keys", "set", "acme", "openai", "--unchecked", "--json", text=OWN)
        asyncio.run(fill(here, asyncio.run(owner_of(here)), KeyRing([Kek.parse(old)]), SECRETS - 1))
        here.environment["OWNKEY_VAULT_KEYS"] = f"{new},{old}"
        progress = Progress(here)
        assert progress.counts() == {old_id: SECRETS}
        statuses: Counter[int] = Counter()
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                with Wire(f"http://127.0.0.1:{here.port}") as wire:
                    wire.send(post(CHAT, token, chat(max_tokens=5)))
                    statuses[wire.reply().status] += 1

        with here.serving():
            thread = threading.Thread(target=load)
            thread.start()
            for number in range(KILLS):
                # The last one when two thirds are done: it takes a moment, in which many more are.
                kill_at(here, progress, new_id_, SECRETS * number // (KILLS * 3 // 2) + 1)
            between = Counter(progress.counts())
            assert between[old_id] + between[new_id_] == SECRETS
            if PROVING:  # few are all done in the moment that it takes to kill
                assert min(between[old_id], between[new_id_]) > 0
            last = json.loads(here.run("vault", "rotate", "--json"))
            stop.set()
            thread.join()
        assert last == {"rewrapped": between[old_id], "unchanged": between[new_id_], "failed": 0}
        assert progress.counts() == {new_id_: SECRETS}
        progress.close()
        assert statuses == {200: statuses.total()}
        assert {one.key for one in provider.requests} == {OWN}
        assert json.loads(here.run("audit", "verify", "--json"))["first_bad"] is None
        _only_the_new_key_opens(here, token, old, new)


def _only_the_new_key_opens(here: Installation, token: str, old: str, new: str) -> None:
    here.environment["OWNKEY_VAULT_KEYS"] = old
    useless = json.loads(here.run("vault", "status", "--json"))
    assert (useless["open"], useless["unreadable"]) == (False, SECRETS)
    for keks, status in ((old, 503), (new, 200)):
        here.environment["OWNKEY_VAULT_KEYS"] = keks
        with here.serving(), Wire(f"http://127.0.0.1:{here.port}") as wire:
            wire.send(post(CHAT, token, chat(max_tokens=5)))
            assert wire.reply().status == status
    assert json.loads(here.run("vault", "rotate", "--json")) == {"rewrapped": 0, "unchanged": SECRETS, "failed": 0}
