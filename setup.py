"""With ``OWNKEY_COMPILE=1`` the modules that a request passes through are compiled to machine code, by mypyc.

Which ones, and how to choose, stands in ``pyproject.toml``, as everything else about the package does. The compiler
reads the types of what we import, so this builds in an environment that has all of it: ``scripts/compile`` does, and
``pip wheel --no-build-isolation`` in the environment that ``scripts/bootstrap all`` makes.
"""

from __future__ import annotations

import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

_GENERATED = "build/generated"


def extensions() -> list[Extension]:
    """The compiled modules; none unless they are asked for."""
    if os.environ.get("OWNKEY_COMPILE", "0") in ("", "0"):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise SystemExit(
            "OWNKEY_COMPILE=1 needs mypy and what Ownkey imports: run `scripts/bootstrap all`, then "
            "`OWNKEY_COMPILE=1 .venv/bin/pip wheel --no-deps --no-build-isolation .`"
        ) from None
    modules = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["ownkey"]["compiled"]
    paths = [f"src/{name.replace('.', '/')}.py" for name in modules]
    # A file of C for each module, so that several are compiled at once; a cache apart from that of the check.
    made: list[Extension] = mypycify(
        [f"--cache-dir={_GENERATED}/types", *paths],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        target_dir=_GENERATED,
        group_name="ownkey",
    )
    return made


class Compile(build_ext):
    """Compiles as many files at once as there are processors: one library has nearly all of them."""

    def build_extensions(self) -> None:
        """Build all, with a compiler that takes the files of each by several threads."""
        workers = self.parallel = os.cpu_count() or 1
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], *arguments: Any, **named: Any) -> list[str]:
            with ThreadPoolExecutor(workers) as pool:
                done = pool.map(lambda source: compile_all([source], *arguments, **named), sources)
                return [made for each in done for made in each]

        self.compiler.compile = compile_each
        super().build_extensions()


setup(ext_modules=extensions(), cmdclass={"build_ext": Compile})
