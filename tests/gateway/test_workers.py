"""The allowance is never overspent, by one process or several on one PostgreSQL; a replaced key is never used again."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.fakes.provider import FakeProvider
from tests.fakes.record import Received
from tests.gateway.books import Books
from tests.gateway.installation import Installation
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
ROOM, CEILING = 40, len(json.dumps(chat(max_tokens=100))) + 100
USABLE = 0.98


def call(url: str, token: str, **members: str) -> int:
    """One small call on a connection of its own, so that any of the workers may get it: its status."""
    with Wire(url) as wire:
        wire.send(post(CHAT, token, {**chat(max_tokens=100), **members}))
        return wire.reply().status


def test_one_node_admits_what_there_is_room_for(tmp_path: Path) -> None:
    """Of 200 calls at once as many are admitted as there is room for; what they did not use can all be used."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        books = Books(here, ROOM * CEILING)
        with here.nodes(1) as (node,):
            _fill(provider, books, node.url)


@pytest.mark.postgres
@pytest.mark.timeout(180)
def test_workers_share_one_truth(postgres_url: URL, tmp_path: Path) -> None:
    """The same of four processes on one PostgreSQL; and a key that was replaced is never used again by any."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.use(postgres_url)
        books = Books(here, ROOM * CEILING)
        with here.workers(4) as url:
            _fill(provider, books, url)
            for number in range(3):
                _replace_under_load(here, provider, books, f"sk-own-{number}-0123456789-abcdefghijkl")


def _fill(provider: FakeProvider, books: Books, url: str) -> None:
    assert _at_once(provider, url, books.token) == {200: ROOM, 429: 200 - ROOM}
    allowance = books.allowance()
    assert (allowance.used, allowance.reserved) == (sum(provider.totals()), 0)
    provider.script(tokens=100)
    while call(url, books.token) == 200:
        pass
    allowance = books.allowance()
    assert allowance.granted * USABLE <= allowance.used == sum(provider.totals()) <= allowance.granted
    books.balance()


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


def _replace_under_load(here: Installation, provider: FakeProvider, books: Books, key: str) -> None:
    stop, began = threading.Event(), dict[str, float]()

    def load(thread: int) -> None:
        for number in count():
            if stop.is_set():
                break
            model = f"{key}-{thread}-{number}"  # tells the provider's record of the call which one it was
            began[model] = time.monotonic()
            call(f"http://127.0.0.1:{here.port}", books.token, model=model)

    threads = [threading.Thread(target=load, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    here.run("keys", "set", books.slug, "openai", "--unchecked", "--json", text=key)
    replied = time.monotonic()

    def after(provider: FakeProvider) -> list[Received]:
        return [one for one in provider.requests if began.get(one.model, 0) > replied]

    provider.wait(lambda p: len(after(p)) > 20, timeout=30)
    stop.set()
    for thread in threads:
        thread.join()
    assert {one.key for one in after(provider)} == {key}
