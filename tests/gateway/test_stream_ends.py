"""The end of a stream waits for the settlement however it is cut into pieces; what is no end does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.raw_provider import CHAT, PLANS, RawProvider
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.test_redacting import dechunked
from tests.gateway.wire import Wire, chat, post

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SPOKEN = (
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n'
)
STREAMS: dict[str, tuple[str, dict[str, Any], bytes, bytes, tuple[bytes, ...]]] = {
    "openai": (CHAT, {"stream_options": {"include_usage": True}}, SPOKEN, b"data: [DONE]\n\n", (b"[DONE]",)),
    "anthropic": (
        "/anthropic/v1/messages",
        {},
        b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":9}}\n\n',
        b'event: message_stop\r\ndata: {"type":"message_stop"}\r\n\r\n',
        (b"message_stop",),
    ),
}


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, raw: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks it for everything."""
    folder: Path = tmp_path_factory.mktemp("ends")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    urls = dict.fromkeys(STREAMS, raw.url)
    with running(settings_for(oracle, data_dir=folder, plans_file=plans, base_urls=urls), oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, raw: RawProvider) -> Customer:
    """A new organization."""
    raw.script.clear()
    raw.requests.clear()
    return new_customer(service)


def in_pieces(pieces: list[bytes], sent: threading.Semaphore, go: threading.Event) -> Callable[[socket.socket], None]:
    """A reply in pieces that are read one by one, and whose HTTP ends only when told."""

    def send(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for piece in pieces:
            time.sleep(0.1)
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        sent.release()
        go.wait(30)
        connection.sendall(b"0\r\n\r\n")

    return send


def streams(
    customer: Customer, raw: RawProvider, slug: str, replies: list[list[bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """What of each of these replies arrives before its HTTP ends, and all of it; they run at the same time."""
    path, fields, *_ = STREAMS[slug]
    sent, go = threading.Semaphore(0), threading.Event()
    with ExitStack() as stack:
        stack.callback(go.set)
        wires = [stack.enter_context(Wire(customer.service.url)) for _ in replies]
        for number, (wire, pieces) in enumerate(zip(wires, replies, strict=True), 1):
            raw.script.append(in_pieces(pieces, sent, go))
            asked = chat(stream=True, max_tokens=100, **fields)
            wire.send(post(path, customer.token, asked, extra="Connection: close\n"))
            while len(raw.requests) < number:
                time.sleep(0.001)
        assert all(sent.acquire(timeout=30) for _ in replies)
        time.sleep(1)
        early = [wire.some(0.05) for wire in wires]
        assert customer.events() == []
        go.set()
        for said, wire in zip(early, wires, strict=True):
            yield dechunked(said), dechunked(said + wire.some(10))
    assert all(event.outcome == "finished" for event in customer.settled(len(replies)))


@pytest.mark.parametrize("slug", STREAMS)
def test_an_end_in_two_pieces(customer: Customer, raw: RawProvider, slug: str) -> None:
    """Cut anywhere, the last event is complete only after the settlement; all before its marker passes at once."""
    *_, first, last, markers = STREAMS[slug]
    cuts = range(1, len(last))
    arrived = streams(customer, raw, slug, [[first, last[:cut], last[cut:]] for cut in cuts])
    for cut, (early, whole) in zip(cuts, arrived, strict=True):
        assert early.startswith(first)
        assert last.rstrip() not in early
        if not any(marker in last[:cut] for marker in markers):
            assert early.startswith(first + last[:cut].rstrip(b"s"))  # which may begin a key
        assert whole == first + last


def test_an_end_byte_by_byte(customer: Customer, raw: RawProvider) -> None:
    """The same for an end that comes in single bytes."""
    *_, first, last, _ = STREAMS["openai"]
    ((early, whole),) = streams(customer, raw, "openai", [[first, *(last[at : at + 1] for at in range(6, len(last)))]])
    assert early == first + b"[DONE"
    assert whole == first + last[6:]


def test_what_is_no_end_does_not_wait(customer: Customer, raw: RawProvider) -> None:
    """A marker in the text, whole or cut, is held back until the next event begins, and no longer."""
    *_, first, _, _ = STREAMS["openai"]
    talk = b'data: {"choices":[{"delta":{"content":"the stream ends with [DONE], they say"}}]}\n\n'
    replies = [[talk[:cut], talk[cut:], first] for cut in range(50, len(talk), 3)]
    for early, whole in streams(customer, raw, "openai", replies):
        assert early == whole == talk + first
