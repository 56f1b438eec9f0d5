"""Several processes on one PostgreSQL: the allowance is never overspent, and a replaced key is never used again."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
ROOM = 40


def call(url: str, token: str) -> int:
    """One small call on a connection of its own, so that any of the workers may get it: its status."""
    with Wire(url) as wire:
        wire.send(post(CHAT, token, chat(max_tokens=100)))
        return wire.reply().status


@pytest.mark.postgres
@pytest.mark.timeout(180)
def test_workers_share_one_truth(postgres_url: URL, tmp_path: Path) -> None:
    """Of 200 calls at once as many are admitted as there is room for; a key that was replaced is never used again."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        ceiling = len(json.dumps(chat(max_tokens=100))) + 100
        plans = tmp_path / "room.toml"
        plans.write_text(f'[plans.free]\nname = "Free"\nmonthly_tokens = {ROOM * ceiling}\napi_access = true\n')
        here.environment |= {
            "OWNKEY_DATABASE_URL": postgres_url.render_as_string(hide_password=False),
            "OWNKEY_VAULT_KEYS": here.run("vault", "new-key").split()[-1],
            "OWNKEY_PLATFORM_KEY_OPENAI": "sk-platform-0123456789-abcdefghijklmnop",
            "OWNKEY_PLANS_FILE": str(plans),
            "OWNKEY_METRICS_ADDRESS": "",
        }
        here.run("migrate")
        slug = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))["slug"]
        token = json.loads(here.run("tokens", "create", slug, "--name", "program", "--json"))["token"]
        with here.workers(3) as url:
            statuses = _at_once(provider, url, token)
            assert statuses == {200: ROOM, 429: 200 - ROOM}
            usage = json.loads(here.run("usage", slug, "--json"))
            tokens = provider.totals()
            assert (usage["used"], usage["reserved"]) == (sum(tokens), 0)
            assert json.loads(here.run("ledger", "verify", "--json"))["differences"] == []
            for number in range(3):
                _replace_under_load(here, provider, slug, token, f"sk-own-{number}-0123456789-abcdefghijkl")


def _at_once(provider: FakeProvider, url: str, token: str) -> dict[int, int]:
    provider.hold()
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(call(url, token))) for _ in range(200)]
    for thread in threads:
        thread.start()
    provider.wait(lambda p: p.held + len(statuses) == 200, timeout=30)
    provider.release()
    for thread in threads:
        thread.join()
    return dict(Counter(statuses))


def _replace_under_load(here: Installation, provider: FakeProvider, slug: str, token: str, key: str) -> None:
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            call(f"http://127.0.0.1:{here.port}", token)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    here.run("keys", "set", slug, "openai", "--unchecked", "--json", text=key)
    replied = time.monotonic()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    after = [one for one in provider.requests if one.monotonic > replied]
    assert len(after) > 10
    assert {one.key for one in after} == {key}
