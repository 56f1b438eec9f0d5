"""Nothing in the repository is about one machine: no path of it, no package index it happens to use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import PROJECT

# Written so that this file does not contain what it looks for.
_INDEXES = ("pypi[.]org", "python[h]osted[.]org", "npm[j]s[.]", "deb[.]debian[.]", "security[.]debian[.]")
_FOLDERS = ("home", "root", "work", "Users", "tmp", "opt")
FOREIGN = re.compile("|".join(_INDEXES) + "|" + rf"(?<![\w.<>}})~*-])/(?:{'|'.join(_FOLDERS)})/[\w.]")

_GENERATED = {"__pycache__", "build", "data", "dist", "test-results"}
_KEPT_DOT_FOLDERS = {".ci", ".github"}


def _files() -> Iterator[Path]:
    """The project's own files; found without git, which a fresh machine may lack."""
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = [
            name
            for name in folders
            if name not in _GENERATED and (not name.startswith(".") or name in _KEPT_DOT_FOLDERS)
        ]
        # uv.lock is not kept, because it has these very addresses.
        yield from (Path(folder, name) for name in names if name != "uv.lock" and not name.endswith((".db", ".pyc")))


def test_nothing_is_about_one_machine() -> None:
    """No file names a package index or an absolute path into somebody's folders."""
    found = []
    for file in _files():
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if match := FOREIGN.search(line):
                found.append(f"{file.relative_to(PROJECT)}:{number}: {match[0]}")
    assert found == []
