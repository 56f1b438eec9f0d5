"""Names that people give to things, and the short form for addresses made from them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from ownkey.errors import InvalidRequest

LONGEST_NAME = 100
# Letters and a symbol that show nothing.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# What joins or parts the characters around it, as Persian, the scripts of India and many emoji need it.
_JOINERS = re.compile("(?<=[^\x00-\x7f\u200c\u200d])[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d])")


def clean_name(text: str, what: str = "name") -> str:
    """``text`` without white space around it and with single spaces inside.

    Raises ``InvalidRequest`` when there is nothing to see, for more than 100 characters, and for characters that nobody
    sees or that turn the direction of text: with them two names look the same, or one reads as another.
    """
    name = re.sub(" {2,}", " ", unicodedata.normalize("NFC", text).strip())
    kinds = {mark: unicodedata.category(mark) for mark in _JOINERS.sub("", name)}
    if all(kind[0] in "MZ" for kind in kinds.values()):
        raise InvalidRequest(f"The {what} is empty.")
    if len(name) > LONGEST_NAME:
        raise InvalidRequest(f"The {what} is longer than {LONGEST_NAME} characters.")
    if not _BLANKS.isdisjoint(kinds) or not {"Cc", "Cf", "Cs", "Zl", "Zp"}.isdisjoint(kinds.values()):
        raise InvalidRequest(f"The {what} has a line break or another character that nobody sees.")
    return name


def slug_of(name: str, fallback: str) -> str:
    """``name`` as at most 40 lower-case letters, digits and hyphens; ``fallback`` when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or fallback


def free_slug(stem: str, taken: Collection[str]) -> str:
    """``stem``, or the first of ``stem-2``, ``stem-3``, … that is not taken."""
    slugs = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 2))]
    return next(slug for slug in slugs if slug not in taken)
