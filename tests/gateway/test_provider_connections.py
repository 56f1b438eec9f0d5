"""Replies of providers byte by byte: what is no HTTP breaks the call, and nothing of one reply gets into another."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ownkey.credentials import Secret
from ownkey.db.engine import Database
from ownkey.providers.health import Health
from ownkey.providers.registry import find
from ownkey.vault import provider_keys
from tests.fakes.provider import FakeProvider
from tests.gateway.raw_provider import CHAT, OK, PLANS, WHOLE, RawProvider, ask
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Wire, chat, post

MODELS = "/openai/v1/models"


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, raw: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks it for OpenAI."""
    folder: Path = tmp_path_factory.mktemp("raw")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, base_urls={"openai": raw.url}, connect_timeout=8)
    with running(settings, oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, raw: RawProvider) -> Customer:
    """A new organization; the provider has forgotten everything, and no connection to it is left."""
    service.application.relay.pool.close()
    raw.script.clear()
    raw.requests.clear()
    raw.connections = 0
    return new_customer(service)


def models(customer: Customer, method: str = "GET") -> bytes:
    """A request that costs nothing."""
    return f"{method} {MODELS} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {customer.token}\r\n\r\n".encode()


def chunked(body: bytes) -> bytes:
    """A chunked reply with this body as given."""
    return OK + b"transfer-encoding: chunked\r\n\r\n" + body


# More than the reads in which it begins and ends can hold (256 KiB each): the one between brings nothing of the body.
ENDLESS = 700_000
NO_REPLY = {
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "the same length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "length and chunks": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip as transfer coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "unknown transfer coding": OK + b"transfer-encoding: x\r\n\r\n{}",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "length below zero": OK + b"content-length: -2\r\n\r\n{}",
    "length too large for a number": OK + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/0.9": b"{}",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n",
    "other protocol": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nframes",
    "line ends that are LF": b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}",
    "folded line": OK + b"x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}",
    "CR in a value": OK + b"x-request-id: b\rset-cookie: c\r\ncontent-length: 2\r\n\r\n{}",
    "NUL in a value": OK + b"x-request-id: b\0c\r\ncontent-length: 2\r\n\r\n{}",
    "space before a colon": OK + b"x-a : b\r\ncontent-length: 2\r\n\r\n{}",
    "endless head": OK + b"x-a: " + b"a" * ENDLESS + b"\r\ncontent-length: 2\r\n\r\n{}",
    "endless interim replies": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 20_000 + WHOLE,
    "TLS": b"\x15\x03\x01\x00\x02\x02\x0a",
}


@pytest.mark.parametrize("name", NO_REPLY)
def test_what_is_no_reply_is_a_failure(customer: Customer, raw: RawProvider, name: str) -> None:
    """502 `provider_failed`, charged nothing, and the connection is not used again."""
    raw.script[:] = [NO_REPLY[name]]
    reply = ask(customer, post(CHAT, customer.token, chat()))
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    assert ask(customer, models(customer)).body == b"{}"
    assert raw.connections == 2
    events = customer.settled(2)
    assert [event.outcome for event in events if event.model] == ["failed"]
    assert customer.allowance().used == customer.allowance().reserved == 0


BREAKS = {
    "bad chunk size at once": chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "bad chunk size": chunked(b"1\r\n{\r\nzz\r\n}\r\n0\r\n\r\n"),
    "chunk longer than its size": chunked(b"1\r\n{}\r\n0\r\n\r\n"),
    "LF after a chunk": chunked(b"1\r\n{\n0\r\n\r\n"),
    "LF in a chunk extension": chunked(b"1\r\n{\r\n1;a\n}\r\n0\r\n\r\n"),
    "endless trailers": chunked(b"1\r\n{\r\n0\r\n" + b"a: b\r\n" * (ENDLESS // 6) + b"\r\n"),
    "endless chunk extension": chunked(b"1\r\n{\r\n1;" + b"a" * ENDLESS + b"\r\n}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_reply_that_breaks_is_never_a_whole_one(customer: Customer, raw: RawProvider, name: str) -> None:
    """Where some of it may have passed the reply is 502 or ends broken, never cleanly; the next call has its own."""
    raw.script[:] = [BREAKS[name]]
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        said = wire.some()
    assert b"502" in said[:20] or not said.endswith(b"0\r\n\r\n")
    assert ask(customer, models(customer)).body == b"{}"
    customer.settled(2)
    assert customer.allowance().reserved == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_what_came_before_a_break_counts(customer: Customer, raw: RawProvider, at_once: bool) -> None:
    """Usage that stands before broken framing is charged exactly, and the text is delivered, also in one read."""
    told = b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],'
    told += b'"usage":{"prompt_tokens":7,"completion_tokens":777}}'
    said = b"data: %b\n\n" % told
    begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    begin += b"%x\r\n%b\r\n" % (len(said), said)

    def in_two(connection: socket.socket) -> None:
        connection.sendall(begin)
        time.sleep(0.2)
        connection.sendall(b"zz\r\n")
        connection.recv(1)

    raw.script[:] = [begin + b"zz\r\n" if at_once else in_two]
    with Wire(customer.service.url) as wire:
        asked = chat(max_tokens=1000, stream=True, stream_options={"include_usage": True})
        wire.send(post(CHAT, customer.token, asked))
        got = wire.rest()
    assert said in got
    assert b"provider_failed" in got.partition(said)[2]
    assert not got.endswith(b"0\r\n\r\n")
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("failed", False)
    assert customer.allowance().used == 784
    assert customer.allowance().reserved == 0


@pytest.mark.parametrize("missing", [1, 100, 1_000])
def test_a_stream_with_a_length_breaks_visibly(customer: Customer, raw: RawProvider, missing: int) -> None:
    """An error of ours never fills the place of what is missing: the client gets it, and no end of the reply."""
    said = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'

    def cut(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
        connection.sendall(head % (len(said) + missing) + said)

    raw.script[:] = [cut]
    asked = chat(max_tokens=50, stream=True, stream_options={"include_usage": True})
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, asked))
        head = wire.head()
        assert "content-length" not in head.headers
        got = wire.rest()
    assert b"provider_failed" in got.partition(said)[2]
    assert not got.endswith(b"0\r\n\r\n")
    raw.script[:] = [cut]
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, asked).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert "content-length" not in wire.head().headers


WHOLE_REPLIES = {
    "interim replies": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\n" + WHOLE, b"{}", True),
    "chunks with extensions": (chunked(b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), b"{}", True),
    "trailers": (chunked(b"2\r\n{}\r\n0\r\nset-cookie: a\r\nx-request-id: b\r\n\r\n"), b"{}", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
    "connection: close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}", b"{}", True),
    "offer of another protocol": (
        OK + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}",
        b"{}",
        True,
    ),
    "bytes after it": (WHOLE + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother", b"{}", False),
    "half a reply after it": (WHOLE + b"HTTP/1.1 200 O", b"{}", False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "no content, and some": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nother", b"", False),
    "not modified, and some": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nother", b"", False),
}


@pytest.mark.parametrize("name", WHOLE_REPLIES)
def test_a_whole_reply_is_one_reply(customer: Customer, raw: RawProvider, name: str) -> None:
    """Exactly its body passes; a connection with anything behind it is used no more; trailers are nobody's headers."""
    said, body, kept = WHOLE_REPLIES[name]
    raw.script[:] = [said]
    first = ask(customer, models(customer))
    assert first.status in (200, 204, 304)
    assert first.body == body
    time.sleep(0.05)
    second = ask(customer, models(customer))
    assert (second.status, second.body) == (200, b"{}")
    assert "x-ownkey-provider-request-id" not in second.headers
    assert "set-cookie" not in second.headers
    assert raw.connections == (1 if kept else 2)


def test_a_reply_may_end_with_its_connection(customer: Customer, raw: RawProvider) -> None:
    """Without length and chunks the end of the connection is the end of the body; a reset is a broken reply."""

    def end(connection: socket.socket) -> None:
        connection.sendall(OK + b"\r\n{}")

    raw.script[:] = [end]
    reply = ask(customer, models(customer))
    assert (reply.status, reply.body) == (200, b"{}")


def test_head_has_no_body(customer: Customer, raw: RawProvider) -> None:
    """A reply to HEAD has none, whatever its head says, and what a provider sends as one is nobody's."""
    for said in (OK + b"content-length: 50\r\n\r\n", OK + b"content-length: 5\r\n\r\nother"):
        raw.script[:] = [said]
        with Wire(customer.service.url) as wire:
            wire.send(models(customer, "HEAD"))
            assert wire.reply(headless=True).status == 200
            wire.send(models(customer))
            assert wire.reply().body == b"{}"


def test_a_redirect_is_passed_on_and_not_followed(customer: Customer, raw: RawProvider) -> None:
    """Wherever a provider points, no request goes there; its status arrives, without the address."""
    other = RawProvider()
    raw.script[:] = [f"HTTP/1.1 307 Moved\r\nlocation: {other.url}/x\r\ncontent-length: 0\r\n\r\n".encode()]
    reply = ask(customer, post(CHAT, customer.token, chat()))
    assert reply.status == 307
    assert "location" not in reply.headers
    assert other.connections == 0
    other.close()


# Connections that are kept


def test_a_closed_connection_is_replaced(customer: Customer, raw: RawProvider) -> None:
    """A kept connection that the provider has closed meanwhile is not sent into: the call gets a new one."""
    for _ in range(5):
        raw.script[:] = [lambda connection: connection.sendall(WHOLE)]
        assert ask(customer, models(customer)).body == b"{}"
        time.sleep(0.05)
    assert raw.connections == 5


def test_a_call_is_never_sent_twice(customer: Customer, raw: RawProvider) -> None:
    """A provider that takes a call and closes without a word may have worked on it: 502, and it is not sent again."""
    assert ask(customer, models(customer)).status == 200
    raw.script[:] = [lambda connection: None]
    reply = ask(customer, post(CHAT, customer.token, chat("only once")))
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    time.sleep(0.1)
    assert sum(b"only once" in request for request in raw.requests) == 1
    assert raw.connections == 1


@contextmanager
def unreachable_service(oracle: FakeProvider, folder: Path) -> Iterator[tuple[Service, socket.socket]]:
    """A service whose provider has a listener that accepts nobody, yet."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    address = full.getsockname()
    waiting = []
    for _ in range(3):  # its queue: nobody else gets in
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(address)
        waiting.append(one)
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    urls = {"openai": f"http://127.0.0.1:{address[1]}"}
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, base_urls=urls, connect_timeout=60)
    with running(settings, oracle) as service:
        yield service, full
    for one in (*waiting, full):
        one.close()


def test_a_key_replaced_elsewhere_while_we_connect_is_not_used(oracle: FakeProvider, tmp_path: Path) -> None:
    """What another process commits between a call's admission and its sending counts: the call takes the new key."""
    with unreachable_service(oracle, tmp_path) as (service, listening):
        customer, node = new_customer(service), service.node
        customer.connect("openai", "sk-old-key-0123456789-abcdefghijkl")
        with Wire(service.url) as wire:
            wire.send(post(CHAT, customer.token, chat()))
            deadline = time.monotonic() + 5
            while not service.application.relay.active and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.2)  # it is admitted, and waits for its connection

            async def replace() -> None:
                other = Database(node.db.url)
                secret = Secret("sk-new-key-0123456789-abcdefghijkl")
                await provider_keys.save(other, node.keyring, customer.actor, find("openai"), secret, Health.ACTIVE)
                await other.close()

            service.do(replace)
            provider = RawProvider(listening)
            assert wire.reply().status == 200
        assert [b"sk-new-key" in request for request in provider.requests] == [True]
        assert not any(b"sk-old-key" in request for request in provider.requests)
        (event,) = customer.settled(1)
        assert event.billed_to == "own_key"


def test_a_client_that_leaves_while_we_connect(oracle: FakeProvider, tmp_path: Path) -> None:
    """A client that hangs up while its provider is being reached: the connecting ends, and nothing is held."""
    with unreachable_service(oracle, tmp_path) as (unreachable, _):
        customer = new_customer(unreachable)
        active = unreachable.application.relay.active
        wire = Wire(unreachable.url)
        wire.send(post(CHAT, customer.token, chat()))
        deadline = time.monotonic() + 5
        while not customer.allowance().reserved and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(active) == 1
        wire.close()
        while (active or customer.allowance().reserved) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not active
        assert customer.allowance().reserved == 0
        assert customer.events() == []
