"""Running seeds: each on an empty database, in this process or in as many as there are cores."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psycopg
from sqlalchemy import URL, create_engine, text

from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.metering import ledger
from ownkey.metering.ledger import Difference
from tests.simulation.clock import PostgresClock
from tests.simulation.oracle import Violation
from tests.simulation.walk import Walk

_KEPT = {"facts", "audit_end"}
_AT_ONCE = 50
_VERIFIED = 4  # every fourth seed: opening a database in the usual way takes as long as fifty steps


class Figures(NamedTuple):
    """What a number of seeds came to; ``violations`` name the seed."""

    seeds: int = 0
    steps: int = 0
    requests: int = 0
    transitions: int = 0
    violations: tuple[str, ...] = ()

    def and_also(self, other: Figures) -> Figures:
        """Both together."""
        return Figures(
            self.seeds + other.seeds,
            self.steps + other.steps,
            self.requests + other.requests,
            self.transitions + other.transitions,
            self.violations + other.violations,
        )

    def __str__(self) -> str:
        """One line for the end of a run."""
        counts = f"{self.seeds:,} seeds, {self.steps:,} steps, {self.requests:,} requests"
        return f"{counts}, {self.transitions:,} committed transitions, {len(self.violations)} violations"


def run(seed: int, url: URL, steps: int) -> Figures:
    """One seed on an empty database."""
    walk = Walk(seed, url)
    violations: tuple[str, ...] = ()
    try:
        walk.go(steps)
        if seed % _VERIFIED == 0 and (differences := asyncio.run(_verified(url))):
            violations = (f"seed {seed}: our own verification finds {differences[0]}",)
    except Violation as violation:
        violations = (str(violation),)
    finally:
        walk.world.take_down()
    oracle = walk.world.oracle
    return Figures(1, walk.world.steps, len(oracle.requests), oracle.transitions, violations)


async def _verified(url: URL) -> Sequence[Difference]:
    """What ``ownkey ledger verify`` says of books that the oracle found right."""
    database = Database(url, synchronous="OFF")
    try:
        return await ledger.verify(database)
    finally:
        await database.close()


def on_sqlite(template: Path, seeds: Iterable[int], steps: int) -> Figures:
    """Seeds in this process, each on a copy of a migrated file."""
    total = Figures()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ownkey.db")
        for seed in seeds:
            for old in Path(folder).iterdir():
                old.unlink()
            shutil.copy(template, file)
            total = total.and_also(run(seed, URL.create("sqlite", database=str(file)), steps))
    return total


def on_all_cores(template: Path, seeds: Sequence[int], steps: int) -> Figures:
    """The same, shared among processes."""
    parts = [seeds[start : start + _AT_ONCE] for start in range(0, len(seeds), _AT_ONCE)]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(on_sqlite, template, part, steps) for part in parts]
        total = Figures()
        for future in futures:
            total = total.and_also(future.result())
    return total


def on_postgres(url: URL, seeds: Iterable[int], steps: int) -> Figures:
    """Seeds one after the other in one migrated database, which is emptied in between."""
    total = Figures()
    prepare(url)
    for seed in seeds:
        total = total.and_also(run(seed, url, steps))
        empty(url)
    return total


def prepare(url: URL) -> None:
    """Give a PostgreSQL the virtual clock."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as db:
        PostgresClock.install(db)


def empty(url: URL) -> None:
    """Delete every row that a world made."""
    names = ", ".join(name for name in tables.metadata.tables if name not in _KEPT)
    engine = create_engine(url)
    with engine.begin() as tx:
        tx.execute(text(f"TRUNCATE {names} CASCADE"))
    engine.dispose()
