"""Added latency at one connection: beyond nginx's, and how much of that is the database's own commits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from ownkey.db.engine import sqlite_pragmas
from scripts.bench.contest import WARM_CONNECTIONS, Entrant, Load, Round, answered, compete, warm_up
from scripts.bench.installation import install
from scripts.bench.nginx import REQUEST
from scripts.bench.plan import Plan
from scripts.bench.processes import GATEWAY_CORE
from scripts.bench.report import Report, Table
from scripts.bench.throughput import payers, track

# Database pages that a lone call changes in its transactions. On the allowance: the balance and the reservation; then
# both again, and the event with its two indexes. On an own key: only the event, at the end.
_PAGES = {"allowance": (2, 5), "own key": (3,)}
_COMMITS = 400


def run(report: Report, plan: Plan) -> None:
    """Measure what one caller waits for, with and without us."""
    table = report.table(
        "Added latency, one connection",
        "gateway",
        "median, µs",
        "beyond nginx's, µs",
        "of which commits, µs",
        "without them, µs",
    )
    how = Load(REQUEST, 1, plan.rounds + 2, min(2.0, plan.seconds / 2))
    with track(plan.folder / "latency", "plain") as there:
        here = install(there.folder / "ownkey", there.provider)
        tokens = payers(here)
        with here.serving() as (url, pid):
            ours = [Entrant(payer, url, file, pid) for payer, file in tokens.items()]
            calls = warm_up([*ours], REQUEST)
            warm_up([there.nginx], REQUEST)
            results = compete([there.nginx, *ours], how)
            nginx = results["nginx"]
            table.row("nginx", f"{_p50(nginx):,.0f}", "", "", "")
            for payer in tokens:
                _show(report, table, there.folder, payer, results[payer], nginx)
        here.check_metered(
            calls + answered([results[payer] for payer in tokens]), len(ours) * (WARM_CONNECTIONS + how.rounds)
        )
    table.remark(
        "The commits are those of a bare SQLite file on the same disk, with the same settings and as many changed "
        "pages, measured in the same minute."
    )


def _show(
    report: Report, table: Table, folder: Path, payer: str, ours: Sequence[Round], theirs: Sequence[Round]
) -> None:
    added = statistics.median(one.counted.p50 - other.counted.p50 for one, other in zip(ours, theirs, strict=True))
    commits = sum(commit_time(folder, pages) for pages in _PAGES[payer])
    report.figures[f"latency/{payer}"] = added - commits
    table.row(
        f"Ownkey, {payer}", f"{_p50(ours):,.0f}", f"{added:,.0f}", f"{commits:,.0f}", f"**{added - commits:,.0f}**"
    )


def commit_time(folder: Path, pages: int) -> float:
    """The median microseconds that SQLite takes to make a transaction durable that changes so many pages."""
    path = folder / "commits.db"
    times = []
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(GATEWAY_CORE)})
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            for pragma in sqlite_pragmas("FULL"):
                database.execute(pragma)
            database.execute("CREATE TABLE IF NOT EXISTS pages (id INTEGER PRIMARY KEY, body BLOB)")
            # A row fills most of a page, so that no two share one.
            database.execute("DELETE FROM pages")
            database.executemany("INSERT INTO pages VALUES (?, ?)", [(n, os.urandom(3500)) for n in range(pages)])
            for _ in range(_COMMITS):
                database.execute("BEGIN IMMEDIATE")
                database.execute("UPDATE pages SET body = ?", (os.urandom(3500),))
                before = time.perf_counter()
                database.execute("COMMIT")
                times.append((time.perf_counter() - before) * 1e6)
    finally:
        os.sched_setaffinity(0, allowed)
    return statistics.median(times)


def _p50(rounds: Sequence[Round]) -> float:
    return statistics.median(one.counted.p50 for one in rounds)
