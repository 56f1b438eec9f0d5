"""Bytes that are no requests, or odd ones, against a process of its own: nothing breaks and nothing is smuggled."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.malformed import KINDS, Input, written
from tests.gateway.process import Running, served
from tests.gateway.scale import scaled
from tests.gateway.wire import Reply, Wire

SEED = int(os.environ.get("SEED", time.time()))
NUMBER = scaled(4 * len(KINDS), 20_000)
MOST_GROWTH = 20 * 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An installation with room for all calls that turn out to be valid."""
    with FakeProvider(keep_bodies=False) as provider, served(tmp_path_factory.mktemp("malformed"), provider) as running:
        yield running


def replies(url: str, data: bytes, outcome: str) -> tuple[list[Reply], bool]:
    """Send bytes and read what comes back: at most two replies, and whether the connection ended."""
    found: list[Reply] = []
    with Wire(url, 0.4 if outcome == "either" else 10) as wire:
        with contextlib.suppress(ConnectionError):  # refused before it had all of it: the reply is there all the same
            wire.send(data)
        while len(found) < 3:
            try:
                found.append(wire.reply())
            except ConnectionError:
                return found, True
            except TimeoutError:
                if outcome != "either":
                    raise
                wire.finish_sending()  # it waits for the rest of a body, and may
                outcome = "answered"
            if outcome != "refused" and len(found) == 2:
                break
    return found, False


def judge(running: Running, given: Input, after: bytes) -> str:
    """What is wrong with how an input was treated; empty if nothing is."""
    before = len(running.provider.requests)
    try:
        found, ended = replies(running.url, given.data + after, given.outcome)
    except TimeoutError:
        return "no answer"
    statuses = [reply.status for reply in found]
    if any(status >= 500 for status in statuses):
        return f"a fault of ours: {statuses}"
    seen = [request.target for request in running.provider.requests[before:]]
    if any("smuggled" in target for target in seen):
        return f"smuggled: {seen}"
    followed = sum("after" in target for target in seen)
    if given.outcome == "refused":
        right = len(statuses) == 1 and 400 <= statuses[0] < 500 and ended and not seen
    elif given.outcome == "answered":
        right = len(statuses) == 2 and followed == 1 and statuses[1] == 200 and b'"data"' in found[1].body
    else:
        right = len(statuses) <= 2 and followed <= 1 and (not followed or statuses[-1] in (200, 400))
    return "" if right else f"{statuses}, ended: {ended}, provider saw {seen}"


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_nothing_is_smuggled_and_nothing_breaks(running: Running) -> None:
    """Each input of 140 classes is refused with 4xx and a closed connection, or it and the next request are answered.

    No hidden request reaches the provider, no reply is a fault of ours, the process lives on and its memory stays.
    """
    wrong: dict[str, str] = {}
    settled = 0
    for number in range(NUMBER):
        given, after = written(SEED, number, running.token)
        problem = judge(running, given, after)
        if problem:
            wrong.setdefault(given.name, f"input {number} of seed {SEED}: {problem}\n{given.data[:300]!r}")
        if number == NUMBER // 4:
            settled = running.memory()
            running.provider.clear()
    assert not wrong, "\n\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert running.memory() - settled <= MOST_GROWTH
