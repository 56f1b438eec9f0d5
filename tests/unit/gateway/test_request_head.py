"""A head that is known by its bytes: only what the parser would read the same way is taken for a repetition."""

from __future__ import annotations

import httptools
import pytest

from ownkey.gateway.request_head import RequestHead, Verbatim, read_request_head, verbatim
from ownkey.providers.registry import PROVIDERS

TOKEN = "ownkey_0123456789abcdefghijklmnopqrstuvwxyz0123"
LINES = ("Host: ownkey.test", "content-type: application/json", f"Authorization: Bearer {TOKEN}")


def request(*lines: str, length: str = "Content-Length: 2", target: str = "/openai/v1/chat/completions") -> bytes:
    """A request as a client sends it, with a body of two bytes."""
    return "\r\n".join((f"POST {target} HTTP/1.1", *(lines or LINES), length, "", "{}")).encode()


class Parsed:
    """What httptools makes of a request, and our reading of its head."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.head: RequestHead | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"content-length":
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head = read_request_head(self.parser, self.url, self.fields, {b"openai": PROVIDERS["openai"]})


def known(data: bytes) -> Verbatim | None:
    """What of a request lets the next one be known by its bytes."""
    head = Parsed(data).head
    assert head is not None
    return verbatim(head, data)


@pytest.mark.parametrize(
    "body", [b"{}", b"", b'{"model":"m"}', b"\r\n\r\n", b"x" * 70_000], ids=["same", "none", "longer", "blank", "large"]
)
@pytest.mark.parametrize("length", ["Content-Length: %d", "content-length:%d", "CONTENT-LENGTH:   %d"])
def test_a_repetition_brings_its_own_body(body: bytes, length: str) -> None:
    """The same head with a body of another length is a repetition, and its body is what follows the head."""
    found = known(request(length=length % 2))
    assert found is not None
    data = request(length=length % len(body))[:-2] + body
    assert found.body_in(data) == body


@pytest.mark.parametrize(
    "data",
    [
        request(*LINES[:2], LINES[2].replace("0123456789", "9876543210")),
        request(*LINES, "X-Other: 1"),
        request(target="/openai/v1/embeddings"),
        request()[:-1],
        request() + b"P",
        request() + request(),
        request(length="Content-Length: +2"),
        request(length="Content-Length: 2 "),
        request(length="Content-Length: "),
        request(length="Content-Length: 2\r\nContent-Length: 2"),
        request(length="Content-Length: 00000000002"),
        request(length="Content-Length: ²"),
        request(length="Transfer-Encoding: chunked"),
        b"",
        b"\r\n" + request(),
    ],
)
def test_anything_else_is_read_anew(data: bytes) -> None:
    """Another token, path or field, a body that is not whole or has something behind it, or no plain length."""
    found = known(request())
    assert found is not None
    assert found.body_in(data) is None


@pytest.mark.parametrize(
    "data",
    [
        request(*LINES, "Connection: close"),
        request(*LINES, "Expect: 100-continue"),
        request(*LINES[:2]),
        request(target="/openai/v1/../x"),
        b"\r\n" + request(),
        request(length="Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n"),
    ],
    ids=["close", "expect", "no token", "refused", "blank line before it", "chunked"],
)
def test_what_needs_reading_is_never_known_by_its_bytes(data: bytes) -> None:
    """A connection's last request, one that waits for us, one that is refused, and any that the parser put right."""
    assert known(data) is None


def test_the_head_must_be_at_the_beginning() -> None:
    """A head that came in two reads is not known by the bytes of the second."""
    data = request()
    head = Parsed(data).head
    assert head is not None
    assert verbatim(head, data[30:]) is None
    assert verbatim(head, data[:-20]) is None
    assert verbatim(head, b"") is None
