"""Names and the short forms made from them."""

from __future__ import annotations

import pytest

from ownkey.accounts.names import clean_name, slug_of
from ownkey.errors import InvalidRequest


@pytest.mark.parametrize(
    ("typed", "kept"), [(" Acme ", "Acme"), ("A   B", "A B"), ("Café 🚀", "Café 🚀"), ("x" * 100, "x" * 100)]
)
def test_a_name_is_kept_as_typed_but_for_spare_spaces(typed: str, kept: str) -> None:
    """White space around a name and doubled spaces in it go; everything else stays."""
    assert clean_name(typed) == kept


@pytest.mark.parametrize("typed", ["", "   ", "a\nb", "a\tb", "a\x00b", "a\u202eb", "a\u2028b", "x" * 101])
def test_a_name_that_would_deceive_or_break_a_line_is_refused(typed: str) -> None:
    """Nothing, too much, control characters and marks that turn the direction of text are no name."""
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
