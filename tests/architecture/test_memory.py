"""What a serving process holds: only what serving needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL

# Each costs a worker a megabyte or more, some with what comes along, for as long as it lives.
NEEDLESS: Mapping[str, str] = {
    "genai_prices": "knows prices; asked in a process of its own",
    "aiosmtplib": "sends a message; loaded with the first one",
    "alembic": "`ownkey serve` updates the database before it becomes the worker",
    "cyclopts": "the worker is told what to do in three words",
    "cryptography": "signs for a service account; loaded with the first one",
    "httpx": "asks a provider about a key; loaded with the first question",
    "joserfc": "signs for a service account; loaded with the first one",
    "mako": "comes with Alembic",
    "markdown_it": "shows what a model wrote; loaded with the first text",
    "nh3": "the same",
    "psycopg": "PostgreSQL's driver, and this is SQLite",
    "psycopg_binary": "the same",
    "rich": "colours lines, and a worker's are JSON",
    "sqlalchemy.dialects.postgresql": "PostgreSQL's words, and this is SQLite",
}
PROGRAM = """
import asyncio, sys
from ownkey.cli.worker import spare_colours
spare_colours()
from ownkey import app, logs
from ownkey.cli.configuration import configured

async def main():
    settings = configured()
    logs.set_up(settings.log_level)
    async with await app.open_application(settings) as application:
        app.server(application)
        print(*[name for name, module in sys.modules.items() if module is not None])

asyncio.run(main())
"""


def test_a_worker_holds_only_what_serving_needs(tmp_path: Path, sqlite_url: URL) -> None:
    """Of a started worker on the embedded database none of the heavy modules is loaded that it may never need.

    They would stay in its memory, which an operator pays for once for each worker. Load such a module where it is
    first used, or do what needs it before the process becomes a worker.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        env={**os.environ, "OWNKEY_DATABASE_URL": f"sqlite:///{sqlite_url.database}", "OWNKEY_DATA_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"ownkey.app", "ownkey.metering.sqlite_store"} <= loaded
    assert sorted(loaded & NEEDLESS.keys()) == []
