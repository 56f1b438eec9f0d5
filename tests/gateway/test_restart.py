"""Nodes that are told to stop: what runs may end, what does not end is settled and told, and no row is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import URL

from tests.fakes.provider import FakeProvider
from tests.gateway.books import Books, judge
from tests.gateway.installation import Installation, Node
from tests.gateway.scale import PROVING, scaled
from tests.gateway.traffic import Made, Traffic, make

NODES, ROUNDS, STREAMS = 4, scaled(1, 25), scaled(24, 100)
LONGEST_SECONDS = 1.5
AT_ONCE_SECONDS = 10  # far less than the time to drain, and than the stream takes


def drain(node: Node) -> int:
    """Stop a node: it takes no more requests at once, and its exit code comes when what ran has ended."""
    node.signal(signal.SIGTERM)
    deadline = time.monotonic() + AT_ONCE_SECONDS
    while node.status() == 200:
        assert time.monotonic() < deadline, "it still takes requests"
    return node.process.wait(45)


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(3_600 if PROVING else 180)
def test_nodes_restarted_in_turn(postgres_url: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four nodes full of streams restarted one after the other: no stream is cut, no row lost, each exits with 0."""
    with FakeProvider(keep_bodies=False) as provider:
        here = Installation(tmp_path, provider)
        here.use(postgres_url)
        books = Books(here, 10**9)
        with here.nodes(NODES) as nodes:
            traffic = Traffic([node.url for node in nodes], books.token, 1, LONGEST_SECONDS).begin(4, STREAMS, 0)
            for node in nodes * ROUNDS:
                assert drain(node) == 0
                node.start_again()
                node.wait_until_ready()
            calls = traffic.stop()
            assert books.allowance().reserved == 0
        verdict = judge(calls, provider, books.events())
        with capsys.disabled():
            if PROVING:
                print(f"\n{ROUNDS * NODES} restarts under {STREAMS} streams: {verdict}")
        assert [call for call in calls if call.status == 200 and not call.whole] == []
        assert verdict.interrupted == 0
        assert verdict.whole > STREAMS * ROUNDS
        assert {call.code for call in calls} <= {"", "unavailable"}
        books.balance()


@pytest.mark.postgres
@pytest.mark.parametrize("first", ["the parent", "the workers"])
def test_one_signal_to_every_process_cuts_nothing(postgres_url: URL, tmp_path: Path, first: str) -> None:
    """Workers whom a service manager signals, and then their parent, or the other way round, have been told once."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.use(postgres_url)
        books = Books(here, 100_000)
        with here.nodes(1, workers=2) as (node,):
            calls, clients = begin_streams(provider, node, books, 6)
            workers = list(
                map(int, Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split())
            )
            told = [node.process.pid, *workers] if first == "the parent" else [*workers, node.process.pid]
            for pid in told:
                os.kill(pid, signal.SIGTERM)
                time.sleep(0.02)
            assert node.process.wait(45) == 0
            for client in clients:
                client.join(30)
        assert [call.whole for call in calls] == [True] * 6
        books.balance()


def test_the_end_of_the_terminal_cuts_nothing(tmp_path: Path) -> None:
    """SIGHUP is a signal to stop like any other; one more while the end is written does not break that off."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        books = Books(here, 100_000)
        with here.nodes(1) as (node,):
            calls, (client,) = begin_streams(provider, node, books, 1)
            node.signal(signal.SIGHUP)
            client.join(30)
            for _ in range(100):  # until it is gone: whenever it comes, it must not matter
                if node.process.poll() is not None:
                    break
                node.signal(signal.SIGTERM)
                time.sleep(0.02)
            assert node.process.wait(10) == 0
        assert calls[0].whole
        books.balance()


def begin_streams(provider: FakeProvider, node: Node, books: Books, number: int) -> tuple[list[Made], list[Thread]]:
    """Streams of four seconds that are under way: what has become of them, later, and who reads them."""
    calls: list[Made] = []
    clients = [
        Thread(target=lambda: calls.append(make(node.url, books.token, 0, "stream", 40, 0.1))) for _ in range(number)
    ]
    for client in clients:
        client.start()
    provider.wait(lambda p: len(p.requests) == number and all(one.tokens_out > 3 for one in p.requests), 30)
    return calls, clients


@pytest.mark.timeout(120)
@pytest.mark.parametrize("why", ["a second signal", "the time to drain is over"])
def test_what_does_not_end_is_broken_off(tmp_path: Path, why: str) -> None:
    """A second signal, or the end of the time to drain, ends a stream with an error event; it is settled; exit 0."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_DRAIN_TIMEOUT"] = "30" if why == "a second signal" else "2"
        books = Books(here, 100_000)
        with here.nodes(1) as (node,):
            calls: list[Made] = []
            client = Thread(target=lambda: calls.append(make(node.url, books.token, 0, "stream", 900, 0.1)))
            client.start()
            provider.wait(lambda p: bool(p.requests) and p.last.tokens_out > 3, 30)
            node.signal(signal.SIGTERM)
            until, said = time.monotonic() + 1.5, provider.last.tokens_out
            provider.wait(lambda p: time.monotonic() > until and p.last.tokens_out > said + 3, 30)
            assert node.process.poll() is None
            if why == "a second signal":
                node.signal(signal.SIGTERM)
            assert node.process.wait(AT_ONCE_SECONDS) == 0
            client.join(30)
        (call,), (event,) = calls, books.events()
        assert (call.whole, call.code) == (False, "unavailable")
        assert call.delivered() > said
        assert event.outcome == "failed"
        assert judge(calls, provider, [event]).interrupted == 1
        books.balance()
