"""Ask a provider about a key without spending a token, and say what its answer means."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import msgspec

from ownkey.credentials import Secret
from ownkey.providers.failures import Failure, classify, message_of
from ownkey.providers.health import Health
from ownkey.providers.provider import KeyCheck, Provider
from ownkey.providers.redaction import redact_text

_MOST_BYTES = 65_536

_HEALTH = {
    Failure.KEY_REJECTED: Health.REJECTED,
    Failure.NO_MONEY: Health.OUT_OF_CREDIT,
    Failure.LIMITED: Health.LIMITED,
    Failure.PRESSURE: Health.LIMITED,
    Failure.OUTAGE: Health.UNREACHABLE,
    Failure.BAD_REQUEST: Health.UNVERIFIED,
}


@dataclass(frozen=True, slots=True)
class KeyCheckResult:
    """What the provider made of a key; ``said`` is its own words, without the key, for people."""

    health: Health
    said: str


def _sendable(text: str) -> bool:
    """Whether the key can stand in a header at all: printable ASCII, no white space."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _member(document: object, path: str) -> object:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _is_empty(check: KeyCheck, body: bytes) -> bool:
    """Whether a good answer tells that the account has nothing left to spend."""
    if check.empty_when is None:
        return False
    path, sign = check.empty_when
    try:
        value = _member(msgspec.json.decode(body), path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if isinstance(sign, bool):
        return value is sign
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= 0


def judge(provider: Provider, status: int, body: bytes) -> KeyCheckResult:
    """Read the answer to the check request. The words are the provider's: redact them before showing them."""
    said = f"{provider.name} answered {status}"
    message = message_of(body) if status >= 400 else ""
    said += f": {message}" if message else "."
    by_status = provider.check.verdicts.get(status)
    if 200 <= status < 300:
        empty = _is_empty(provider.check, body)
        return KeyCheckResult(Health.OUT_OF_CREDIT if empty else by_status or Health.ACTIVE, said)
    failure = classify(provider, status, body)
    if failure is None:  # a redirect: never followed, and no answer
        return KeyCheckResult(Health.UNVERIFIED, said)
    if failure in (Failure.KEY_REJECTED, Failure.NO_MONEY):
        return KeyCheckResult(_HEALTH[failure] if by_status is not Health.REJECTED else by_status, said)
    return KeyCheckResult(by_status or _HEALTH[failure], said)


async def _ask(provider: Provider, base_url: str, secret: Secret) -> tuple[int, bytes]:
    """Status and the first 64 KiB of the answer."""
    check = provider.check
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        **check.headers,
        provider.credential_header: provider.credential_prefix + secret.reveal(),
    }
    async with (
        httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=None) as client,  # noqa: S113 – check() has it
        client.stream(check.method, base_url.rstrip("/") + check.path, headers=headers) as reply,
    ):
        body = b""
        async for piece in reply.aiter_raw():
            body += piece
            if len(body) >= _MOST_BYTES:
                break
        return reply.status_code, body[:_MOST_BYTES]


async def check(
    provider: Provider,
    base_url: str,
    secret: Secret,
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 – a person waits for the page: part of what this promises
) -> KeyCheckResult:
    """Ask ``provider`` at ``base_url`` about a key; takes at most ``timeout`` seconds and spends no token.

    Never raises for what the provider answers or fails to answer. Redirects are not followed and proxies of the
    environment are ignored, so the key goes to that address only.
    """
    if not _sendable(secret.reveal()):
        return KeyCheckResult(Health.REJECTED, "This key has characters that no key has, so it was not sent anywhere.")
    try:
        async with asyncio.timeout(timeout):
            status, body = await _ask(provider, base_url, secret)
    except TimeoutError:
        return KeyCheckResult(Health.UNREACHABLE, f"{provider.name} did not answer within {timeout:g} seconds.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = redact_text(f"{type(error).__name__}: {error}"[:300], secret)
        return KeyCheckResult(Health.UNREACHABLE, f"{provider.name} could not be reached ({reason}).")
    result = judge(provider, status, body)
    return KeyCheckResult(result.health, redact_text(result.said, secret))
