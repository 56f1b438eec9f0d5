"""Which header fields pass between client and provider: only what is on these lists, in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ownkey import clock
from ownkey.errors import OwnkeyError
from ownkey.metering.reservations import Admission

_UP = frozenset(
    (
        b"accept",
        b"accept-language",
        b"content-type",
        b"idempotency-key",
        b"openai-beta",
        b"user-agent",
        b"x-client-request-id",
        b"x-dashscope-sse",
        b"x-goog-api-client",
    )
)
_UP_PREFIXES = (b"anthropic-", b"x-stainless-", b"x-amzn-bedrock-")
_DOWN = frozenset(
    (
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"date",
        b"etag",
        b"last-modified",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"vary",
        b"x-should-retry",
        b"x-groq-region",
    )
)
_DOWN_PREFIXES = (b"anthropic-ratelimit-", b"openai-", b"x-ratelimit-", b"x-goog-", b"x-amzn-", b"x-ms-", b"cf-ray")
# They name the account behind the key, which may be the operator's.
_NEVER_DOWN = frozenset((b"openai-organization", b"openai-project", b"x-goog-api-key", b"x-goog-user-project"))


@lru_cache(4096)
def _goes_up(name: bytes) -> bool:
    return name in _UP or name.startswith(_UP_PREFIXES)


@lru_cache(4096)
def _comes_down(name: bytes) -> bool:
    return name in _DOWN or (name.startswith(_DOWN_PREFIXES) and name not in _NEVER_DOWN)


def request_block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The client's header lines that the provider gets. The reply is asked for uncompressed, to read its usage."""
    lines = [b"%b: %b\r\n" % field for field in headers if _goes_up(field[0])]
    return b"".join(lines) + b"accept-encoding: identity\r\n"


def reply_block(headers: list[tuple[bytes, bytes]], request_id: str, admission: Admission) -> bytes:
    """The provider's header lines that the client gets, and ours: who pays, and when the allowance resets."""
    lines = [b"%b: %b\r\n" % field for field in headers if _comes_down(field[0])]
    lines += [b"x-ownkey-provider-request-id: %b\r\n" % value for name, value in headers if name == b"x-request-id"]
    ours = f"x-request-id: {request_id}\r\nx-ownkey-billed-to: {admission.billed_to}\r\n"
    if admission.key is None:
        ours += _reset_line(admission.period)
        if admission.output_limit is not None:
            ours += f"x-ownkey-output-limit: {admission.output_limit}\r\n"
    lines.append(ours.encode())
    return b"".join(lines)


def content_of(headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Content type and content coding of a reply, the coding in lower case; both empty if not said."""
    content_type = coding = ""
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-encoding":  # said twice, it is applied twice
            said = value.decode("latin-1").strip().lower()
            coding = f"{coding}, {said}" if coding else said
    return content_type, coding


def error_block(error: OwnkeyError, request_id: str, content_type: str = "application/json") -> bytes:
    """The header lines of an error of ours."""
    lines = {"content-type": content_type, "x-request-id": request_id, "cache-control": "no-store", **error.headers}
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")


@lru_cache(8)
def _reset_line(period: str) -> str:
    return f"x-ownkey-allowance-reset: {clock.rfc3339(clock.period_end(period))}\r\n"
