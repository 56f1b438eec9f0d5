"""Whole numbers on the command line: digits, and nothing that somebody could read differently."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cyclopts import Parameter, Token
from cyclopts.validators import Number

_DIGITS = re.compile(r"[0-9]+(_[0-9]+)*")


def whole(help: str, *, least: int = 0, most: int | None = None) -> Parameter:
    """An option that takes a whole number between two bounds, both included; ``1_000`` is 1000."""
    return Parameter(converter=_read, validator=Number(gte=least, lte=most), help=help)


def _read(kind: object, tokens: Sequence[Token]) -> int:
    # cyclopts itself would round 1.5, which in some countries is how 1,500 begins, and read 0x10 as 16.
    text = tokens[0].value
    if not _DIGITS.fullmatch(text):
        raise ValueError("It takes a whole number in digits, as 1500 or 1_500.")
    return int(text)
