"""Ask a provider about a key without spending a token, and say what its answer means."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.providers import outbound, service_account
from ownkey.providers.addresses import AddressRefused, Guard, HostForbidden
from ownkey.providers.failures import Failure, classify, message_of
from ownkey.providers.health import Health
from ownkey.providers.provider import KeyCheck, Provider
from ownkey.providers.redaction import redact, redact_text
from ownkey.providers.service_account import ServiceAccount, TokenRefused, TokenServiceFailed

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
    """Read the answer to the check request. ``body`` is redacted already: its words are shown, and cut."""
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


async def _ask(
    provider: Provider, base_url: str, secret: Secret, guard: Guard | None, token_url: str
) -> KeyCheckResult:
    text = secret.reveal()
    if provider.credential == "service_account":
        token = await service_account.fetch(ServiceAccount.read(text, token_url), token_url)
        if not provider.check.path:
            return KeyCheckResult(Health.ACTIVE, "Google accepted the service account key.")
        text = token.secret.reveal()
    headers = {"accept": "application/json", "accept-encoding": "identity", **provider.check.headers}
    if text:
        headers[provider.credential_header] = provider.credential_prefix + text
    url = base_url.rstrip("/") + provider.check.path
    status, body = await outbound.ask(provider.check.method, url, headers, guard=guard)
    result = judge(provider, status, redact(body, secret, Secret(text)))
    if result.health is Health.ACTIVE and urlsplit(url).hostname in provider.check.public_at:
        return KeyCheckResult(Health.UNVERIFIED, result.said)
    return result


async def check(
    provider: Provider,
    base_url: str,
    secret: Secret,
    *,
    guard: Guard | None = None,
    token_url: str = service_account.TOKEN_URL,
    timeout: float = 10.0,  # noqa: ASYNC109 – a person waits for the page: part of what this promises
) -> KeyCheckResult:
    """Ask ``provider`` at ``base_url`` about a key; takes at most ``timeout`` seconds and spends no token.

    Never raises for what the provider answers or fails to answer. Redirects are not followed and proxies of the
    environment are ignored, so the key goes to that address only. An address from an organization comes with a
    ``guard``; raises ``AddressRefused`` when its name leads where no key may go. A service account's key goes nowhere:
    it signs a request to ``token_url``, and the token that this gives is sent.
    """
    text = secret.reveal()
    if provider.credential == "key" and not _sendable(text) and (text or not provider.key_optional):
        return KeyCheckResult(Health.REJECTED, "This key has characters that no key has, so it was not sent anywhere.")
    try:
        async with asyncio.timeout(timeout):
            return await _ask(provider, base_url, secret, guard, token_url)
    except TimeoutError:
        return KeyCheckResult(Health.UNREACHABLE, f"{provider.name} did not answer within {timeout:g} seconds.")
    except HostForbidden as error:
        raise AddressRefused(f"{error}.") from None
    except (TokenRefused, InvalidRequest) as error:
        return KeyCheckResult(Health.REJECTED, str(error))
    except TokenServiceFailed as error:
        return KeyCheckResult(Health.UNREACHABLE, str(error))
    except OSError as error:
        kind = "" if type(error) is OSError else f"{type(error).__name__}: "
        reason = redact_text(f"{kind}{error}", secret)[:300]
        return KeyCheckResult(Health.UNREACHABLE, f"{provider.name} could not be reached ({reason}).")
