"""Hours of streams and trouble: memory stays where it was, and nothing is left open, under way or held."""

from __future__ import annotations

import gc
import os
import random
import stat
import statistics
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.books import Books
from tests.gateway.installation import Installation, Node
from tests.gateway.process import memory_of
from tests.gateway.scale import PROVING, scaled
from tests.gateway.service import Customer
from tests.gateway.traffic import Made, make

SECONDS = int(os.environ.get("SOAK_SECONDS", scaled(10, 7_200)))
WARM_UP_SECONDS = SECONDS / 4
CLIENTS = 50
MEGABYTE = 1 << 20
MOST_GROWTH = 24 * MEGABYTE
MOST_GROWTH_AN_HOUR = 1 * MEGABYTE
LEAVES = "the client leaves"
# A tenth of the calls meets one of these.
TROUBLES = (
    "[[status:500]]",
    "[[status:429:1]]",
    "[[no_reply]]",
    "[[no_reply:rst]]",
    "[[cut:5]]",
    "[[cut:5:rst]]",
    "[[stall:5]]",
    "[[error_after:5]]",
    "[[no_end]]",
    "[[usage:missing]]",
    "[[malformed:garbage]]",
    "[[malformed:chunk_missing]]",
    LEAVES,
)
# Without the one that takes its time.
AT_ONCE = ("", *(trouble for trouble in TROUBLES if "stall" not in trouble))


def stream(url: str, token: str, slot: int, tokens: int, pause: float, trouble: str) -> Made:
    """One stream in this trouble: the provider's, or that its client leaves."""
    if trouble == LEAVES:
        return make(url, token, slot, "leaving", tokens, pause, leave_after=10)
    return make(url, token, slot, "stream", tokens, pause, trouble=trouble)


class Soak:
    """Clients that stream one call after the other until told to stop."""

    def __init__(self, node: Node, token: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._node, self._token, self._stop = node, token, threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(slot,), daemon=True) for slot in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _go_on(self, slot: int) -> None:
        draw = random.Random(slot)  # noqa: S311
        while not self._stop.is_set():
            trouble = draw.choice(TROUBLES) if draw.random() < 0.1 else ""
            try:
                made = stream(self._node.url, self._token, slot, draw.randint(20, 60), 0.05, trouble)
            except BaseException as error:
                self.failures.append(error)
                return
            self.outcomes[trouble or ("whole" if made.whole else made.code)] += 1

    def stop(self) -> None:
        """Let all calls end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert self.failures == []
        assert not any(thread.is_alive() for thread in self._threads), "a client waits for ever"


def fewest_sockets(pid: int) -> int:
    """How many sockets a process keeps open: the fewest of some seconds, for one may just be closing."""
    counts = []
    for _ in range(20):
        time.sleep(0.1)
        counts.append(len([one for one in os.listdir(f"/proc/{pid}/fd") if _is_socket(f"/proc/{pid}/fd/{one}")]))
    return min(counts)


def _is_socket(descriptor: str) -> bool:
    with suppress(FileNotFoundError):  # closed since it was listed
        return stat.S_ISSOCK(os.stat(descriptor).st_mode)
    return False


def in_flight(here: Installation) -> float:
    """The calls under way, as the process counts them."""
    here.get(f"http://127.0.0.1:{here.metrics}/metrics")
    page = here.said.popitem()[1].decode()
    return float(page.split("\nownkey_requests_in_flight ")[1].split("\n")[0])


@pytest.mark.prove
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.timeout(SECONDS + 300)
def test_nothing_grows_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty streams at a time, a tenth in trouble: memory is flat; no socket, call or reservation is left behind."""
    with FakeProvider(keep_bodies=False) as provider:
        here = Installation(tmp_path, provider)
        here.environment |= {"OWNKEY_IDLE_TIMEOUT": "2", "OWNKEY_FIRST_BYTE_TIMEOUT": "2"}
        books = Books(here, 10**12)
        with here.nodes(1) as (node,):
            pid, samples = node.process.pid, list[tuple[float, int]]()
            before = fewest_sockets(pid)
            soak, began = Soak(node, books.token), time.monotonic()
            while (passed := time.monotonic() - began) < SECONDS:
                time.sleep(0.2)
                if passed > WARM_UP_SECONDS:
                    samples.append((passed, memory_of(pid)))
            soak.stop()
            provider.stop()
            assert (fewest_sockets(pid), in_flight(here)) == (before, 0)
            books.wait_until_nothing_is_held(5)
        books.balance()
        assert b"Traceback" not in here.log.read_bytes()
    figures = [bytes_held for _, bytes_held in samples]
    slope = statistics.linear_regression(*zip(*samples, strict=True)).slope * 3600
    with capsys.disabled():
        if PROVING:
            grown, most = slope / MEGABYTE, max(figures) / MEGABYTE
            print(f"\n{SECONDS} s: {grown:+.2f} MB an hour, at most {most:.0f} MB; {dict(soak.outcomes)}")
    assert soak.outcomes["whole"] > CLIENTS
    assert max(figures) - figures[0] < MOST_GROWTH
    if PROVING:
        assert slope <= MOST_GROWTH_AN_HOUR


@pytest.mark.parametrize("trouble", AT_ONCE)
def test_a_call_leaves_nothing_to_the_collector(customer: Customer, trouble: str) -> None:
    """However a call and its connections end, what was made for them is gone at once: nothing of it is circular."""
    relay = customer.service.application.relay
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(5):
            stream(customer.service.url, customer.token, 0, 20, 0.001, trouble)
        deadline = time.monotonic() + 10
        while relay.clients or relay.active:
            assert time.monotonic() < deadline, "a call is still under way"
            time.sleep(0.01)
        gc.collect()
        left = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert {name: number for name, number in left.items() if name.startswith("ownkey.")} == {}
