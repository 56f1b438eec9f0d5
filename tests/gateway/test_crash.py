"""What a killed process leaves behind is put right by the next one: nothing lost, nothing doubled, nothing held."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.fakes.provider import FakeProvider
from tests.gateway.books import Books, judge
from tests.gateway.installation import Installation, Node
from tests.gateway.scale import PROVING, scaled
from tests.gateway.traffic import Traffic
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
ONE_NODE, FOUR_NODES = scaled(3, 1000), scaled(4, 500)
LEASE_AND_REAPER = 30


@pytest.fixture
def kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Kill one of some nodes again and again under load, start it again, and judge every call in the end."""

    def kill_again_and_again(here: Installation, provider: FakeProvider, number: int, cycles: int) -> None:
        books, seed = Books(here, 10**9), random.randrange(1_000_000)  # noqa: S311
        draw = random.Random(seed)  # noqa: S311
        with here.nodes(number) as nodes:
            traffic = Traffic([node.url for node in nodes], books.token, seed).begin(plain=5, streams=6, leaving=3)
            for _ in range(cycles):
                time.sleep(draw.uniform(0, 1.0))
                _kill(draw.choice(nodes), draw)
            calls = traffic.stop()
            if not PROVING:  # a run of a release waits as long as it really takes
                books.let_leases_end()
            books.wait_until_nothing_is_held(LEASE_AND_REAPER)
        verdict = judge(calls, provider, books.events())
        with capsys.disabled():
            if PROVING:
                print(f"\n{cycles} of {number} nodes killed (seed {seed}): {verdict}")
        assert books.adjustments() == {}
        assert books.allowance().used == verdict.whole_tokens + verdict.interrupted_tokens
        books.balance()
        assert verdict.whole >= cycles
        assert verdict.left >= cycles // 2
        assert verdict.interrupted >= cycles // 2

    return kill_again_and_again


def _kill(node: Node, draw: random.Random) -> None:
    """Kill it, and start it again: as a rule at once, sometimes with a second death in the middle of that."""
    node.kill()
    if draw.random() < 0.1:
        node.start()
        time.sleep(draw.uniform(0, 4))
        node.kill()
    node.start_again()
    node.wait_until_ready()


@pytest.mark.prove
@pytest.mark.timeout(7_200 if PROVING else 180)
def test_kill_the_node(tmp_path: Path, kill: Callable[..., None]) -> None:
    """SIGKILL at any moment: what a client got whole is charged once and exactly, what broke off within its bounds."""
    with FakeProvider(keep_bodies=False) as provider:
        kill(Installation(tmp_path, provider), provider, 1, ONE_NODE)


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(7_200 if PROVING else 180)
def test_kill_one_of_four_nodes(postgres_url: URL, tmp_path: Path, kill: Callable[..., None]) -> None:
    """The same for each of four nodes on one PostgreSQL, while the others go on."""
    with FakeProvider(keep_bodies=False) as provider:
        here = Installation(tmp_path, provider)
        here.use(postgres_url)
        kill(here, provider, 4, FOUR_NODES)


@pytest.mark.timeout(180)
def test_kill_in_the_second_attempt(tmp_path: Path) -> None:
    """A call that the allowance serves in place of a key is settled, and known as that, when its node has died."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_PLATFORM_KEY_OPENAI"] = "sk-platform-0123456789-abcdefghijklmnop"
        slug = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))["slug"]
        token = json.loads(here.run("tokens", "create", slug, "--name", "program", "--json"))["token"]
        here.run("keys", "set", slug, "openai", "--unchecked", text="sk-own-key-0123456789-abcdefghijklmnop")
        here.run("keys", "fallback", slug, "openai", "--tokens", "5000")
        with here.serving() as process, Wire(f"http://127.0.0.1:{here.port}") as wire:
            provider.next(status=503)
            provider.next(tokens=400, pause=0.05)
            wire.send(post(CHAT, token, chat(stream=True, max_tokens=500)))
            while not wire.line().startswith(b"data:"):
                pass
            process.kill()
            process.wait(10)
        with here.serving():
            usage = _until_nothing_is_held(here, slug)
        events = [json.loads(line) for line in here.run("usage", "events", slug, "--json").splitlines()]
        first, second = events
        assert (first["billed_to"], first["outcome"], first["fallback"]) == ("own_key", "refused", None)
        assert (second["billed_to"], second["outcome"], second["fallback"]) == ("allowance", "abandoned", "outage")
        assert second["fallback_of"] == first["request_id"]
        assert usage["used"] == usage["fallback_tokens"] == second["charged_tokens"] > 0


def _until_nothing_is_held(here: Installation, slug: str) -> Any:
    deadline = time.monotonic() + LEASE_AND_REAPER
    while True:
        usage = json.loads(here.run("usage", slug, "--json"))
        if usage["reserved"] == 0:
            return usage
        assert time.monotonic() < deadline, f"{usage['reserved']} tokens are still held"
        time.sleep(1)
