"""Connections of clients: how long one may take, what is refused early, and how one ends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ownkey.api.shapes import Problem
from ownkey.gateway.listener import Listener
from ownkey.gateway.patience import Patience
from tests.fakes.provider import FakeProvider
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
PAGE = b"GET /healthz/live HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture
def wire(service: Service) -> Iterator[Wire]:
    """A connection to the service."""
    with Wire(service.url) as wire:
        yield wire


@pytest.fixture(scope="module")
def hasty(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits a second for everything, and three for who reads."""
    folder = tmp_path_factory.mktemp("hasty")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 1000000\napi_access = true\n')
    with running(settings_for(oracle, data_dir=folder, plans_file=plans), oracle) as service:
        service.application.relay.patience = Patience(head=1, body=1, idle=1, reader=3, closing=1)
        yield service


# Time


@pytest.mark.parametrize("start", [b"P", b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: he", b"GET /sign-in HTT"])
def test_a_head_must_come_in_time(hasty: Service, start: bytes) -> None:
    """A head that is not whole in time is 408 `request_timed_out`, however it drips, and the connection ends."""
    with Wire(hasty.url) as wire:
        wire.send(start)
        reply = wire.reply()
        assert (reply.status, reply.json["code"]) == (408, "request_timed_out")
        assert reply.headers["connection"] == "close"
        assert wire.rest() == b""


@pytest.mark.parametrize("path", [CHAT, "/api/v1/members"])
def test_a_body_must_come_in_time(hasty: Service, provider: FakeProvider, path: str) -> None:
    """A body that comes at less than a KiB a second is 408, for the gateway and for the pages alike."""
    token = new_customer(hasty).token
    with Wire(hasty.url) as wire:
        wire.send(post(path, token, raw=b"").replace(b"Content-Length: 0", b"Content-Length: 1000"))
        for _ in range(20):
            try:
                wire.send(b" ")
            except ConnectionError:
                break
            time.sleep(0.1)
        reply = wire.reply()
    assert reply.status == 408
    code = reply.json["error"]["code"] if path == CHAT else reply.json["code"]
    assert code == "request_timed_out"
    assert provider.requests == []


def test_a_steady_body_has_its_time(hasty: Service, provider: FakeProvider) -> None:
    """A body that comes fast enough may take longer than the first patience."""
    customer = new_customer(hasty)
    body = json.dumps(chat("x" * 40_000)).encode()
    with Wire(hasty.url) as wire:
        request = post(CHAT, customer.token, raw=body)
        pieces = [request[place : place + 1_500] for place in range(0, len(request), 1_500)]
        for piece in pieces:
            wire.send(piece)
            time.sleep(0.1)
        assert wire.reply().status == 200
    assert provider.last.body == body
    customer.settled(1)


@pytest.mark.parametrize("first", [b"", PAGE])
def test_an_idle_connection_is_closed(hasty: Service, first: bytes) -> None:
    """Without a request, before the first or after one, a connection is closed without a word."""
    with Wire(hasty.url) as wire:
        if first:
            wire.send(first)
            assert wire.reply().status == 200
        assert wire.rest() == b""


def test_a_busy_connection_is_not_idle(hasty: Service, provider: FakeProvider) -> None:
    """While a reply is being made or is on its way, no patience of ours for clients ends it."""
    customer = new_customer(hasty)
    provider.next(delay=3.5)
    with Wire(hasty.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        assert wire.reply().status == 200
    customer.settled(1)


def test_a_connection_that_is_used_lives_on(hasty: Service) -> None:
    """A pause shorter than the patience between requests ends nothing, however many there are."""
    with Wire(hasty.url) as wire:
        for _ in range(6):
            wire.send(PAGE)
            assert wire.reply().status == 200
            time.sleep(0.6)


def test_a_client_that_reads_nothing_is_dropped(hasty: Service, provider: FakeProvider) -> None:
    """A reply that nobody reads does not hold a connection for ever, nor one of a page or of a refusal."""
    before = len(hasty.application.relay.clients)
    customer = new_customer(hasty)
    refused = post(CHAT, "ownkey_bogus", chat())
    wires = []
    for request in (refused, b"GET /static/app.css HTTP/1.1\r\nHost: here\r\n\r\n"):
        wire = Wire(hasty.url)
        wires.append(wire)
        try:
            for _ in range(20_000):
                wire.send_now(request)
        except BlockingIOError:
            pass  # it reads no more requests either
    deadline = time.monotonic() + 15
    while len(hasty.application.relay.clients) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(hasty.application.relay.clients) <= before
    for wire in wires:
        wire.close()
    assert customer.events() == []
    assert provider.requests == []


@contextmanager
def small_wire(service: Service) -> Iterator[Wire]:
    """A connection with little room in the kernel, so that a reply waits with us."""
    there = set(service.application.relay.clients)
    with Wire(service.url, most_unread=4_096) as wire:
        wire.send(PAGE)
        assert wire.reply().status == 200
        (client,) = service.application.relay.clients - there
        assert isinstance(client, Listener)
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        yield wire


@pytest.mark.parametrize(("requests", "extra"), [(5, b""), (1, b"Connection: close\r\n")])
def test_a_steady_reader_has_its_time(hasty: Service, requests: int, extra: bytes) -> None:
    """Who reads slowly, but reads, gets all of a reply, and of the last one of its connection."""
    with small_wire(hasty) as wire:
        wire.send(b"GET /static/app.css HTTP/1.1\r\nHost: here\r\n%b\r\n" % extra * requests)
        for _ in range(60):
            wire.read(512)
            time.sleep(0.1)
        assert len({wire.reply().body for _ in range(requests)}) == 1


# Early refusals


def test_a_body_announced_too_large_is_not_read(service: Service, customer: Customer, provider: FakeProvider) -> None:
    """413 at the head, with `Expect: 100-continue` and without; there is no leave to send it."""
    too_long = b"Content-Length: %d" % (service.settings.max_request_bytes + 1)
    for extra in ("", "Expect: 100-continue\n"):
        with Wire(service.url) as wire:
            wire.send(post(CHAT, customer.token, raw=b"", extra=extra).replace(b"Content-Length: 0", too_long))
            reply = wire.reply()
            assert (reply.status, reply.json["error"]["code"]) == (413, "request_too_large")
            assert wire.rest() == b""
    assert provider.requests == []


@pytest.mark.parametrize(
    ("extra", "status"), [("x-api-key: ownkey_other\n", 400), ("Authorization: Basic eDp5\n", 401)]
)
def test_leave_is_not_given_to_what_is_refused_anyway(
    service: Service, customer: Customer, extra: str, status: int
) -> None:
    """A request without a usable token is refused at its head: the body it asks leave for is never sent."""
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, raw=b"x" * 10, extra=extra + "Expect: 100-continue\n")[:-10])
        assert wire.reply().status == status
        assert wire.rest() == b""


def test_an_old_client_is_not_told_to_continue(customer: Customer) -> None:
    """`Expect` in HTTP/1.0 means nothing: no interim reply that such a client would take for the reply."""
    body = json.dumps(chat()).encode()
    request = post(CHAT, customer.token, raw=body, extra="Expect: 100-continue\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    with Wire(customer.service.url) as wire:
        wire.send(request[: -len(body)])
        time.sleep(0.1)
        wire.send(body)
        assert wire.reply().status == 200


def test_a_refusal_is_readable_while_the_body_is_still_sent(service: Service, provider: FakeProvider) -> None:
    """A client that goes on sending gets its refusal, not a reset connection that swallows it."""
    size = service.settings.max_request_bytes
    with Wire(service.url) as wire:
        wire.send(post(CHAT, "ownkey_x", raw=b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (2 * size)))
        for _ in range(64):
            wire.send(b"x" * 65_536)
        assert wire.reply().status == 413
    assert provider.requests == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_page_takes_no_large_body(service: Service, customer: Customer, framing: str) -> None:
    """More than a megabyte for a page or the management API is 413, announced or in chunks."""
    head = b"POST /api/v1/members HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    head += b"Authorization: Bearer %b\r\n" % customer.token.encode()
    with Wire(service.url) as wire:
        if framing == "length":
            wire.send(head + b"Content-Length: 2000000\r\n\r\n")
        else:
            wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                wire.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        reply = wire.reply()
    assert (reply.status, reply.json["code"]) == (413, "request_too_large")
    assert set(reply.json) == set(Problem.model_fields)
    assert "1,048,576 bytes" in reply.json["detail"]


def test_bodies_of_nobody_in_particular_are_bounded(
    oracle: FakeProvider, tmp_path: Path, provider: FakeProvider
) -> None:
    """Bodies under way may take the memory of 16 of the largest; what is more gets 503, and all of it is given back."""
    plans = tmp_path / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 1000000\napi_access = true\n')
    with running(settings_for(oracle, data_dir=tmp_path, plans_file=plans, max_request_bytes=50_000), oracle) as small:
        relay = small.application.relay
        start = post(CHAT, "ownkey_x", raw=b"").replace(b"Content-Length: 0", b"Content-Length: 49999") + b" " * 45_000
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(small.url)) for _ in range(20)]
            for wire in wires:
                wire.send(start)
            time.sleep(0.3)
            refused = [wire.reply() for wire in wires if wire.has_news()]
            assert 0 < len(refused) < 20
            assert {(reply.status, reply.json["error"]["code"]) for reply in refused} == {(503, "unavailable")}
            assert 0 < relay.gathering <= 16 * 50_000
        deadline = time.monotonic() + 5
        while relay.gathering and time.monotonic() < deadline:
            time.sleep(0.01)
        assert relay.gathering == 0
        customer = new_customer(small)
        with Wire(small.url) as wire:
            wire.send(post(CHAT, customer.token, chat("x" * 30_000))[:-10_000])
            time.sleep(0.1)
            assert relay.gathering > 0
            wire.send(post(CHAT, customer.token, chat("x" * 30_000))[-10_000:])
            assert wire.reply().status == 200
            assert relay.gathering == 0


def test_there_is_room_for_so_many(service: Service) -> None:
    """One connection too many is told 503 `unavailable`; those that are there go on."""
    relay = service.application.relay
    with Wire(service.url) as one:
        one.send(PAGE)
        assert one.reply().status == 200
        relay.most_clients, usual = len(relay.clients), relay.most_clients
        try:
            with Wire(service.url) as many:
                reply = many.reply()
                assert (reply.status, reply.json["code"]) == (503, "unavailable")
        finally:
            relay.most_clients = usual
        one.send(PAGE)
        assert one.reply().status == 200


# How a connection ends


def test_nothing_follows_connection_close(service: Service, customer: Customer, provider: FakeProvider) -> None:
    """What comes after a request that closes the connection is no request, even if that one is refused at once."""
    after = post(CHAT, customer.token, chat("after"))
    for first in (
        post(CHAT, customer.token, chat("first"), extra="Connection: close\n"),
        b"GET /openai/x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    ):
        with Wire(service.url) as wire:
            wire.send(first + after)
            assert wire.reply().status in (200, 401)
            assert wire.rest() == b""
    assert [one.json["messages"][0]["content"] for one in provider.requests] == ["first"]


@pytest.mark.parametrize("garbage", [b"GARBAGE\r\n\r\n", b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"])
@pytest.mark.parametrize("first", ["call", "page"])
def test_what_was_asked_before_garbage_is_answered(
    service: Service, customer: Customer, provider: FakeProvider, first: str, garbage: bytes
) -> None:
    """Whole requests before bytes that are none get their replies, in order; then 400, and the end."""
    provider.script(delay=0.1)
    requests = [post(CHAT, customer.token, chat("a")), PAGE] if first == "call" else [PAGE, PAGE]
    with Wire(service.url) as wire:
        wire.send(b"".join(requests) + garbage + post(CHAT, customer.token, chat("smuggled")))
        assert [wire.reply().status for _ in range(3)] == [200, 200, 400]
        assert wire.rest() == b""
    assert len(provider.requests) == (first == "call")


def test_a_body_that_breaks_behind_another_call(service: Service, customer: Customer, provider: FakeProvider) -> None:
    """A pipelined request with a broken chunk gets its 400 after the reply before it; what follows is not read."""
    provider.script(delay=0.1)
    broken = post(CHAT, customer.token, raw=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, chat("a")) + broken + b"zz\r\n" + PAGE)
        assert [wire.reply().status for _ in range(2)] == [200, 400]
        assert wire.rest() == b""
    assert len(provider.requests) == 1


def test_a_client_that_leaves_a_second_request_behind(service: Service, provider: FakeProvider) -> None:
    """A client that hangs up is noticed also while its next request waits for its turn."""
    customer = new_customer(service)
    provider.script(delay=30)
    wire = Wire(service.url)
    wire.send(post(CHAT, customer.token, chat()) * 2)
    provider.wait(1)
    wire.close()
    provider.wait(lambda p: p.last.closed_at is not None, timeout=5.0)
    (event,) = customer.settled(1)
    assert event.outcome == "cancelled"


def test_trace_is_never_relayed(service: Service, customer: Customer, provider: FakeProvider) -> None:
    """A reply to TRACE would repeat the provider's credential: 400, like any method that no provider has."""
    for method in (b"TRACE", b"PROPFIND"):
        with Wire(service.url) as wire:
            wire.send(post(CHAT, customer.token, chat()).replace(b"POST", method))
            assert wire.reply().status == 400
    assert provider.requests == []


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "Connection: Upgrade\nUpgrade: h2c\n",
        "Proxy-Connection: Upgrade\nUpgrade: websocket\n",
        "Connection: close\n",
    ],
    ids=["plain", "upgrade", "proxy", "close"],
)
@pytest.mark.parametrize("body", ["", "Content-Length: 2\n", "Transfer-Encoding: chunked\n"])
@pytest.mark.parametrize("target", [CHAT, "/openai/v1/models", "/sign-in", "/x", "*", "provider.test:443"])
def test_connect_is_refused(service: Service, provider: FakeProvider, target: str, body: str, extra: str) -> None:
    """CONNECT asks for a tunnel, which is nowhere: 400 and the end of the connection; others are served as before."""
    with Wire(service.url) as other, Wire(service.url) as wire:
        wire.send(f"CONNECT {target} HTTP/1.1\nHost: here\nAuthorization: Bearer x\n{extra}{body}\n")
        wire.send(b"2\r\n{}\r\n0\r\n\r\n" + PAGE)
        reply = wire.reply()
        assert (reply.status, reply.json["code"]) == (400, "invalid_request")
        assert reply.headers["connection"] == "close"
        assert wire.rest() == b""
        other.send(PAGE)
        assert other.reply().status == 200
    assert provider.requests == []


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "foo"])
def test_other_upgrades_are_ignored(service: Service, customer: Customer, provider: FakeProvider, upgrade: str) -> None:
    """A client that offers another protocol, as Java's does, is served in this one; the connection ends with that."""
    extra = f"Connection: Upgrade, HTTP2-Settings\nUpgrade: {upgrade}\nHTTP2-Settings: AAMAAABkAAQAAP__\n"
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, chat("upgraded"), extra=extra) + PAGE)
        assert wire.reply().status == 200
        assert wire.rest() == b""
    assert provider.last.json["messages"][0]["content"] == "upgraded"
    assert provider.last.header("upgrade") == ""
    customer.settled(1)


@pytest.mark.parametrize(
    "extra",
    [
        "Proxy-Connection: Upgrade\n",
        "Proxy-Connection: keep-alive, upgrade\nConnection: Upgrade\nConnection: Upgrade\n",
    ],
)
def test_an_offer_is_read_once(service: Service, customer: Customer, provider: FakeProvider, extra: str) -> None:
    """Wherever another protocol is offered, the request is served in this one, and the connection ends."""
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, chat("once"), extra=f"Upgrade: h2c\n{extra}") + PAGE)
        assert wire.reply().status == 200
        assert wire.rest() == b""
    assert [request.json["messages"][0]["content"] for request in provider.requests] == ["once"]
    customer.settled(1)


@pytest.mark.parametrize("path", ["/openai/v1/realtime?model=m", CHAT, "/gemini/ws/x.BidiGenerateContent", "/sign-in"])
def test_websockets_are_refused_everywhere(
    service: Service, customer: Customer, provider: FakeProvider, path: str
) -> None:
    """A WebSocket is never opened and nothing of it relayed: a refusal, or the plain page, and the connection ends."""
    extra = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: eA==\n"
    with Wire(service.url) as wire:
        request = post(path, customer.token, raw=b"", extra=extra).replace(b"POST", b"GET")
        wire.send(request.replace(b"Content-Length: 0\r\n", b"") + b"\x81\x85frame")
        reply = wire.reply()
        assert reply.status in (200, 400)
        assert (reply.status == 200) == (path == "/sign-in")
        assert wire.rest() == b""
    assert provider.requests == []
