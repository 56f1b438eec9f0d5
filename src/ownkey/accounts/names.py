"""Names that people give to things, and the short form for addresses made from them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from ownkey.errors import InvalidRequest

LONGEST_NAME = 100
# Marks that turn the direction of text: a name that holds one can read as something else.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def clean_name(text: str, what: str = "name") -> str:
    """``text`` without white space around it and with single spaces inside.

    Raises ``InvalidRequest`` when nothing is left, for more than 100 characters and for control characters.
    """
    name = re.sub(" {2,}", " ", unicodedata.normalize("NFC", text).strip())
    if not name:
        raise InvalidRequest(f"Write a {what}.")
    if len(name) > LONGEST_NAME:
        raise InvalidRequest(f"The {what} is longer than {LONGEST_NAME} characters.")
    if any(unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp") or mark in _DIRECTION_MARKS for mark in name):
        raise InvalidRequest(f"The {what} has a line break or another control character.")
    return name


def slug_of(name: str, fallback: str) -> str:
    """``name`` as at most 40 lower-case letters, digits and hyphens; ``fallback`` when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or fallback


def free_slug(stem: str, taken: Collection[str]) -> str:
    """``stem``, or the first of ``stem-2``, ``stem-3``, … that is not taken."""
    slugs = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 2))]
    return next(slug for slug in slugs if slug not in taken)
