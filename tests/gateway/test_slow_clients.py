"""Many clients that send or read slowly, beside healthy ones: these notice nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.process import Running, served
from tests.gateway.scale import PROVING, scaled
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
SLOW_HEADS = scaled(150, 1_000)
SLOW_READERS = scaled(30, 200)
HEALTHY = scaled(300, 2_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A process of its own."""
    with FakeProvider(keep_bodies=False) as provider, served(tmp_path_factory.mktemp("slow"), provider) as running:
        yield running


def healthy(running: Running) -> tuple[float, float]:
    """Calls one after the other: the share that succeeds, and the 99th percentile of their seconds."""
    took, good = [], 0
    with Wire(running.url) as wire:
        for number in range(HEALTHY):
            started = time.perf_counter()
            wire.send(post(CHAT, running.token, chat(f"number {number}", max_tokens=20)))
            good += wire.reply().status == 200
            took.append(time.perf_counter() - started)
    return good / HEALTHY, statistics.quantiles(took, n=100)[98]


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_slow_clients_harm_nobody(running: Running) -> None:
    """Beside clients that drip their heads and clients that do not read their replies healthy calls all succeed.

    A release also shows that the slowest hundredth takes at most twice as long as without them, that slow heads are
    ended after ten seconds, and that memory stays within what a connection's buffers may hold.
    """
    healthy(running)
    _, usual = healthy(running)
    before = running.memory()
    large = b"data: " + b"x" * (4 << 20) + b"\n\n"
    running.provider.next(
        times=SLOW_READERS, body=large, headers=(("content-type", "text/event-stream"),), framing="chunked"
    )
    with ExitStack() as stack:
        # One after the other: what fits into the buffers of two sockets is poured at once, and that is not the subject.
        for _ in range(SLOW_READERS):
            wire = stack.enter_context(Wire(running.url, 30))
            wire.send(post(CHAT, running.token, chat(stream=True, max_tokens=5)))
            assert wire.line() == b"HTTP/1.1 200 OK"
        dripping = [stack.enter_context(Wire(running.url, 30)) for _ in range(SLOW_HEADS)]
        opened = time.monotonic()
        for wire in dripping:
            wire.send("POST /openai/v1/chat/completions HTTP/1.1\nHost: he")
        share, beside = healthy(running)
        held = running.memory() - before
        assert share == 1.0
        if PROVING:
            print(f"p99 {usual * 1000:.2f} ms alone, {beside * 1000:.2f} ms beside them; {held / 2**20:.0f} MiB held")
            assert beside <= 2 * usual
            assert {wire.reply().status for wire in dripping} == {408}
            assert time.monotonic() - opened < 60
        assert held < (SLOW_HEADS + SLOW_READERS) * 1_000_000
