"""``python -m scripts.bench``: measure, print, and write the page."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import httpx

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
_ROOT = Path(__file__).parents[2]
_PROGRAMS = ("nginx", "wrk", "taskset")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=f"{', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="few short rounds, in about five minutes")
    parser.add_argument("--no-page", action="store_true", help="print only; so does --only")
    parser.add_argument("--interpreted", action="store_true", help="the source as it is, not what is made of it")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn (3)")
    parser.add_argument("--seconds", type=float, help="how long a turn is (4)")
    parser.add_argument("--connections", type=int, nargs="+", help="of plain JSON and whole streams (1 64 256)")
    return parser.parse_args()


def prepare() -> None:
    """Raise ``SystemExit`` where the benchmark cannot run, and warn where it should not."""
    os.environ["PATH"] += ":/usr/sbin"  # where nginx is, and where not everybody looks
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing or (os.cpu_count() or 1) < 2:
        raise SystemExit(f"The benchmark needs two cores and these programs: {', '.join(missing or _PROGRAMS)}.")
    if os.getloadavg()[0] > 0.7:
        print(f"Other programs are busy here (load {os.getloadavg()[0]:.1f}): ratios will be noisy, times worthless.")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends with us


def use_compiled() -> None:
    """Have every process of ours run the compiled build."""
    subprocess.run([_ROOT / "scripts" / "compile"], check=True)
    os.environ["PYTHONPATH"] = str(_ROOT / "build" / "compiled")


def measure(report: Report, plan: Plan, names: Iterable[str]) -> bool:
    """Whether everything could be measured; what failed says so in its own place, and the rest goes on."""
    good = True
    for name in names:
        try:
            MEASUREMENTS[name](report, plan)
        except (RuntimeError, OSError, httpx.HTTPError) as error:
            report.table(f"Failed: {name}").remark(" ".join(f"{type(error).__name__}: {error}".split()))
            good = False
    return good


def main() -> None:
    """Measure what was asked for."""
    asked = arguments()
    prepare()
    if not asked.interpreted:
        use_compiled()
    report = Report()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ownkey-bench-") as folder:
        plan = Plan(
            Path(folder),
            rounds=asked.rounds or (1 if asked.quick else 3),
            seconds=asked.seconds or (2 if asked.quick else 4),
            connections=tuple(asked.connections or ((1, 64) if asked.quick else (1, 64, 256))),
            quick=asked.quick,
        )
        good = measure(report, plan, asked.only or MEASUREMENTS)
    print(f"\n{page.goal_table(report)}")
    minutes = (time.monotonic() - started) / 60
    how = f"{plan.rounds} rounds of {plan.seconds:g} seconds each; {minutes:.0f} minutes in all."
    print(how)
    if not asked.no_page and not asked.only:
        page.PAGE.write_text(page.write(report, how), encoding="utf-8")
        print(f"Written to {page.PAGE}.")
    sys.exit(not good)


if __name__ == "__main__":
    main()
