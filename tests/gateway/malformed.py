"""Requests that break a rule of HTTP, by class, with random particulars; and some that are only unusual.

Wherever a class can, it hides a whole request (``smuggled``) where a careless reader would find one: in a body, behind
a wrong length, after a broken chunk.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["refused", "answered", "either"]
"""``refused``: one 4xx, then the connection ends. ``answered``: it and what follows. ``either``: not both, not more."""


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes to send, and what must become of them."""

    name: str
    data: bytes
    outcome: Outcome


class Writer:
    """Writes one input: random choices, a path of the gateway or of the pages, a valid token, a hidden request."""

    def __init__(self, draw: random.Random, token: str, number: int) -> None:
        self.draw = draw
        self.token = token.encode()
        self.number = number
        self.path = draw.choice((b"/openai/v1/chat/completions", b"/anthropic/v1/messages", b"/sign-in", b"/api/v1/x"))
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * draw.randrange(1, 60)}]}
        self.body = json.dumps(body).encode()

    @property
    def smuggled(self) -> bytes:
        """A whole request that nobody may take for one."""
        return self.models(b"smuggled")

    def models(self, what: bytes, host: bytes = b"here") -> bytes:
        """A request that is free, marked by the number of this input."""
        target = b"/openai/v1/models?%b=%d" % (what, self.number)
        return b"GET %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n" % (target, host, self.token)

    def post(
        self,
        *lines: bytes,
        body: bytes | None = None,
        line: bytes = b"POST %b HTTP/1.1\r\n",
        host: bytes = b"Host: here\r\n",
        length: bool = False,
    ) -> bytes:
        """A POST whose further header lines are ``lines``, each with its end."""
        body = self.body if body is None else body
        head = line.replace(b"%b", self.path) + host + b"Authorization: Bearer %b\r\n" % self.token
        head += b"Content-Type: application/json\r\n" + b"".join(lines)
        if length:
            head += b"Content-Length: %d\r\n" % len(body)
        return head + b"\r\n" + body

    def line(self, line: bytes) -> bytes:
        """A whole request with this request line."""
        return self.post(line=line, length=True)

    def field(self, field: bytes) -> bytes:
        """A whole request with this header line."""
        return self.post(field, length=True)

    def length(self, value: bytes) -> bytes:
        """A body framed by this Content-Length, with a request hidden in it."""
        return self.post(b"Content-Length: %b\r\n" % value, body=self.smuggled)

    def coding(self, *lines: bytes) -> bytes:
        """A chunked body, and a request behind it, under these header lines."""
        return self.post(*lines, body=b"0\r\n\r\n" + self.smuggled)

    def chunks(self, body: bytes) -> bytes:
        """A chunked body as given."""
        return self.post(b"Transfer-Encoding: chunked\r\n", body=body)

    def hosted(self, *values: bytes) -> bytes:
        """A whole request with these Host fields."""
        return self.post(host=b"".join(b"Host: %b\r\n" % value for value in values), length=True)

    def control(self) -> bytes:
        """A control character that is no white space."""
        return bytes((self.draw.choice([n for n in range(32) if n not in (9, 10, 13)]),))

    def junk(self, most: int = 200) -> bytes:
        """Random bytes."""
        return self.draw.randbytes(self.draw.randrange(1, most))


Make = Callable[[Writer], bytes]

REFUSED: Mapping[str, Make] = {
    # The request line
    "method in lower case": lambda w: w.line(b"post %b HTTP/1.1\r\n"),
    "method nobody knows": lambda w: w.line(b"GARBAGE %b HTTP/1.1\r\n"),
    "method with a control character": lambda w: w.line(b"PO%bST " % w.control() + w.path + b" HTTP/1.1\r\n"),
    "space before the method": lambda w: w.line(b" POST %b HTTP/1.1\r\n"),
    "tab after the method": lambda w: w.line(b"POST\t%b HTTP/1.1\r\n"),
    "version 0.9": lambda w: w.line(b"POST %b HTTP/0.9\r\n"),
    "no version": lambda w: b"GET %b\r\n\r\n" % w.path + w.smuggled,
    "version 2.0": lambda w: w.line(b"POST %b HTTP/2.0\r\n"),
    "version 1.2": lambda w: w.line(b"POST %b HTTP/1.2\r\n"),
    "version with more digits": lambda w: w.line(b"POST %b HTTP/1.10\r\n"),
    "version in lower case": lambda w: w.line(b"POST %b http/1.1\r\n"),
    "version without a dot": lambda w: w.line(b"POST %b HTTP/11\r\n"),
    "two versions": lambda w: w.line(b"POST %b HTTP/1.1 HTTP/1.1\r\n"),
    "space in the target": lambda w: w.line(b"POST %b /x HTTP/1.1\r\n"),
    "control character in the target": lambda w: w.line(b"POST %b" + w.control() + b" HTTP/1.1\r\n"),
    "byte above ASCII in the target": lambda w: w.line(b"POST %b\xc3\xa9 HTTP/1.1\r\n"),
    "fragment in the target": lambda w: w.line(b"POST %b#x HTTP/1.1\r\n"),
    "absolute target": lambda w: w.line(b"POST http://here%b HTTP/1.1\r\n"),
    "absolute target elsewhere": lambda w: w.line(b"POST https://example.com%b HTTP/1.1\r\n"),
    "authority as target": lambda w: b"CONNECT example.com:443 HTTP/1.1\r\nHost: here\r\n\r\n" + w.smuggled,
    "target without a slash": lambda w: w.line(b"POST openai/v1/models HTTP/1.1\r\n"),
    "star as target": lambda w: b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n" + w.smuggled,
    "no target": lambda w: w.line(b"POST  HTTP/1.1\r\n"),
    "request line ends in LF": lambda w: w.line(b"POST %b HTTP/1.1\n"),
    "request line ends in CR": lambda w: w.line(b"POST %b HTTP/1.1\r"),
    "HTTP/2 preface": lambda w: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + w.smuggled,
    "TLS": lambda w: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + w.junk() + w.smuggled,
    "SSH": lambda w: b"SSH-2.0-OpenSSH_9.2\r\n" + w.smuggled,
    "SOCKS": lambda w: b"\x05\x01\x00" + w.smuggled,
    "proxy protocol": lambda w: b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n" + w.smuggled,
    "random bytes": lambda w: b"\xff" + w.junk() + b"\r\n\r\n" + w.smuggled,
    # Framing by length
    "two lengths": lambda w: w.post(b"Content-Length: 5\r\nContent-Length: 6\r\n", body=w.smuggled),
    "the same length twice": lambda w: w.post(b"Content-Length: 0\r\nContent-Length: 0\r\n", body=w.smuggled),
    "a list of lengths": lambda w: w.length(b"0, 0"),
    "length with plus": lambda w: w.length(b"+%d" % w.draw.randrange(99)),
    "length with minus": lambda w: w.length(b"-%d" % w.draw.randrange(99)),
    "length with underscore": lambda w: w.length(b"1_0"),
    "length with plus and underscore": lambda w: w.length(b"+1_0"),
    "length in hexadecimal": lambda w: w.length(b"0x10"),
    "length with a fraction": lambda w: w.length(b"5.0"),
    "length with an exponent": lambda w: w.length(b"1e1"),
    "empty length": lambda w: w.length(b""),
    "length beyond 64 bits": lambda w: w.length(b"%d" % w.draw.randrange(2**64, 2**90)),
    "two numbers as length": lambda w: w.length(b"5 5"),
    "length in other digits": lambda w: w.length("\N{ARABIC-INDIC DIGIT FIVE}".encode()),
    "length with a control character": lambda w: w.length(b"5" + w.control()),
    "a length that no body may have": lambda w: w.length(b"%d" % w.draw.randrange(2**30, 2**60)),
    # Framing by chunks
    "length and chunks": lambda w: w.coding(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    "chunks and length": lambda w: w.coding(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"),
    "xchunked": lambda w: w.coding(b"Transfer-Encoding: xchunked\r\n"),
    "chunked is not last": lambda w: w.coding(b"Transfer-Encoding: chunked, identity\r\n"),
    "identity": lambda w: w.coding(b"Transfer-Encoding: identity\r\n"),
    "gzip, then chunked": lambda w: w.coding(b"Transfer-Encoding: gzip, chunked\r\n"),
    "gzip and chunked in two fields": lambda w: w.coding(
        b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n"
    ),
    "chunked in two fields": lambda w: w.coding(*[b"Transfer-Encoding: chunked\r\n"] * 2),
    "chunked twice": lambda w: w.coding(b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked after a control character": lambda w: w.coding(b"Transfer-Encoding: %bchunked\r\n" % w.control()),
    "quoted chunked": lambda w: w.coding(b'Transfer-Encoding: "chunked"\r\n'),
    "chunked with a parameter": lambda w: w.coding(b"Transfer-Encoding: chunked;q=1\r\n"),
    "empty coding": lambda w: w.coding(b"Transfer-Encoding:\r\n"),
    "chunks in version 1.0": lambda w: w.post(
        b"Transfer-Encoding: chunked\r\n", line=b"POST %b HTTP/1.0\r\n", body=b"0\r\n\r\n" + w.smuggled
    ),
    # Header fields
    "space before the colon of a length": lambda w: w.post(b"Content-Length : 5\r\n", body=w.smuggled),
    "space before the colon of a coding": lambda w: w.coding(b"Transfer-Encoding : chunked\r\n"),
    "tab before a colon": lambda w: w.field(b"X-A\t: b\r\n"),
    "folded line": lambda w: w.field(b"X-A: a\r\n b\r\n"),
    "folded coding": lambda w: w.coding(b"Transfer-Encoding:\r\n chunked\r\n"),
    "space before the first field": lambda w: w.post(host=b" Host: here\r\n", length=True),
    "control character in a name": lambda w: w.field(b"X-%bA: b\r\n" % w.control()),
    "control character in a value": lambda w: w.field(b"X-A: a%bb\r\n" % w.control()),
    "NUL in a value": lambda w: w.field(b"X-A: a\0b\r\n"),
    "DEL in a value": lambda w: w.field(b"X-A: a\x7fb\r\n"),
    "CR in a value": lambda w: w.field(b"X-A: a\rb\r\n"),
    "two CR at a line's end": lambda w: w.field(b"X-A: a\r\r\n"),
    "LF at a line's end": lambda w: w.field(b"X-A: a\n"),
    "LF, and a request": lambda w: w.field(b"X-A: a\n\n" + w.smuggled),
    "no colon": lambda w: w.field(b"X-A\r\n"),
    "no name": lambda w: w.field(b": a\r\n"),
    "name above ASCII": lambda w: w.field("X-É: a\r\n".encode()),
    "name with a separator": lambda w: w.field(b"X%cA: a\r\n" % w.draw.choice(b'(),/;<=>?@[\\]{}"')),
    "two hosts": lambda w: w.hosted(b"here", b"there"),
    "the same host twice": lambda w: w.hosted(b"here", b"here"),
    "no host": lambda w: w.hosted(),
    "empty host": lambda w: w.hosted(b""),
    "host with a path": lambda w: w.hosted(w.draw.choice((b"x/", b"x/?", b"a/admin?", b"x?y", b"x#"))),
    "host with a login": lambda w: w.hosted(b"user@here"),
    "host with a space": lambda w: w.hosted(b"he re"),
    "two hosts in one field": lambda w: w.hosted(b"here, there"),
    "host with a broken address": lambda w: w.hosted(w.draw.choice((b"[::1", b"::1", b"[here]", b"here:port"))),
    "a field too large": lambda w: w.field(b"X-A: %b\r\n" % (b"a" * w.draw.randrange(140_000, 300_000))),
    "too many fields": lambda w: w.field(b"a:b\r\n" * w.draw.randrange(40_000, 60_000)),
    "a target too large": lambda w: w.line(b"POST %b?" + b"a" * w.draw.randrange(140_000, 300_000) + b" HTTP/1.1\r\n"),
    # Chunks
    "chunk size that is no number": lambda w: w.chunks(b"zz\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk size with plus": lambda w: w.chunks(b"+5\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk size with minus": lambda w: w.chunks(b"-5\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk size with 0x": lambda w: w.chunks(b"0x5\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk size with underscore": lambda w: w.chunks(b"0_5\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "space after a chunk size": lambda w: w.chunks(b"5 \r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "space before a chunk size": lambda w: w.chunks(b" 5\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk size beyond 64 bits": lambda w: w.chunks(b"f" * w.draw.randrange(17, 40) + b"\r\n" + w.smuggled),
    "empty chunk size": lambda w: w.chunks(b"\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "LF after a chunk size": lambda w: w.chunks(b"5\nhello\r\n0\r\n\r\n" + w.smuggled),
    "CR after a chunk size": lambda w: w.chunks(b"5\rhello\r\n0\r\n\r\n" + w.smuggled),
    "chunk longer than its size": lambda w: w.chunks(b"5\r\nhelloXX0\r\n\r\n" + w.smuggled),
    "LF after a chunk": lambda w: w.chunks(b"5\r\nhello\n0\r\n\r\n" + w.smuggled),
    "CR after a chunk": lambda w: w.chunks(b"5\r\nhello\r0\r\n\r\n" + w.smuggled),
    "nothing after a chunk": lambda w: w.chunks(b"5\r\nhello0\r\n\r\n" + w.smuggled),
    "last chunk ends in LF": lambda w: w.chunks(b"5\r\nhello\r\n0\n\n" + w.smuggled),
    "LF in a chunk extension": lambda w: w.chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "CR in a chunk extension": lambda w: w.chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "line end in a quoted extension": lambda w: w.chunks(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n' + w.smuggled),
    "NUL in a chunk extension": lambda w: w.chunks(b"5;a\0\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "endless chunk extension": lambda w: w.chunks(b"5;" + b"a" * 200_000 + b"\r\nhello\r\n0\r\n\r\n" + w.smuggled),
    "length as trailer": lambda w: w.chunks(b"0\r\nContent-Length: 5\r\n\r\n" + w.smuggled),
    "coding as trailer": lambda w: w.chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + w.smuggled),
    "trailer without a colon": lambda w: w.chunks(b"0\r\nX-A\r\n\r\n" + w.smuggled),
    "folded trailer": lambda w: w.chunks(b"0\r\nX-A: a\r\n b\r\n\r\n" + w.smuggled),
    "trailer ends in LF": lambda w: w.chunks(b"0\r\nX-A: a\n\r\n" + w.smuggled),
    "endless trailers": lambda w: w.chunks(b"0\r\n" + b"a:b\r\n" * 50_000 + b"\r\n" + w.smuggled),
}


def _altered(w: Writer) -> bytes:
    data = bytearray(w.post(length=True))
    for _ in range(w.draw.randrange(1, 4)):
        data[w.draw.randrange(len(data))] = w.draw.randrange(256)
    return bytes(data)


def _shortened(w: Writer) -> bytes:
    data = w.post(length=True)
    place = w.draw.randrange(len(data))
    return data[:place] + data[place + w.draw.randrange(1, 20) :]


def _widened(w: Writer) -> bytes:
    data = w.post(length=True)
    place = w.draw.randrange(len(data))
    return data[:place] + w.junk(10) + data[place:]


def _shuffled(w: Writer) -> bytes:
    lines = w.post(length=True).split(b"\r\n")
    w.draw.shuffle(lines)
    return b"\r\n".join(lines)


def _repeated(w: Writer) -> bytes:
    lines = w.post(length=True).split(b"\r\n")
    lines.insert(w.draw.randrange(1, len(lines)), w.draw.choice(lines))
    return b"\r\n".join(lines)


def _cut_off(w: Writer) -> bytes:
    data = w.post(length=True)
    return data[: w.draw.randrange(len(data))]


EITHER: Mapping[str, Make] = {
    "bytes altered": _altered,
    "bytes taken out": _shortened,
    "bytes put in": _widened,
    "lines shuffled": _shuffled,
    "a line twice": _repeated,
    "cut off": _cut_off,
    "another protocol's version": lambda w: w.line(b"POST %b RTSP/1.0\r\n"),
    "two spaces in the request line": lambda w: w.line(b"POST  %b HTTP/1.1\r\n"),
    "upgrade to HTTP/2": lambda w: w.field(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
    "upgrade to a WebSocket": lambda w: w.field(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "close, and more": lambda w: w.field(b"Connection: close\r\n"),
    "TRACE": lambda w: w.line(b"TRACE %b HTTP/1.1\r\n"),
}

ANSWERED: Mapping[str, Make] = {
    "empty lines before": lambda w: b"\r\n\r\n" + w.post(length=True),
    "zeros before a length": lambda w: w.post(b"Content-Length: 000%d\r\n" % len(w.body)),
    "white space around a length": lambda w: w.post(b"Content-Length: \t %d \t\r\n" % len(w.body)),
    "bytes above ASCII in a value": lambda w: w.field("X-A: é\r\n".encode()),
    "empty value": lambda w: w.field(b"X-A:\r\n"),
    "request hidden in a body": lambda w: w.post(body=w.smuggled, length=True),
    "request hidden in a chunk": lambda w: w.chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(w.smuggled), w.smuggled)),
    "chunks of a byte": lambda w: w.chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in w.body) + b"0\r\n\r\n"),
    "chunk extensions": lambda w: w.chunks(b"%x;a=b;c\r\n%b\r\n0\r\n\r\n" % (len(w.body), w.body)),
    "zeros before a chunk size": lambda w: w.chunks(b"000%X\r\n%b\r\n000\r\n\r\n" % (len(w.body), w.body)),
    "trailers": lambda w: w.chunks(b"%x\r\n%b\r\n0\r\nX-A: b\r\n\r\n" % (len(w.body), w.body)),
    "host with a port": lambda w: w.hosted(w.draw.choice((b"here:8000", b"127.0.0.1:1", b"[::1]:80", b"HERE.example"))),
}

KINDS: Mapping[str, tuple[Make, Outcome]] = {
    **{name: (make, "refused") for name, make in REFUSED.items()},
    **{name: (make, "either") for name, make in EITHER.items()},
    **{name: (make, "answered") for name, make in ANSWERED.items()},
}


def written(seed: int, number: int, token: str) -> tuple[Input, bytes]:
    """Input ``number`` of a run, the same for the same seed; and a valid request to follow it on the connection."""
    name = list(KINDS)[number % len(KINDS)]
    make, outcome = KINDS[name]
    writer = Writer(random.Random(f"{seed}/{number}"), token, number)  # noqa: S311
    return Input(name, make(writer), outcome), writer.models(b"after")
