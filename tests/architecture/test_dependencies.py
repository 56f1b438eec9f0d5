"""What we stand on: declared, locked with hashes, not older than it may be."""

from __future__ import annotations

import ast
import json
import re
import sys
import sysconfig
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.source import PROJECT, modules

# Versions below these have a known hole.
FLOORS = {"h11": "0.16.0", "starlette": "1.0.1", "urllib3": "2.7.0"}

_LOCKED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ]+).*\\\n(?P<hashes>(?: +--hash=.*\n)+)", re.MULTILINE
)


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def _runtime() -> list[Requirement]:
    return [Requirement(line) for line in _pyproject()["project"]["dependencies"]]


def _development() -> list[Requirement]:
    groups = _pyproject()["dependency-groups"]
    return [Requirement(line) for group in groups.values() for line in group if isinstance(line, str)]


def _locked(file: str) -> dict[str, Version]:
    """Names and versions in a lock file; raises ``AssertionError`` for a line that is not pinned with a hash."""
    text = (PROJECT / file).read_text(encoding="utf-8")
    found = {match["name"]: Version(match["version"]) for match in _LOCKED.finditer(text)}
    assert re.sub(r"^#.*\n", "", _LOCKED.sub("", text), flags=re.MULTILINE) == "", f"{file}: not pinned with a hash"
    return found


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-runtime.lock"])
def test_the_lock_has_what_is_declared(file: str) -> None:
    """Each lock has every declared dependency, in a version that the declaration allows."""
    locked = _locked(file)
    for wanted in _runtime() + (_development() if file == "requirements.lock" else []):
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted.name} is not in {file}: make lock"
        assert version in wanted.specifier, f"{wanted} does not allow the locked {version}: make lock"


def test_the_runtime_lock_is_a_part_of_the_whole() -> None:
    """What is tested is what runs: both locks have the same versions."""
    assert _locked("requirements-runtime.lock").items() <= _locked("requirements.lock").items()


def test_no_version_with_a_known_hole() -> None:
    """The lock keeps to the floors below which a version has a known hole."""
    locked = _locked("requirements.lock")
    assert {name: str(locked[name]) for name, floor in FLOORS.items() if locked[name] < Version(floor)} == {}


def test_the_bill_of_materials_is_what_runs() -> None:
    """It names the packages of the runtime lock, each in its version, by the address that scanners look for."""
    bill = json.loads((PROJECT / "sbom.cdx.json").read_text(encoding="utf-8"))
    locked = {name: str(version) for name, version in _locked("requirements-runtime.lock").items()}
    assert {part["name"]: part["version"] for part in bill["components"]} == locked, "make lock"
    assert {part["purl"] for part in bill["components"]} == {f"pkg:pypi/{name}@{locked[name]}" for name in locked}


def test_no_package_runs_when_the_interpreter_starts() -> None:
    """No ``.pth`` of the environment has code in it, but that of the build backend, which stands in for distutils."""
    found = {
        file.name
        for file in Path(sysconfig.get_path("purelib")).glob("*.pth")
        if re.search(r"^import[ \t]", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found <= {"distutils-precedence.pth"}


def test_what_is_imported_is_declared() -> None:
    """The product imports only what it declares, extras included; nothing that comes along with something else."""
    extras = [
        Requirement(line) for lines in _pyproject()["project"]["optional-dependencies"].values() for line in lines
    ]
    declared = {canonicalize_name(requirement.name) for requirement in _runtime() + extras}
    standard = sys.stdlib_module_names | {"compression"}  # since Python 3.14
    distributions = packages_distributions()
    undeclared = set()
    for file, module in modules().items():
        for name in _imported(module) - standard - {"ownkey"}:
            if not {canonicalize_name(distribution) for distribution in distributions.get(name, [name])} & declared:
                undeclared.add(f"{file}: {name}")
    assert undeclared == set()


def _imported(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
