"""What is small to send and large to hold: refused at once or passed on, in memory that stays flat."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import brotli
import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.process import Running, served
from tests.gateway.scale import scaled
from tests.gateway.wire import Reply, Wire, chat, post

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

MEGABYTE = 1 << 20
MOST_GROWTH = 64 * MEGABYTE
LARGE = scaled(128, 1024) * MEGABYTE
CHAT = "/openai/v1/chat/completions"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A process of its own, warm, whose memory can be looked at."""
    with FakeProvider(keep_bodies=False) as provider, served(tmp_path_factory.mktemp("bombs"), provider) as running:
        for _ in range(20):
            ask(running, post(CHAT, running.token, chat("x" * 100_000, max_tokens=5)))
        yield running


@pytest.fixture(autouse=True)
def honest(running: Running) -> None:
    """Each test begins with an honest provider."""
    running.provider.clear()


def ask(running: Running, request: bytes) -> Reply:
    """One request on a connection of its own."""
    with Wire(running.url, 60) as wire:
        wire.send(request)
        return wire.reply()


@contextmanager
def flat(running: Running) -> Iterator[None]:
    """The memory of the process grows by no more than 64 MiB at any moment in this block."""
    before, most, stop = running.memory(), 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not stop.wait(0.005):
            most = max(most, running.memory())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        stop.set()
        looking.join()
    assert most - before <= MOST_GROWTH, f"grew by {(most - before) // MEGABYTE} MiB"


def pour(running: Running, head: bytes, piece: Callable[[int], bytes], total: int) -> Reply | None:
    """Send a head and then pieces until there is a reply or ``total`` bytes are out."""
    with Wire(running.url, 30) as wire:
        wire.send(head)
        sent = 0
        while sent < total and not wire.has_news():
            data = piece(sent)
            try:
                wire.send(data)
            except ConnectionError:
                break
            sent += len(data)
        return wire.reply()


def test_a_gigabyte_with_its_length(running: Running) -> None:
    """A body that announces more than is accepted is 413 before any of it is read."""
    head = post(CHAT, running.token, raw=b"").replace(b"Content-Length: 0", b"Content-Length: %d" % LARGE)
    with flat(running), Wire(running.url) as wire:
        wire.send(head)
        assert wire.reply().status == 413
    assert running.provider.requests == []


@pytest.mark.parametrize("path", [CHAT, "/api/v1/members"])
def test_a_gigabyte_in_chunks(running: Running, path: str) -> None:
    """A body in chunks is 413 as soon as it is too large."""
    head = post(path, running.token, raw=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with flat(running):
        reply = pour(running, head, lambda _: chunk, LARGE)
    assert reply is not None
    assert reply.status == 413
    assert running.provider.requests == []


def test_a_body_of_tiny_chunks(running: Running) -> None:
    """A body takes the memory of its bytes, however many chunks it comes in and whoever sends it."""
    head = post(CHAT, "ownkey_nobodys", raw=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunks = b"2\r\nxx\r\n" * 10_000
    with flat(running), Wire(running.url, 60) as wire:
        wire.send(head)
        for _ in range(200):
            wire.send(chunks)
        wire.send(b"0\r\n\r\n")
        assert wire.reply().status == 400
    assert running.provider.requests == []


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"X-Large: ", b"a" * 65_536),
        (b"", b"a: b\r\n" * 10_000),
        (b"X-Names: b\r\n" + b"n" * 10, b"n" * 65_536),
    ],
    ids=["one value", "many fields", "one name"],
)
def test_an_endless_head(running: Running, start: bytes, piece: bytes) -> None:
    """A head of ten megabytes, in one field or in a hundred thousand, is 431 after the first 64 KiB or two."""
    head = b"POST %b HTTP/1.1\r\nHost: here\r\n" % CHAT.encode() + start
    with flat(running):
        reply = pour(running, head, lambda _: piece, 10 * MEGABYTE)
    assert reply is not None
    assert reply.status == 431


@pytest.mark.parametrize("part", [b"[", b'{"a":', b'[{"content":'])
@pytest.mark.parametrize("path", [CHAT, "/anthropic/v1/messages", "/openai/v1/unknown"])
def test_deep_json(running: Running, part: bytes, path: str) -> None:
    """JSON nested a million deep is 400, or the provider's to refuse; it never breaks us.

    At a path that nobody knows it may not even be looked at.
    """
    deep = part * (1_000_000 if len(part) == 1 else 200_000)
    with flat(running):
        raw = b'{"model":"m","max_tokens":5,"messages":%b}' % deep
        reply = ask(running, post(path, running.token, raw=raw))
    assert reply.status in (400, 403 if path.endswith("unknown") else 200)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, gzip"])
def test_a_compressed_request_is_refused(running: Running, coding: str) -> None:
    """A compressed body is 400 with a sentence, never decoded: there is nothing to blow up."""
    raw = gzip.compress(b'{"model":"m","messages":[]}' + b" " * 10 * MEGABYTE)
    with flat(running):
        reply = ask(running, post(CHAT, running.token, raw=raw, extra=f"Content-Encoding: {coding}\n"))
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_request")
    assert "uncompressed" in reply.json["error"]["message"]


@pytest.mark.parametrize("coding", ["gzip", "br", ", ".join(["gzip"] * 50)])
@pytest.mark.parametrize("status", [200, 500])
def test_a_bomb_from_the_provider(running: Running, coding: str, status: int) -> None:
    """A compressed reply passes byte for byte and is charged an estimate; an error is nothing but its status."""
    plain = b'{"choices":[{"message":{"content":"' + b"a" * LARGE
    bomb = brotli.compress(plain, quality=3) if coding == "br" else gzip.compress(plain, 6)
    del plain
    headers = (("content-encoding", coding), ("content-type", "application/json"))
    running.provider.next(status=status, body=bomb, headers=headers)
    with flat(running):
        started = time.monotonic()
        reply = ask(running, post(CHAT, running.token, chat(max_tokens=100)))
    assert reply.status == status
    if status == 200:
        assert reply.body == bomb
        assert reply.headers["content-encoding"] == coding
        assert int(reply.headers["x-ownkey-allowance-remaining"]) > 0
    else:
        assert reply.body == b""
        assert "content-encoding" not in reply.headers
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("shape", ["one line", "one event", "no end"])
def test_a_line_without_end(running: Running, shape: str) -> None:
    """Ten megabytes in one line of a stream pass byte for byte in bounded memory, also where usage is filtered out."""
    text = json.dumps({"choices": [{"index": 0, "delta": {"content": "a" * (10 * MEGABYTE)}}]}).encode()
    body = {
        "one line": b"data: " + text + b"\n\ndata: [DONE]\n\n",
        "one event": b"data: " + text.replace(b"a" * 1000, b"a" * 998 + b"\ndata: ") + b"\n\ndata: [DONE]\n\n",
        "no end": b"data: " + text,
    }[shape]
    running.provider.next(body=body, headers=(("content-type", "text/event-stream"),))
    with flat(running):
        reply = ask(running, post(CHAT, running.token, chat(stream=True, max_tokens=50)))
    assert reply.body == body


def test_an_endless_error(running: Running) -> None:
    """An error without end from the provider is cut at a megabyte, and its connection dropped."""
    body = os.urandom(MEGABYTE) * (LARGE // MEGABYTE)
    running.provider.next(status=500, body=body, headers=(("content-type", "text/plain"),))
    with flat(running):
        reply = ask(running, post(CHAT, running.token, chat(max_tokens=5)))
    assert reply.status == 500
    assert MEGABYTE <= len(reply.body) <= 2 * MEGABYTE
    assert body.startswith(reply.body)
    running.provider.wait(lambda p: p.last.closed_at is not None)


def test_a_slow_reader_of_a_large_stream(running: Running) -> None:
    """A client that reads nothing for a while makes the provider wait; afterwards it gets every byte."""
    size = min(LARGE, 256 * MEGABYTE)
    body = b"data: " + b"x" * size + b"\n\n"
    running.provider.next(body=body, headers=(("content-type", "text/event-stream"),))
    with flat(running), Wire(running.url, 60) as wire:
        wire.send(post(CHAT, running.token, chat(stream=True, max_tokens=5, stream_options={"include_usage": True})))
        time.sleep(1)
        assert wire.reply().body == body


def test_a_slow_provider_for_a_large_request(running: Running) -> None:
    """A provider that reads slowly holds one copy of the request in our memory, not more."""
    running.provider.next(delay=0.5)
    with flat(running):
        request = post(CHAT, running.token, chat("x" * (16 * MEGABYTE), max_tokens=5))
        assert ask(running, request).status == 200
