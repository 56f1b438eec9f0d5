"""A Google service account as a provider key: its JSON document, and the access tokens that Google gives for it.

What is stored is the document; what goes to the provider is a token that lives for an hour. The token comes from
Google's token service for a signed assertion (RFC 7523;
https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.providers import outbound
from ownkey.providers.redaction import redact_text

TOKEN_URL = "https://oauth2.googleapis.com/token"
# What stands in documents that were made earlier. An assertion goes to ``TOKEN_URL`` whatever is there.
_EARLIER_TOKEN_URLS = frozenset(
    {
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v3/token",
        "https://www.googleapis.com/oauth2/v4/token",
    }
)
# What Google says of a key that is none any more; another refusal is of the request. So is ``invalid_grant``, when our
# clock is wrong.
_OF_THE_KEY = frozenset({"invalid_grant", "invalid_client", "unauthorized_client", "deleted_client", "disabled_client"})
_OF_THE_CLOCK = re.compile(r"short-lived token|\b(iat|exp)\b|reasonable timeframe")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_SECONDS = 600
_LONGEST_TOKEN = 8192


class _Document(msgspec.Struct):
    client_email: str
    private_key: str
    type: str = "service_account"
    private_key_id: str = ""
    token_uri: str = TOKEN_URL


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = 3600


class _Refused(msgspec.Struct):
    error: str = ""
    error_description: str = ""


class TokenRefused(Exception):
    """Google gives no token for this key: it was deleted, disabled, or is no key. The message is for people."""


class TokenServiceFailed(Exception):
    """No token, and not because of the key: the service is not reached, or answers with an error of its own."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token and when it ends, in seconds of ``time.monotonic``."""

    secret: Secret
    expires_at: float


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who the key is for, and what signs for it."""

    email: str
    private_key: Secret
    private_key_id: str

    @classmethod
    def read(cls, text: str, token_url: str = TOKEN_URL) -> ServiceAccount:
        """Read a key's JSON document. Raises ``InvalidRequest``, which shows nothing of it.

        A document that names another token service is refused: an assertion goes to Google, never to an address out
        of a document.
        """
        try:
            document = msgspec.json.decode(text, type=_Document)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidRequest(
                "This is no service account key. Paste the whole JSON file, with client_email and private_key in it."
            ) from None
        if document.type != "service_account":
            raise InvalidRequest("This JSON is of another kind. Create a key of type JSON for a service account.")
        if document.token_uri not in (TOKEN_URL, token_url, *_EARLIER_TOKEN_URLS):
            raise InvalidRequest(f"The token_uri in this service account key is not Google's ({TOKEN_URL}).")
        if "PRIVATE KEY" not in document.private_key or "@" not in document.client_email:
            raise InvalidRequest("The private_key or the client_email in this service account key is not complete.")
        return cls(document.client_email, Secret(document.private_key), document.private_key_id)

    @property
    def secrets(self) -> Sequence[Secret]:
        """What of it must never be shown: the private key, as it is and without its line breaks."""
        lines = [line for line in self.private_key.reveal().splitlines() if line and not line.startswith("-----")]
        return [self.private_key, Secret("".join(lines))]

    def assertion(self, now: float) -> str:
        """The signed statement that Google exchanges for a token; ``now`` is seconds since 1970.

        Takes milliseconds of computing. Raises ``TokenRefused`` if the private key is none.
        """
        from joserfc import jwt  # they take a while to load, and few installations need them
        from joserfc.jwk import RSAKey

        claims = {
            "iss": self.email,
            "scope": _SCOPE,
            "aud": TOKEN_URL,
            "iat": int(now),
            "exp": int(now) + _ASSERTION_SECONDS,
        }
        header = {"alg": "RS256", **({"kid": self.private_key_id} if self.private_key_id else {})}
        try:
            return jwt.encode(header, claims, RSAKey.import_key(self.private_key.reveal()))
        except Exception:  # the libraries raise many kinds, and quote what they were given
            raise TokenRefused("The private key in the service account key cannot be read.") from None


def email_of(secret: Secret) -> str:
    """Whose key a service account's document is; empty for what is none. The address is no secret."""
    try:
        return msgspec.json.decode(secret.reveal(), type=_Document).client_email[:200]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""


async def fetch(account: ServiceAccount, token_url: str = TOKEN_URL) -> AccessToken:
    """A new access token. Raises ``TokenRefused``, ``TokenServiceFailed`` or ``OSError``; has no time limit."""
    asked = time.monotonic()
    assertion = await asyncio.to_thread(account.assertion, time.time())
    form = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    status, body = await outbound.ask("POST", token_url, headers, form)
    if status == 200:
        try:
            granted = msgspec.json.decode(body, type=_Granted)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise TokenServiceFailed("Google's token service gave no token.") from None
        token = granted.access_token
        if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise TokenServiceFailed("Google's token service gave a token that cannot be sent.")
        return AccessToken(Secret(token), asked + granted.expires_in)
    refused = _refused(body)
    said = redact_text(f"{refused.error_description} ({refused.error})", *account.secrets, Secret(assertion))[:300]
    if 400 <= status < 500 and refused.error in _OF_THE_KEY:
        if _OF_THE_CLOCK.search(refused.error_description):
            raise TokenServiceFailed(f"Google's token service does not agree with the clock of this service: {said}")
        raise TokenRefused(f"Google refused the service account key: {said.strip()}")
    raise TokenServiceFailed(f"Google's token service answered {status}.")


def _refused(body: bytes) -> _Refused:
    try:
        return msgspec.json.decode(body, type=_Refused)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Refused()
