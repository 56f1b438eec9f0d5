"""A reply as bytes of HTTP/1.1: right, or wrong in a way a test names."""

from __future__ import annotations

from tests.fakes.behaviour import Behaviour
from tests.fakes.plan import Headers, Plan

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Fake')}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def headers_of(plan: Plan, behaviour: Behaviour, framing: str) -> Headers:
    """The headers of a reply, with the one that tells where its body ends."""
    replaced = {name for name, _ in behaviour.headers if name == "content-type"}
    headers = [*(pair for pair in plan.headers if pair[0] not in replaced), *behaviour.headers]
    if behaviour.gzip:
        headers.append(("content-encoding", "gzip"))
    ends = {"length": ("content-length", str(plan.length)), "chunked": ("transfer-encoding", "chunked")}
    return [*headers, ends.get(framing, ("connection", "close"))]


def framed(data: bytes, framing: str) -> bytes:
    """A part of the body; a chunk of its own if the body is chunked."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data and framing == "chunked" else data


def malformed(how: str, plan: Plan, body: bytes) -> bytes:
    """The bytes of a reply that is wrong in the way named (see ``behaviour.MALFORMED``)."""
    kind = [pair for pair in plan.headers if pair[0] == "content-type"]
    size, chunked = len(body), [*kind, ("transfer-encoding", "chunked")]
    middle = size // 2
    half = body[:middle]
    replies = {
        "chunk_size": lambda: head(200, chunked) + b"zz\r\n" + body + b"\r\n0\r\n\r\n",
        "chunk_end": lambda: head(200, chunked) + b"%x\r\n%sXX" % (middle, half) + b"0\r\n\r\n",
        "chunk_missing": lambda: head(200, chunked) + b"%x\r\n%s\r\n" % (size, body),
        "length_long": lambda: head(200, [*kind, ("content-length", str(size + 50))]) + body,
        "length_short": lambda: head(200, [*kind, ("content-length", str(middle))]) + body,
        "two_lengths": lambda: (
            head(200, [*kind, ("content-length", str(size)), ("content-length", str(size + 7))]) + body
        ),
        "length_and_chunked": lambda: (
            head(200, [*chunked, ("content-length", "5")]) + b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
        ),
        "garbage": lambda: b"\x16\x03\x01\x00\xff this is no HTTP\r\n\r\n" + body,
        "header_nul": lambda: head(200, [*kind, ("x-bad", "a\0b"), ("content-length", str(size))]) + body,
        "header_endless": lambda: b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"a" * (1 << 20) + b"\r\n\r\n" + body,
        "not_json": lambda: head(200, [*kind, ("content-length", "7")]) + b"<html/>",
        "half_json": lambda: head(200, [*kind, ("content-length", str(middle))]) + half,
    }
    if how not in replies:
        raise ValueError(f"There is no malformed reply {how!r}.")
    return replies[how]()
