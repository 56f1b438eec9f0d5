"""``python -m scripts.bench``: measure, print, and write the page."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from scripts.bench import latency, organizations, paced, page, postgres, side_by_side, throughput
from scripts.bench.plan import Plan
from scripts.bench.report import Report

Measurement = Callable[[Report, Plan], None]
MEASUREMENTS: Mapping[str, Measurement] = {
    "plain": partial(throughput.run, kind="plain"),
    "stream": partial(throughput.run, kind="stream"),
    "paced": paced.run,
    "latency": latency.run,
    "postgres": postgres.run,
    "organizations": organizations.run,
    "peers": side_by_side.run,
}
_PROGRAMS = ("nginx", "wrk", "taskset")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=f"{', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="few short rounds, in about five minutes")
    parser.add_argument("--no-page", action="store_true", help="print only; so does --only")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn (3)")
    parser.add_argument("--seconds", type=float, help="how long a turn is (4)")
    parser.add_argument("--connections", type=int, nargs="+", help="of plain JSON and whole streams (1 64 256)")
    return parser.parse_args()


def main() -> None:
    """Measure what was asked for."""
    asked = arguments()
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing or (os.cpu_count() or 1) < 2:
        raise SystemExit(f"The benchmark needs two cores and these programs: {', '.join(missing or _PROGRAMS)}.")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = Report()
    with tempfile.TemporaryDirectory(prefix="ownkey-bench-") as folder:
        plan = Plan(
            Path(folder),
            rounds=asked.rounds or (1 if asked.quick else 3),
            seconds=asked.seconds or (2 if asked.quick else 4),
            connections=tuple(asked.connections or ((1, 64) if asked.quick else (1, 64, 256))),
            quick=asked.quick,
        )
        for name in asked.only or MEASUREMENTS:
            MEASUREMENTS[name](report, plan)
    print(f"\n{page.goal_table(report)}")
    if not asked.no_page and not asked.only:
        how = f"{plan.rounds} rounds of {plan.seconds:g} seconds each."
        page.PAGE.write_text(page.write(report, how), encoding="utf-8")
        print(f"Written to {page.PAGE}.")


if __name__ == "__main__":
    main()
