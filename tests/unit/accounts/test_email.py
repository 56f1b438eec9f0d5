"""The one spelling of an e-mail address."""

from __future__ import annotations

import pytest

from ownkey.accounts.users import normal_email
from ownkey.errors import InvalidRequest


@pytest.mark.parametrize(
    "typed",
    ["ann@example.com", " ann@example.com\n", "ANN@Example.COM", "\uff41nn@example.com", "ann\uff20example.com"],
)
def test_one_account_has_one_spelling(typed: str) -> None:
    """Case, width and white space around make no other account."""
    assert normal_email(typed) == "ann@example.com"


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "a b@example.com",
        "ann@exa mple.com",
        "ann@x@y",
        "ann\r\n@example.com",
        "ann@example.com\x00",
        "Ann <ann@example.com>",
        "a" * 250 + "@example.com",
        "ann@-example.com",
        "a\u202e@b.com",
    ],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    """An address has one @ with something on both sides, and nothing that breaks a line or a header."""
    with pytest.raises(InvalidRequest):
        normal_email(typed)
