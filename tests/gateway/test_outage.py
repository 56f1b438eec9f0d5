"""The database goes away under load and comes back: streams do not notice, nothing is lost, new calls are told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.fakes.provider import FakeProvider
from tests.fixtures.databases import locked
from tests.fixtures.postgres import PostgresServer
from tests.gateway.books import Books, judge
from tests.gateway.installation import Installation, Node
from tests.gateway.scale import PROVING, scaled
from tests.gateway.service import Customer, Service
from tests.gateway.traffic import Made, Streams, Traffic, make
from tests.gateway.wire import Wire, chat, post

OUTAGES = {
    "stopped": scaled(5, 30),
    "refusing": scaled(2, 30),
    "hanging": scaled(3, 30),
    "read-only": scaled(2, 30),
}
NODES, STREAMS = scaled(2, 4), scaled(20, 100)
PAUSE = 0.1
TOLD_SECONDS, BACK_SECONDS = scaled(4, 1), 5
MORE = 0.3  # for the way there and back, on a machine that does other things as well
FIRST_STREAM, PROBE = 100, 1000  # their clients' numbers


def lengths(seconds: float) -> list[int]:
    """Tokens of streams of which some end while the database is away for so long, and some after."""
    return [int((1 + (seconds + 2) * number / STREAMS) / PAUSE) for number in range(STREAMS)]


def probe(node: Node, token: str) -> Made:
    """One small call."""
    return make(node.url, token, PROBE, "plain", 3)


def wait_for_the_return(nodes: list[Node], token: str) -> tuple[list[Made], float]:
    """Call every node until it serves again: the calls, and how many seconds that took."""
    back, calls = time.monotonic(), list[Made]()
    for node in nodes:
        while True:
            calls.append(probe(node, token))
            if calls[-1].status == 200:
                break
            assert time.monotonic() < back + 30, "it does not come back"
            time.sleep(0.05)
    return calls, time.monotonic() - back


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(1_200 if PROVING else 240)
def test_the_database_goes_away(
    own_postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All streams end well and are charged exactly; new calls are refused within a second and served soon after."""
    with FakeProvider(keep_bodies=False) as provider:
        here = Installation(tmp_path, provider)
        here.use(own_postgres.url)
        books = Books(here, 10**9)
        with here.nodes(NODES) as nodes:
            urls = [node.url for node in nodes]
            traffic, judged = Traffic(urls, books.token, 1).begin(6, 0, 2), list[Made]()
            for how, seconds in OUTAGES.items():
                streams = Streams(urls, books.token, FIRST_STREAM, lengths(seconds), PAUSE)
                streams.wait_until_all_run(provider)
                refused = []
                with own_postgres.away(how):
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        refused += [probe(node, books.token) for node in nodes]
                        time.sleep(0.2)
                    health = {(node.status("ready"), node.status("live")) for node in nodes}
                served, took = wait_for_the_return(nodes, books.token)
                calls = streams.end()
                judged += [*refused, *served, *calls]
                told = max(one.ended - one.began for one in refused)
                with capsys.disabled():
                    if PROVING:
                        print(f"\n{how} for {seconds} s: told within {told:.2f} s, back after {took:.2f} s")
                assert all(call.whole for call in calls), how
                assert {(one.status, one.code) for one in refused} == {(503, "unavailable")}, how
                assert all(one.retry_after for one in refused), how
                assert health == {(503, 200)}, how
                assert told < TOLD_SECONDS + MORE, how
                assert took < BACK_SECONDS + MORE, how
            judged += traffic.stop()
            books.wait_until_nothing_is_held(5)
        verdict = judge(judged, provider, books.events())
        with capsys.disabled():
            if PROVING:
                print(f"database away: {verdict}")
        assert {one.status for one in judged} == {200, 503}
        assert books.adjustments() == {}
        assert verdict.interrupted == 0
        books.balance()


def test_the_metrics_tell_of_it(service: Service, customer: Customer) -> None:
    """`ownkey_database_up` is 0 while the database is away, and 1 again after that."""
    registry = CollectorRegistry()
    registry.register(service.application.relay.metrics)

    def wait_for(up: int) -> None:
        deadline = time.monotonic() + 15
        while registry.get_sample_value("ownkey_database_up") != up:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for(1)
    with locked(service.settings.data_dir / "ownkey.db"):
        assert probe_status(service, customer) == 503
        wait_for(0)
    wait_for(1)
    assert probe_status(service, customer) == 200
    customer.settled(1)


def probe_status(service: Service, customer: Customer) -> int:
    """The status of one call, which a change that waits for the database may hold up for its whole turn."""
    with Wire(service.url, 30) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        return wire.reply().status
