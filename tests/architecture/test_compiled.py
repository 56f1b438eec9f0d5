"""The modules that are compiled for production, and that a run which tests them has them."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.architecture.source import PROJECT, modules

COMPILED: Sequence[str] = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["ownkey"]["compiled"]
THIS_RUN_IS_COMPILED = os.environ.get("OWNKEY_COMPILED") == "1"


def path_of(module: str) -> str:
    """A module's path below ``src/ownkey``."""
    return f"{module.removeprefix('ownkey.').replace('.', '/')}.py"


def breaches(tree: ast.Module) -> Iterator[str]:
    """What the compiler makes something else of than the interpreter does."""
    for found in ast.walk(tree):
        if not isinstance(found, ast.ClassDef):
            continue
        if any(ast.unparse(base) == "msgspec.Struct" for base in found.bases):
            yield f"{found.name} is a shape of msgspec"
        plain = not found.decorator_list and not any(ast.unparse(base) == "NamedTuple" for base in found.bases)
        for line in found.body if plain else ():
            value = line.value if isinstance(line, ast.AnnAssign | ast.Assign) else None
            if isinstance(value, ast.Name):
                yield f"{found.name} has a default, {value.id}, that is no literal: set it in __init__"


def test_what_is_compiled_can_be() -> None:
    """A module on the list exists, has no class that its library makes at run time, and no default by name.

    The compiler takes both without a word and makes objects that lack something.
    """
    assert sorted(set(COMPILED)) == list(COMPILED)
    trees = {module: modules()[path_of(module)] for module in COMPILED}
    assert [f"{module}: {breach}" for module, tree in trees.items() for breach in breaches(tree)] == []


def test_no_library_lies_beside_the_source() -> None:
    """The source's folder holds no compiled module: it would be run in place of the source, whatever that says now."""
    assert [str(path) for path in (PROJECT / "src").rglob("*.so")] == []


@pytest.mark.skipif(not THIS_RUN_IS_COMPILED, reason="this run is of the source")
def test_this_run_is_of_the_compiled_modules() -> None:
    """Where OWNKEY_COMPILED=1 says so, every module on the list is machine code in ``build/compiled``."""
    origins = [Path(str(importlib.import_module(module).__file__)) for module in COMPILED]
    assert [origin for origin in origins if origin.suffix != ".so"] == []
    assert {origin.is_relative_to(PROJECT / "build" / "compiled") for origin in origins} == {True}


def test_the_version_says_which_build_it_is(tmp_path: Path) -> None:
    """``ownkey --version`` tells, and a process that a test starts has the build that the test has."""
    done = subprocess.run(
        [sys.executable, "-m", "ownkey", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{version('ownkey')} ({'compiled' if THIS_RUN_IS_COMPILED else 'interpreted'})"
