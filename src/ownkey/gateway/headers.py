"""Which header fields pass between client and provider: only what is on these lists, in either direction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

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

NO_PAGE = b"".join(
    (
        b"content-security-policy: sandbox; default-src 'none'; frame-ancestors 'none'\r\n",
        b"cross-origin-resource-policy: same-origin\r\n",
        b"x-content-type-options: nosniff\r\n",
    )
)
"""What every reply carries: a provider's words come from the host of our pages, and never are one of them.

Whatever a browser is made to do with them, no script in them runs, and none sees who is signed in. It hinders no
program, nor the ``fetch`` of a page.
"""


@lru_cache(4096)
def _goes_up(name: bytes) -> bool:
    return name in _UP or name.startswith(_UP_PREFIXES)


@lru_cache(4096)
def _down_as(name: bytes) -> bytes:
    """The beginning of the line in which a field of a reply comes down; empty if it does not."""
    if name == b"x-request-id":  # ours has that name
        return b"x-ownkey-provider-request-id: "
    comes = name in _DOWN or (name.startswith(_DOWN_PREFIXES) and name not in _NEVER_DOWN)
    return name + b": " if comes else b""


def request_block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The client's header lines that the provider gets. The reply is asked for uncompressed, to read its usage."""
    lines = [b"%b: %b\r\n" % field for field in headers if _goes_up(field[0])]
    return b"".join(lines) + b"accept-encoding: identity\r\n"


class ReplyHead(NamedTuple):
    """What is read of a reply's header: the lines that the client gets, and what the body is.

    Content type and coding are in lower case, and empty if not said.
    """

    lines: bytes
    content_type: str
    coding: str


def read_reply(headers: Sequence[tuple[bytes, bytes]]) -> ReplyHead:
    """Read a provider's header fields, whose names are in lower case."""
    lines: list[bytes] = []
    content_type = coding = ""
    for name, value in headers:
        down_as = _down_as(name)
        if down_as:
            lines += (down_as, value, b"\r\n")
            if name == b"content-type":
                content_type = value.decode("latin-1").lower()
            elif name == b"content-encoding":  # said twice, it is applied twice
                said = value.decode("latin-1").strip().lower()
                coding = f"{coding}, {said}" if coding else said
    return ReplyHead(b"".join(lines), content_type, coding)


def our_lines(request_id: str, admission: Admission) -> bytes:
    """The header lines we add to a reply: who pays, and when the allowance resets."""
    lines = f"x-request-id: {request_id}\r\nx-ownkey-billed-to: {admission.billed_to}\r\n"
    if admission.key is None:
        lines += _reset_line(admission.period)
        if admission.output_limit is not None:
            lines += f"x-ownkey-output-limit: {admission.output_limit}\r\n"
    return lines.encode("ascii")


def error_block(error: OwnkeyError, request_id: str, content_type: str = "application/json") -> bytes:
    """The header lines of an error of ours."""
    lines = {"content-type": content_type, "x-request-id": request_id, "cache-control": "no-store", **error.headers}
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")


def problem(error: OwnkeyError, request_id: str) -> bytes:
    """The body of an error that is told to nobody in particular: a problem document (RFC 9457)."""
    told = {"type": "about:blank", "title": HTTPStatus(error.status).phrase, "status": error.status}
    return json.dumps({**told, "detail": error.message, "code": error.code, "request_id": request_id}).encode()


@lru_cache(8)
def _reset_line(period: str) -> str:
    return f"x-ownkey-allowance-reset: {clock.rfc3339(clock.period_end(period))}\r\n"
