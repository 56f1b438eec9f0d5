"""What commands print: a table or a list of facts for people, one JSON document for programs, from the same data."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from ownkey import clock

_WORDS = {"id": "ID", "url": "link", "api": "API", "kek": "KEK"}
Document = Mapping[str, Any]
Json = Annotated[bool, Parameter("--json", help="Print one JSON document instead of a table.")]


def show(what: Document | Sequence[Document], as_json: bool, *, note: str = "") -> None:
    """Print a thing, or a list of things, on standard output. ``note`` is a sentence for people below it."""
    if as_json:
        print(to_json(what))
        return
    lines = _facts(what) if isinstance(what, Mapping) else _table(what)
    for line in lines:
        print(line)
    if note:
        print(f"\n{note}")


def warn(sentence: str) -> None:
    """Something the operator should know, beside a command that did its work."""
    print(f"Note: {_printable(' '.join(sentence.split()))}", file=sys.stderr)


def to_json(what: Document | Sequence[Document]) -> str:
    """One line of JSON; times as RFC 3339, in UTC."""
    return json.dumps(what, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    return clock.rfc3339(value) if isinstance(value, datetime) else str(value)


def _facts(thing: Document) -> Iterator[str]:
    rows = [(_heading(name), _text(value)) for name, value in _flat(thing)]
    width = max(_width(name) for name, _ in rows)
    for name, value in rows:
        yield f"{_padded(name, width)}  {value}".rstrip()


def _table(things: Sequence[Document]) -> Iterator[str]:
    if not things:
        yield "Nothing to list."
        return
    flat = [dict(_flat(thing)) for thing in things]
    names = list(flat[0])
    cells = [[_heading(name) for name in names]] + [[_text(row.get(name)) for name in names] for row in flat]
    numbers = [all(_is_number(row.get(name)) for row in flat) for name in names]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(names))]
    for row in cells:
        columns = zip(row, widths, numbers, strict=True)
        yield "  ".join(_padded(cell, width, right) for cell, width, right in columns).rstrip()


def _flat(thing: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in thing.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, value


def _heading(name: str) -> str:
    words = [_WORDS.get(word, word) for word in name.replace("_", " ").split()]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _text(value: Any) -> str:
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M UTC")
        case list() | tuple() | frozenset():
            return ", ".join(_text(item) for item in value) or "–"
    return _printable(str(value))


def _printable(text: str) -> str:
    # A name that somebody chose must not steer the operator's terminal.
    return "".join(character if character.isprintable() else "�" for character in text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
