"""Whatever happens, in any order, the books are what providers and clients saw."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.gateway.scale import PROVING, scaled
from tests.simulation import seeds
from tests.simulation.seeds import Figures

STEPS = 200
ONLY = os.environ.get("SIMULATION_SEED")  # one alone, to see again what it does
PARTS = scaled(20, 10)


def chosen(number: int, part: int = 0) -> range:
    """The seeds to run."""
    return range(int(ONLY), int(ONLY) + 1) if ONLY else range(part * number, (part + 1) * number)


def report(figures: Figures, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Print what was done, and fail with the first violations."""
    with capsys.disabled():
        if PROVING:
            print(f"\nsimulation on {where}: {figures}")
    assert figures.violations == (), "\n".join(figures.violations[:5])


@pytest.mark.prove
@pytest.mark.timeout(7_200 if PROVING else 300)
@pytest.mark.parametrize("part", range(PARTS))
def test_seeds_on_sqlite(sqlite_template: Path, part: int, capsys: pytest.CaptureFixture[str]) -> None:
    """I1 to I12 hold at every committed state of every seed, on one to four nodes and one SQLite file."""
    run = seeds.on_all_cores if PROVING and not ONLY else seeds.on_sqlite
    report(run(sqlite_template, chosen(scaled(100, 10_000), part), STEPS), "SQLite", capsys)


@pytest.mark.prove
@pytest.mark.timeout(7_200 if PROVING else 300)
def test_seeds_on_postgres(postgres_url: URL, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on PostgreSQL."""
    report(seeds.on_postgres(postgres_url, chosen(scaled(6, 2_000)), STEPS), "PostgreSQL", capsys)


def test_a_seed_is_all_there_is_to_a_run(sqlite_template: Path) -> None:
    """A seed run twice does the same to the last transition; another one does something else."""
    first, again, other = (seeds.on_sqlite(sqlite_template, [seed], 60) for seed in (3, 3, 4))
    assert first == again
    assert first != other
