"""Names and the short forms made from them."""

from __future__ import annotations

import pytest

from ownkey.accounts.names import clean_name, slug_of
from ownkey.errors import InvalidRequest


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        *((" Acme ", "Acme"), ("A   B", "A B"), ("Café 🚀", "Café 🚀"), ("x" * 100, "x" * 100)),
        # A word of Persian that a non-joiner parts, and an emoji that joiners make of four.
        *((name, name) for name in ("می\u200cروم", "👩\u200d❤\ufe0f\u200d💋\u200d👨", "प्रबंधन", "東京")),
    ],
)
def test_a_name_is_kept_as_typed_but_for_spare_spaces(typed: str, kept: str) -> None:
    """White space around a name and doubled spaces in it go; everything else stays."""
    assert clean_name(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        *("", "   ", "a\nb", "a\tb", "a\x00b", "a\u202eb", "a\u2028b", "x" * 101, "\u0301", "\u200d"),
        *(f"Acme{mark}" for mark in "\u00ad\u061c\u200b\u200c\u200d\u2060\u2800\u3164\ufeff\U000e0041"),
        *("\u200b", "\u3164", "\u2800", "Ac\u200dme", "می\u200c\u200cروم", "می\u200c روم"),
    ],
)
def test_a_name_that_would_deceive_or_break_a_line_is_refused(typed: str) -> None:
    """Nothing to see, too much, and characters that nobody sees or that turn the direction of text are no name."""
    with pytest.raises(InvalidRequest):
        clean_name(typed)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Acme", "acme"),
        ("Acme & Söhne GmbH", "acme-sohne-gmbh"),
        ("  --  ", "fallback"),
        ("東京", "fallback"),
        ("x" * 60, "x" * 40),
        ("../etc", "etc"),
    ],
)
def test_a_slug_has_only_letters_digits_and_hyphens(name: str, slug: str) -> None:
    """A slug is safe in an address and never empty."""
    assert slug_of(name, "fallback") == slug
