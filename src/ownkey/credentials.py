"""Secret, a value that never prints; and the credentials we issue ourselves, which are kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Never

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
API_TOKEN_PREFIX = "ownkey_"


class Secret:
    """A secret somebody gave us. It prints as ``Secret(…)``, cannot be pickled, and opens with ``reveal()``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself. Call it at the last moment, where the text is sent or sealed, and nowhere else."""
        return self._value

    def preview(self) -> str:
        """The first eight characters and dots; three of a secret shorter than 20 characters."""
        shown = 8 if len(self._value) >= 20 else 3
        return self._value[:shown] + "••••••••"

    def fingerprint(self, key: bytes) -> str:
        """Ten hex digits that tell two secrets apart without telling the secret: a keyed hash."""
        return hmac.new(key, self._value.encode(), hashlib.sha256).hexdigest()[:10]

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> Never:
        raise TypeError("A Secret is never serialised.")


def random_text(length: int) -> str:
    """``length`` characters of 0-9A-Za-z from the system's random source (5.95 bits each)."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def new_api_token() -> str:
    """``ownkey_`` and 40 random characters: a fixed shape, so that scanners can flag a leak."""
    return API_TOKEN_PREFIX + random_text(40)


def new_link_token() -> str:
    """43 random characters for a session cookie or a one-time link."""
    return random_text(43)


def token_hash(token: str) -> str:
    """What we keep of a token we issued: SHA-256 in hex. Enough, because our tokens have over 200 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def hint(token: str) -> str:
    """What a list shows of a token we issued: its prefix and the first four random characters."""
    return token[: len(API_TOKEN_PREFIX) + 4] + "…"
