"""Requests a second beside nginx: plain JSON and whole streams, on the allowance and on an own key."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench import nginx
from scripts.bench.contest import WARM_CONNECTIONS, Entrant, Round, answered, compete, middle_cpu, rate, ratios, warm_up
from scripts.bench.installation import Installation, install
from scripts.bench.plan import Plan
from scripts.bench.processes import GATEWAY_CORE, LOAD_CORE, free_port, running
from scripts.bench.report import Report, Table

BODIES: Mapping[str, Mapping[str, Any]] = {"plain": nginx.REQUEST, "stream": nginx.STREAM_REQUEST}
_TITLES = {"plain": "Plain JSON", "stream": "Whole streams of 102 events"}
_COLUMNS = (
    "whose key, connections",
    "nginx, requests/s",
    "Ownkey, requests/s",
    "ratio",
    "of the rounds",
    "CPU µs: nginx",
    "CPU µs: Ownkey",
    "its event loop",
    "its writer",
)


@dataclass(frozen=True, slots=True)
class Track:
    """The provider and nginx, running; what is compared with them comes beside them."""

    folder: Path
    provider: str
    nginx: Entrant


@contextmanager
def track(folder: Path, kind: str) -> Iterator[Track]:
    """A provider on the load's core that answers with this kind of reply, and nginx on the gateway's."""
    folder.mkdir()
    upstream, front = free_port(), free_port()
    tokens = folder / "nginx.tokens"
    tokens.write_text("sk-anything\n")
    with (
        running(nginx.provider(folder, upstream), LOAD_CORE, upstream),
        running(nginx.proxy(folder, front, upstream), GATEWAY_CORE, front) as pid,
    ):
        entrant = Entrant("nginx", f"http://127.0.0.1:{front}/{kind}/v1/chat/completions", tokens, pid)
        yield Track(folder, f"http://127.0.0.1:{upstream}/{kind}", entrant)


def payers(here: Installation) -> Mapping[str, Path]:
    """Two organizations: one on the allowance, one on an own key; by that, the files with their tokens."""
    return {
        "allowance": here.organization("allowance", own_key=False),
        "own key": here.organization("ownkey", own_key=True),
    }


def run(report: Report, plan: Plan, kind: str) -> None:
    """Measure one kind of reply."""
    table = report.table(_TITLES[kind], *_COLUMNS)
    body = BODIES[kind]
    with track(plan.folder / kind, kind) as there:
        here = install(there.folder / "ownkey", there.provider)
        tokens = payers(here)
        with here.serving() as (url, pid):
            ours = [Entrant(payer, url, file, pid) for payer, file in tokens.items()]
            calls, broken_off = warm_up(ours, body), WARM_CONNECTIONS * len(ours)
            warm_up([there.nginx], body)
            for connections in plan.connections:
                results = compete([there.nginx, *ours], plan.load(body, connections))
                for entrant in ours:
                    _show(report, table, kind, connections, entrant.name, results)
                calls += answered([results[entrant.name] for entrant in ours])
                broken_off += connections * plan.rounds * len(ours)
        here.check_metered(calls, broken_off)
    table.remark(f"All {calls:,} answered calls are in the database with the provider's figures.")


def _show(
    report: Report, table: Table, kind: str, connections: int, payer: str, results: Mapping[str, Sequence[Round]]
) -> None:
    theirs, ours = results["nginx"], results[payer]
    each = ratios(ours, theirs)
    report.figures[f"{kind}/{payer}/{connections}"] = statistics.median(each)
    cpu = middle_cpu(ours)
    table.row(
        f"{payer}, {connections}",
        f"{rate(theirs):,.0f}",
        f"{rate(ours):,.0f}",
        f"**{statistics.median(each):.2f}**",
        ", ".join(f"{ratio:.2f}" for ratio in each),
        f"{middle_cpu(theirs).total:.1f}",
        f"{cpu.total:.1f}",
        f"{cpu.main:.1f}",
        f"{cpu.second:.1f}",
    )
