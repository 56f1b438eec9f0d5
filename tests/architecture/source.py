"""Where the code lies, for the tests that read it instead of running it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "src" / "ownkey"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the product by its path below ``src/ownkey``, parsed; without written-down migrations."""
    history = SOURCE / "db" / "migrations" / "versions"
    return {
        str(path.relative_to(SOURCE)): ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for path in sorted(SOURCE.rglob("*.py"))
        if history not in path.parents
    }
