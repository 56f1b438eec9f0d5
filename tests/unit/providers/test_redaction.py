"""A key is taken out of whatever a provider says, in every form it may have there."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.credentials import Secret
from ownkey.providers.redaction import redact, redact_text

KEY = 'sk-proj-A/b+c"d\\e_f-0123456789 ü'
SECRET = Secret(KEY)

FORMS = {
    "as it is": KEY.encode(),
    "JSON": json.dumps(KEY).encode(),
    "JSON with slashes escaped": json.dumps(KEY).replace("/", "\\/").encode(),
    "JSON in UTF-8": json.dumps(KEY, ensure_ascii=False).encode(),
    "URL": quote(KEY, safe="").encode(),
    "URL in lower case": quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b").encode().lower(),
    "form": quote_plus(KEY).encode(),
    "base64": base64.b64encode(KEY.encode()),
    "base64 after one byte": base64.b64encode(b":" + KEY.encode()),
    "base64 after two bytes": base64.b64encode(b"u:" + KEY.encode() + b"\n"),
    "base64url": base64.urlsafe_b64encode(KEY.encode()),
    "hexadecimal": KEY.encode().hex().encode(),
    "HEXADECIMAL": KEY.encode().hex().upper().encode(),
    "UTF-16": KEY.encode("utf-16-le"),
}


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"URL in lower case"}))
def test_every_form_is_replaced(form: str) -> None:
    """No form of the key survives, and what stands around it stays."""
    said = b'{"error": "you sent ' + FORMS[form] + b' to us"}'
    redacted = redact(said, SECRET)
    assert FORMS[form] not in redacted
    assert b"[redacted]" in redacted
    assert redacted.startswith(b'{"error": "you sent ')
    assert redacted.endswith(b' to us"}')


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("length", [20, 21, 22])
def test_nothing_of_the_key_is_left_in_base64(shift: int, length: int) -> None:
    """Inside a longer base64 text the whole run of characters that carry the key goes."""
    key = "k9Q" * 7 + "z"
    key = key[:length]
    encoded = base64.b64encode(b"x" * shift + key.encode() + b"!" * 3)
    left = redact(b"<" + encoded + b">", Secret(key)).replace(b"[redacted]", b"")
    assert len(left) <= 2 + 4


@pytest.mark.parametrize(
    "said",
    [
        b"Incorrect API key provided: sk-proj-********6789. Look it up.",
        b"Incorrect API key provided: sk-pr***789.",
        b"bad key ****6789",
        b"Incorrect API key provided: sk-...6789",
        b"Incorrect API key provided: sk-proj-0...789.",
        "bad key sk-p…6789".encode(),
        "bad key sk-proj-••••••••6789".encode(),
        b"bad key sk-pr**789",
    ],
)
def test_a_providers_own_mask_is_replaced(said: bytes) -> None:
    """The last characters of a key that a provider shows behind its stars are not shown again."""
    redacted = redact(said, Secret("sk-proj-0123456789abcdef0123456789"))
    assert b"789" not in redacted
    assert b"[redacted]" in redacted


@pytest.mark.parametrize(
    "said", [b"", b"all is well", b"**** bold ****", b"sk-proj-", b"key ****zzzz of somebody", b"s... 2**9"]
)
def test_other_text_stays(said: bytes) -> None:
    """What does not hold the key comes back as it came."""
    assert redact(said, SECRET) == said


@pytest.mark.parametrize("escaped", ["+", "=", "/", "+=", "+=/-_"])
@pytest.mark.parametrize("form", ["\\u{:04x}", "\\u{:04X}"])
def test_what_json_may_escape_makes_no_difference(escaped: str, form: str) -> None:
    """Serializers differ in which characters they write as numbers; whoever reads the JSON must not find the key."""
    key = "ABSKQmVkcm9ja0FQSUtleS1h+YmNkLWF0/MTIzNDU2-Nzg5_MDEy=="
    said = "".join(form.format(ord(letter)) if letter in escaped else letter for letter in key)
    redacted = redact(f'{{"message": "bad key {said}!"}}'.encode(), Secret(key))
    assert json.loads(redacted) == {"message": "bad key [redacted]!"}


@pytest.mark.parametrize("text", ["a", "*", "**a", "... ", "sk**", "a*", "sk-proj-", "\\u002B", "•", "."])
def test_taking_a_key_out_takes_a_moment(text: str) -> None:
    """Whatever a megabyte of a provider's words is made of."""
    said = (text.encode() * (1 << 20))[: 1 << 20] + b" *** ... \\u002b"
    began = time.perf_counter()
    redact(said, Secret("sk-proj-0123456789abcdef+0123456789"))
    assert time.perf_counter() - began < 5


def test_a_tiny_secret_is_not_searched_for() -> None:
    """A secret under eight characters would be found everywhere, so it is left alone."""
    assert redact(b"abcabc", Secret("abc")) == b"abcabc"


def test_text_is_redacted_like_bytes() -> None:
    """The form for people keeps its characters and loses the key."""
    assert redact_text(f"schön: {KEY}", SECRET) == "schön: [redacted]"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_the_exact_key_never_survives(before: bytes, after: bytes) -> None:
    """Whatever stands around it, the key itself is gone."""
    key = "key-0123456789abcdef"
    assert key.encode() not in redact(before + key.encode() + after, Secret(key))
