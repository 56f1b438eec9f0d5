"""A node that stands still for longer than a lease is taken for dead; what it settles afterwards is one correction."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import URL

from ownkey.metering.reservations import LEASE_SECONDS
from tests.fakes.provider import FakeProvider
from tests.gateway.books import REAPER_SECONDS, Books
from tests.gateway.installation import Installation
from tests.gateway.scale import PROVING
from tests.gateway.traffic import Made, make

PAUSE = 0.1
# Of the stream on the node that lives; the other one ends while its node stands still.
LONG_SECONDS, SHORT_SECONDS = 3 * LEASE_SECONDS + 5, 10

pytestmark = pytest.mark.skipif(not PROVING, reason="lasts three leases; `make prove` runs it")


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.mark.prove
@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_a_node_that_stood_still(postgres_url: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its call is settled by another node, and corrected once when it wakes; a stream of three leases is never."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.use(postgres_url)
        books, calls = Books(here, 100_000), dict[str, Made]()
        with here.nodes(2) as (sleeper, other):

            def stream(name: str, url: str, seconds: float) -> Thread:
                tokens = int(seconds / PAUSE)

                def run() -> None:
                    calls[name] = make(url, books.token, len(name), "stream", tokens, PAUSE)

                thread = Thread(target=run)
                thread.start()
                return thread

            long = stream("long", other.url, LONG_SECONDS)
            short = stream("short", sleeper.url, SHORT_SECONDS)
            provider.wait(lambda p: len(p.requests) == 2 and all(one.tokens_out > 30 for one in p.requests), 30)
            sleeper.signal(signal.SIGSTOP)
            until(lambda: len(books.events()) == 1, LEASE_SECONDS + 2 * REAPER_SECONDS)
            (abandoned,) = books.events()
            said = {one.model: one.tokens_in + one.tokens_out for one in provider.requests}
            assert (abandoned.outcome, abandoned.estimated) == ("abandoned", True)
            assert 0 < abandoned.charged_tokens < said[abandoned.model] + 50
            sleeper.signal(signal.SIGCONT)
            short.join(30)
            until(lambda: bool(books.adjustments()), 10)
            assert books.adjustments() == {abandoned.request_id: abandoned.charged_tokens - said[abandoned.model]}
            assert (calls["short"].whole, calls["short"].request_id) == (True, abandoned.request_id)
            long.join(LONG_SECONDS)
            until(lambda: len(books.events()) == 2, 10)
            time.sleep(2 * REAPER_SECONDS)  # nothing more comes
        assert calls["long"].whole
        finished = next(event for event in books.events() if event.request_id != abandoned.request_id)
        tokens = {one.model: one.tokens_in + one.tokens_out for one in provider.requests}
        assert (finished.outcome, finished.charged_tokens) == ("finished", tokens[finished.model])
        assert len(books.adjustments()) == 1
        assert books.allowance().used == sum(tokens.values())
        books.balance()
        with capsys.disabled():
            print(f"\na node stood still: charged {abandoned.charged_tokens}, corrected to {tokens[abandoned.model]}")
