"""``docs/benchmarks.md``: the goals first, then every table, the machine, the method, and how to run it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from scripts.bench import goals
from scripts.bench.report import Report, line

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_LIBRARIES = ("uvloop", "httptools", "msgspec", "psycopg")
_METHOD = """
## Method

- The gateway under test is alone on one core; the load (wrk) and the provider (nginx with a fixed reply, or a small
  program that writes each stream's chunks on time) share another. Loopback, plain HTTP.
- Every gateway has one worker. nginx replaces the credential and passes everything on unbuffered: the physical limit.
  Ours is the build named above, with everything on: token, role and key version read for each call; a durable
  reservation and settlement (`synchronous=FULL`); a usage event before the last bytes leave. Other gateways run in a
  plain configuration without a database or a log of calls.
- Who is compared takes turns, seconds apart, under the same load, and the first to go changes from round to round.
  What counts is the median of the rounds' ratios: an absolute figure says more about the machine than about the
  program.
- The CPU time of a call is that of all threads and processes of a gateway, from `/proc`: the figure least touched by
  noise. PostgreSQL's is shown beside.
- Requests have 0.9 KB; replies 1.2 KB of JSON with `usage`, or 102 events and 22 KB.
- After each measurement the database is compared with what the load counted: every answered call must be there with
  the provider's own figures, all charges in the balances, and nothing still held. Otherwise the run fails.
- Open streams: each gets a chunk every 10 ms; the streams begin within one second. The number is the largest at which
  the median stream takes at most 3 % longer than the same number read directly from the provider.

## Run it yourself

```sh
make bench-peers                                  # once, if other gateways are to be measured, too
make bench                                        # everything, in some 25 minutes; writes this page
make bench ARGS="--quick --no-page"               # few short rounds, in about five minutes
make bench ARGS="--interpreted --no-page"         # the source as it is; else it is compiled first
make bench ARGS="--only plain --connections 64 --seconds 3 --no-page"
```

It needs two cores, and nginx and wrk, which it installs from Debian as root. Nothing leaves the machine. Let nothing
else run meanwhile.
"""


def write(report: Report, how: str) -> str:
    """The page of a run. ``how`` says how long it measured."""
    return "\n".join(
        [
            "# Benchmarks\n",
            f"Written by `make bench` on {time.strftime('%Y-%m-%d', time.gmtime())}. {how}\n",
            goal_table(report),
            *(table.markdown() for table in report.tables),
            "## Machine and versions\n",
            *(f"- {fact}" for fact in facts()),
            _METHOD.rstrip(),
            "",
        ]
    )


def goal_table(report: Report) -> str:
    """What was aimed at, and what was measured at 64 connections unless a row says otherwise."""
    head = ("what", "floor", "goal", "measured", "verdict")
    return "\n".join(
        [
            "## Goals\n",
            line(head),
            line(("---", "---:", "---:", "---:", "---")),
            *map(line, goals.rows(report.figures)),
            "",
            "At 64 connections, or one where latency is measured; with every promise on.\n",
        ]
    )


def facts() -> Sequence[str]:
    """What was measured on, and with."""
    with open("/proc/cpuinfo") as file:
        model = next((entry.split(":", 1)[1].strip() for entry in file if entry.startswith("model name")), "unknown")
    program = str(Path(sys.executable).parent / "ownkey")
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{os.cpu_count()} cores of {model}; {_memory()} GiB; Linux {platform.release()}",
        f"Ownkey {_said(program, '--version')}; Python {platform.python_version()}; {libraries}",
        f"SQLite {sqlite3.sqlite_version}; {_said('nginx', '-v')}; {_said('wrk', '-v')}",
    )


def _memory() -> int:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _said(*command: str) -> str:
    """The first line of what a program says of its version, on either output."""
    if shutil.which(command[0]) is None:
        return f"no {command[0]}"
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0].split(" Copyright")[0].removeprefix("nginx version: ")
