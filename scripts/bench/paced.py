"""Streams that stay open: how many of 100 chunks a second a gateway carries in time, and what they take of memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from scripts.bench import nginx
from scripts.bench.contest import Entrant
from scripts.bench.installation import Installation, install
from scripts.bench.paced_provider import PERIOD
from scripts.bench.plan import Plan
from scripts.bench.processes import GATEWAY_CORE, LOAD_CORE, cpu_of, free_port, memory_of, running
from scripts.bench.report import Report, Table

_IN_TIME = 1.03
_LOAD_IN_TIME = 1.02
_FIRST, _MOST = 100, 1600
_MEMORY_STREAMS = 500


@dataclass(frozen=True, slots=True)
class Probe:
    """So many streams at once: how many came whole, the median seconds of one, CPU microseconds a chunk, MiB."""

    ended: int
    seconds: float
    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Track:
    """The paced provider and nginx, running, and ours."""

    chunks: int
    direct: Entrant
    gateways: Mapping[str, Entrant]
    here: Installation

    def probe(self, entrant: Entrant, count: int) -> Probe:
        """Open so many streams through a gateway, or directly."""
        limit = 2.0 + self.chunks * PERIOD * 1.5
        told = {"port": urlsplit(entrant.url).port, "request": _request(entrant), "count": count, "limit": limit}
        before, memory = cpu_of(entrant.pid).total, 0.0
        command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "scripts.bench.paced_client"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            json.dump(told, client.stdin)
            client.stdin.close()
            while client.poll() is None:
                memory = max(memory, memory_of(entrant.pid))
                time.sleep(0.2)
            said = client.stdout.read()
        if client.returncode:
            raise RuntimeError(f"{entrant.name}: reading {count} paced streams failed")
        seconds = json.loads(said) or [float("inf")]
        cpu = (cpu_of(entrant.pid).total - before) / (count * self.chunks)
        return Probe(len(seconds), statistics.median([*seconds, *[limit] * (count - len(seconds))]), cpu, memory)


@contextmanager
def track(plan: Plan) -> Iterator[Track]:
    """Provider, nginx and ours."""
    folder = plan.folder / "paced"
    folder.mkdir()
    chunks = 200 if plan.quick else 400
    upstream, front = free_port(), free_port()
    tokens = folder / "nginx.tokens"
    tokens.write_text("sk-anything\n")
    here = install(folder / "ownkey", f"http://127.0.0.1:{upstream}")
    allowance = here.organization("allowance", own_key=False)
    command = [sys.executable, "-m", "scripts.bench.paced_provider", str(upstream), str(chunks)]
    with (
        running(command, LOAD_CORE, upstream) as provider,
        running(nginx.proxy(folder, front, upstream), GATEWAY_CORE, front) as proxy,
        here.serving() as (url, pid),
    ):
        path = "/v1/chat/completions"
        gateways = {
            "nginx": Entrant("nginx", f"http://127.0.0.1:{front}{path}", tokens, proxy),
            "Ownkey": Entrant("Ownkey", url, allowance, pid),
        }
        yield Track(chunks, Entrant("direct", f"http://127.0.0.1:{upstream}{path}", tokens, provider), gateways, here)


def most_that_fit(fits: Callable[[int], bool], first: int, most: int, step: int = 25) -> int:
    """The largest number that fits, from ``first`` to ``most``, to ``step`` or a twentieth; 0 if ``first`` does not."""
    good, bad = 0, first
    while bad <= most and fits(bad):
        good, bad = bad, bad * 2
    if good == 0 or bad > most:
        return good
    while bad - good > max(step, good // 20):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def run(report: Report, plan: Plan) -> None:
    """Find the memory that 500 streams take, and how many each gateway carries."""
    with track(plan) as there:
        search = Search(report, there)
        search.memory()
        search.carry(50 if plan.quick else 25)
        there.here.check_metered(search.whole, search.broken_off)


class Search:
    """The probes of one run; counts our own calls, to compare them with what was metered."""

    def __init__(self, report: Report, there: Track) -> None:
        self.whole = self.broken_off = 0
        self._report = report
        self._there = there
        self._ours = there.gateways["Ownkey"]
        self._direct: dict[int, Probe] = {}
        # By gateway: which numbers were too many, and whether for the load rather than for the gateway.
        self._too_many: dict[str, dict[int, bool]] = {}

    def memory(self) -> None:
        """Resident memory of a fresh worker, and at most while 500 streams are open."""
        table = self._report.table("Memory of a worker", "gateway", "idle, MiB", "500 open streams, MiB")
        for name, entrant in self._there.gateways.items():
            idle = memory_of(entrant.pid)
            busy = self._through(entrant, _MEMORY_STREAMS).memory
            table.row(name, f"{idle:.0f}", f"{busy:.0f}")
            self._report.figures[f"memory/{name}/idle"] = idle
            self._report.figures[f"memory/{name}/streams"] = busy
        table.remark("Resident memory with shared pages, of all a gateway's processes; with streams the highest seen.")

    def carry(self, step: int) -> None:
        """The largest number of streams that each gateway passes on in time."""
        table = self._report.table(
            f"Open streams of 100 chunks a second, {self._there.chunks * PERIOD:.0f} seconds long",
            "gateway, open streams",
            "median stream, s",
            "direct, s",
            "longer by",
            "CPU µs a chunk",
        )
        for name, entrant in self._there.gateways.items():
            too_many = self._too_many[name] = {}
            most = most_that_fit(partial(self._in_time, table, entrant), _FIRST, _MOST, step)
            self._report.figures[f"paced/{name}"] = most
            of_load = too_many[min(too_many)] if too_many else True
            bound = " (where the load itself falls behind: it may carry more)" if of_load else ""
            table.remark(f"{name} carries {most} streams within {_IN_TIME - 1:.0%} of direct{bound}.")

    def _in_time(self, table: Table, entrant: Entrant, count: int) -> bool:
        alone = self._there.chunks * PERIOD * _LOAD_IN_TIME
        if count not in self._direct:
            self._direct[count] = self._better(self._there.direct, count, alone)
        direct = self._direct[count].seconds
        if direct > alone:
            self._too_many[entrant.name][count] = True
            return False
        through = self._better(entrant, count, direct * _IN_TIME)
        longer = through.seconds / direct
        name = f"{entrant.name}, {count}"
        table.row(name, f"{through.seconds:.3f}", f"{direct:.3f}", f"{longer - 1:+.1%}", f"{through.cpu:.1f}")
        self._report.figures[f"paced cpu/{entrant.name}"] = through.cpu
        if longer > _IN_TIME:
            self._too_many[entrant.name][count] = False
        return longer <= _IN_TIME

    def _better(self, entrant: Entrant, count: int, enough: float) -> Probe:
        """A second try if the first took longer than that: another program may have disturbed it."""
        first = self._through(entrant, count)
        return first if first.seconds <= enough else min(first, self._through(entrant, count), key=_seconds)

    def _through(self, entrant: Entrant, count: int) -> Probe:
        probe = self._there.probe(entrant, count)
        if entrant is self._ours:
            self.whole += probe.ended
            self.broken_off += count - probe.ended
        return probe


def _seconds(probe: Probe) -> float:
    return probe.seconds


def _request(entrant: Entrant) -> str:
    """The request of one stream, as bytes on the wire."""
    url, body = urlsplit(entrant.url), json.dumps(nginx.STREAM_REQUEST)
    token = entrant.tokens.read_text().strip()
    return (
        f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
