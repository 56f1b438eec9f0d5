"""The simulator sees: what is broken on purpose is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.simulation import seeds
from tests.simulation.mutations import MORE, SEEDED, Mutation

MOST_SEEDS = 40


def seeds_until_caught(mutation: Mutation, template: Path, folder: Path) -> tuple[int, str]:
    """How many seeds it takes, and what the oracle says; none of the first forty: 0."""
    file = folder / "mutated.db"
    shutil.copy(template, file)
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch, file)
        for seed in range(MOST_SEEDS):
            if found := seeds.on_sqlite(file, [seed], 200).violations:
                return seed + 1, found[0]
    return 0, ""


@pytest.mark.prove
def test_five_of_five_seeded_mutations_are_caught(
    sqlite_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No guard, no unique index, a sum for the last, no renewal, the wrong month: each within forty seeds."""
    caught = {name: seeds_until_caught(mutation, sqlite_template, tmp_path) for name, mutation in SEEDED.items()}
    with capsys.disabled():
        print(f"\n{sum(number > 0 for number, _ in caught.values())} of {len(SEEDED)} mutations caught")
        for name, (number, said) in caught.items():
            print(f"  {name}: after {number} seeds; {said}")
    assert len(caught) == 5
    assert [name for name, (number, _) in caught.items() if not number] == []


@pytest.mark.parametrize("name", MORE)
def test_other_mutations_are_caught(name: str, sqlite_template: Path, tmp_path: Path) -> None:
    """Nor does anything else that the invariants forbid go unseen."""
    assert seeds_until_caught(MORE[name], sqlite_template, tmp_path)[0] > 0
