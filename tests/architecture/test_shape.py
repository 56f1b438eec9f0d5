"""The shape of the code: sizes, names, docstrings. Maxima, not averages: a long tail is where code goes bad."""

from __future__ import annotations

import ast

from tests.architecture.source import SOURCE, modules

MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_PACKAGE_DOCSTRING = 25
# Names that say nothing, so that anything may end up there.
EMPTY_NAMES = {"base", "common", "core", "handler", "helper", "helpers", "manager", "misc", "util", "utils"}


def test_modules_are_short() -> None:
    """A module has at most 400 lines; one that grows becomes a package of the same name."""
    lines = {name: len((SOURCE / name).read_text(encoding="utf-8").splitlines()) for name in modules()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_MODULE} == {}


def test_functions_are_short() -> None:
    """A function has at most 60 lines, its docstring included."""
    long = {}
    for name, module in modules().items():
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long[f"{name}: {node.name}"] = lines
    assert long == {}


def test_names_say_something() -> None:
    """No module or package has a name that fits everything."""
    parts = {part for name in modules() for part in name.removesuffix(".py").split("/")}
    assert parts & EMPTY_NAMES == set()


def test_text_is_read_as_utf_8() -> None:
    """What a file of the operator's says does not depend on the locale of the machine."""
    calls = [
        (path, call)
        for path, tree in modules().items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("read_text", "write_text")
    ]
    without = [(path, call.lineno) for path, call in calls if "encoding" not in {word.arg for word in call.keywords}]
    assert calls
    assert without == []


def test_every_module_says_what_it_is() -> None:
    """Every module has a docstring, private ones too."""
    assert [name for name, module in modules().items() if not ast.get_docstring(module)] == []


def test_packages_say_what_they_own_and_do_nothing() -> None:
    """An ``__init__.py`` is a docstring of at most 25 lines, and no code: importing a package runs nothing."""
    for name, module in modules().items():
        if name.endswith("__init__.py"):
            assert len(module.body) == 1, f"{name} has code"
            length = len((ast.get_docstring(module) or "").splitlines())
            assert 0 < length <= MOST_LINES_OF_A_PACKAGE_DOCSTRING, name


def test_every_folder_of_code_is_a_package() -> None:
    """A folder with modules has an ``__init__.py``: without it the import contracts would not see them."""
    folders = {path.parent for path in SOURCE.rglob("*.py") if "migrations" not in path.parts}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
