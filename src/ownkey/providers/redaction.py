"""Take a provider key out of text that came from the provider, in every form it may stand there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from ownkey.credentials import Secret

REDACTED = b"[redacted]"

SHORTEST = 8
"""Shorter secrets are not searched for: they would be found by accident. Real keys have 20 characters and more."""
# What providers put in place of most of a bad key: "sk-proj-********abcd", "sk-...abcd". A run is one mask.
_MASK = rb"(?:(?<!\*)\*{2,}+|(?<!\.)\.{3,}+|(?<![\xa6\xa2])(?:\xe2\x80[\xa6\xa2])++)"
_MASK_BEGINS = (b"**", b"...", "…".encode(), "•".encode())
# How much of a key's beginning or end stands beside a mask of it: less says nothing.
_LEAST_SHOWN, _MOST_SHOWN = 2, 32


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """What the key becomes inside base64, whatever stands before and after it.

    Three bytes become four characters, so there are three alignments. Characters that depend on a neighbour
    are left out here and taken along where the rest is found.
    """
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        start = (0, 2, 3)[shift]
        end = len(encoded) - (4 if (shift + len(raw)) % 3 else 0)
        yield encoded[start:end]
        yield encoded[start:end].translate(bytes.maketrans(b"+/", b"-_"))


def _forms(secret: Secret) -> set[bytes]:
    text = secret.reveal()
    raw = text.encode("utf-8", "surrogatepass")
    quoted = quote(text, safe="", errors="surrogatepass").encode()
    forms = {
        raw,
        json.dumps(text)[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass"),
        json.dumps(text)[1:-1].replace("/", "\\/").encode(),
        quoted,
        re.sub(rb"%[0-9A-F]{2}", lambda m: m[0].lower(), quoted),
        quote_plus(text, errors="surrogatepass").encode(),
        raw.hex().encode(),
        raw.hex().upper().encode(),
        text.encode("utf-16-le", "surrogatepass"),
        text.encode("utf-16-be", "surrogatepass"),
    }
    return forms


def _json_pattern(text: str) -> re.Pattern[bytes]:
    """A key as JSON may write it: serializers differ in which of its characters they escape, and how."""
    parts = []
    for letter in text:
        plain = letter.encode("utf-8", "surrogatepass")
        if letter.isalnum() and letter.isascii():
            parts.append(plain)
        else:
            escapes = [re.escape(plain), re.escape(json.dumps(letter)[1:-1].encode()), rb"\\" + re.escape(plain)]
            if ord(letter) < 0x10000:
                escapes.append(rb"(?i:\\u%04x)" % ord(letter))
            parts.append(b"(?:" + b"|".join(escapes) + b")")
    return re.compile(b"".join(parts))


def _masked_pattern(text: str) -> re.Pattern[bytes]:
    """A key behind a mask that leaves its beginning, or its end."""
    raw = text.encode("utf-8", "surrogatepass")
    letters = [re.escape(raw[at : at + 1]) for at in range(min(len(raw), _MOST_SHOWN))]
    rest = b""
    for letter in reversed(letters[_LEAST_SHOWN:]):
        rest = b"(?:%b%b)?" % (letter, rest)
    beginning = b"".join(letters[:_LEAST_SHOWN]) + rest
    end = b"|".join(re.escape(raw[-length:]) for length in range(len(letters), _LEAST_SHOWN - 1, -1))
    of_beginning = rb"(?<![\w.-])%b%b[\w.-]{0,%d}" % (beginning, _MASK, _MOST_SHOWN)
    return re.compile(rb"%b|%b(?:%b)(?!\.*[\w-])" % (of_beginning, _MASK, end))


def redact(data: bytes, *secrets: Secret) -> bytes:
    """``data`` with each key replaced by ``[redacted]``: as it is, JSON-escaped, URL-encoded, in hex or base64.

    A provider's own masking of the key (``sk-…****abcd``) is replaced too: its last characters are nobody's
    business. Text that does not hold a key comes back as it came.
    """
    for secret in secrets:
        data = _without(data, secret)
    return data


def _without(data: bytes, secret: Secret) -> bytes:
    text = secret.reveal()
    if len(text) < SHORTEST:
        return data
    for form in sorted(_forms(secret), key=len, reverse=True):
        if len(form) >= SHORTEST and form in data:
            data = data.replace(form, REDACTED)
    for form in _base64_forms(text.encode("utf-8", "surrogatepass")):
        if len(form) >= SHORTEST and form in data:
            data = re.sub(rb"[\w+/-]{0,3}" + re.escape(form) + rb"[\w+/=-]{0,4}", REDACTED, data)
    if b"\\u00" in data:
        data = _json_pattern(text).sub(REDACTED, data)
    if any(begin in data for begin in _MASK_BEGINS):
        data = _masked_pattern(text).sub(REDACTED, data)
    return data


def redact_text(text: str, *secrets: Secret) -> str:
    """``redact`` for text: what people are shown of a provider's answer."""
    return redact(text.encode("utf-8", "surrogatepass"), *secrets).decode("utf-8", "replace")
