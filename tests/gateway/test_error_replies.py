"""Errors of providers that do not come whole, and redirects: their status is known, and decides all that follows."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ownkey.credentials import Secret
from ownkey.gateway.error_reply import ErrorReply
from ownkey.vault import provider_keys
from tests.fakes.provider import FakeProvider
from tests.gateway.raw_provider import CHAT, PLANS, RawProvider, ask
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import chat, post

OWN_KEY = "sk-own-key-0123456789-abcdefghijklmnop"
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":20}}'
SERVED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
HALF = b'{"error":{"message":"No","type":"some_error","co'
# What a status says of the key, and why the allowance may step in by choice.
STATUSES = {
    400: ("active", None),
    401: ("rejected", None),
    402: ("out_of_credit", None),
    403: ("limited", None),
    429: ("limited", None),  # it may be for lack of credit
    500: ("unreachable", "outage"),
    503: ("unreachable", "outage"),
}


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, raw: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks it for OpenAI, and waits for nobody who falls silent."""
    folder: Path = tmp_path_factory.mktemp("errors")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    keys = {"openai": Secret(PLATFORM_KEY)}
    urls = {"openai": raw.url}
    settings = settings_for(
        oracle, data_dir=folder, plans_file=plans, platform_keys=keys, base_urls=urls, idle_timeout=0.2
    )
    with running(settings, oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, raw: RawProvider) -> Customer:
    """A new organization; the provider has forgotten everything, and no connection to it is left."""
    service.application.relay.pool.close()
    raw.script.clear()
    raw.requests.clear()
    return new_customer(service)


def half(status: int, how: str, body: bytes = HALF) -> Callable[[socket.socket], None]:
    """An error of which only so much comes: then the connection ends, or stays open and silent."""

    def send(connection: socket.socket) -> None:
        head = b"HTTP/1.1 %d No\r\nretry-after: 7\r\ncontent-type: application/json\r\ncontent-length: 300\r\n\r\n"
        connection.sendall(head % status + body)
        if how == "stalled":
            connection.recv(1)  # until we hang up

    return send


def own_key(customer: Customer, tokens: int | None) -> None:
    """Connect a key, and choose what the allowance may give in its place."""
    customer.connect("openai", OWN_KEY)
    node = customer.service.node
    if tokens:
        customer.service.do(lambda: provider_keys.set_fallback(node.db, customer.actor, "openai", tokens))


def keys(raw: RawProvider) -> list[str]:
    """With which keys calls were made, in order."""
    return ["own" if OWN_KEY.encode() in one else "platform" for one in raw.requests]


def comes_to(customer: Customer, health: str) -> bool:
    """Whether the key's health becomes this soon; it is written beside the calls."""
    node = customer.service.node
    for _ in range(200):
        (key,) = customer.service.do(lambda: provider_keys.list_keys(node.db, customer.actor))
        if key.health == health:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("how", ["cut", "stalled"])
@pytest.mark.parametrize("status", STATUSES)
def test_half_an_error_on_the_allowance(customer: Customer, raw: RawProvider, status: int, how: str) -> None:
    """The client gets its status, its advice and what came of it; it costs nothing. A refused key is our failure."""
    raw.script[:] = [half(status, how)]
    reply = ask(customer, post(CHAT, customer.token, chat("word " * 1000, max_tokens=5)))
    if status == 401:
        assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    else:
        assert (reply.status, reply.headers["retry-after"]) == (status, "7")
        assert HALF.startswith(reply.body)
        assert len(HALF) - len(reply.body) < 3
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens, event.estimated) == ("refused", 0, False)
    assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)
    assert keys(raw) == ["platform"]


@pytest.mark.parametrize("how", ["cut", "stalled"])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("chosen", [None, 50_000])
def test_half_an_error_on_an_own_key(
    customer: Customer, raw: RawProvider, status: int, how: str, chosen: int | None
) -> None:
    """Rejected, out of credit or a bad request it stays, whatever was chosen; only what is surely an outage is bridged.

    The key's health is what the status says of it.
    """
    own_key(customer, chosen)
    raw.script[:] = [half(status, how), SERVED]
    reply = ask(customer, post(CHAT, customer.token, chat(max_tokens=50)))
    health, reason = STATUSES[status]
    if chosen and reason:
        assert (reply.status, reply.body, reply.headers["x-ownkey-fallback"]) == (200, ANSWER, reason)
        assert keys(raw) == ["own", "platform"]
        first, _ = customer.settled(2)
        assert customer.allowance().used == 30
    else:
        assert reply.headers["x-ownkey-billed-to"] == "own_key"
        if status == 401:
            assert reply.json["error"]["code"] == "provider_key_rejected"
        else:
            assert (reply.status, reply.headers["retry-after"]) == (status, "7")
        assert keys(raw) == ["own"]
        (first,) = customer.settled(1)
        assert customer.allowance().used == 0
    assert (first.outcome, first.billed_to, first.input_tokens, first.output_tokens) == ("refused", "own_key", 0, 0)
    assert customer.allowance().reserved == 0
    assert comes_to(customer, health)
    customer.check_ledger()


@pytest.mark.parametrize("how", ["cut", "stalled"])
def test_half_a_key_in_half_an_error(customer: Customer, raw: RawProvider, how: str) -> None:
    """An error that repeats the key and breaks off inside it shows none of what came of the key."""
    own_key(customer, None)
    raw.script[:] = [half(400, how, b'{"error":{"message":"Bad key ' + OWN_KEY[:25].encode())]
    reply = ask(customer, post(CHAT, customer.token, chat(max_tokens=50)))
    assert (reply.status, reply.body) == (400, b'{"error":{"message":"Bad key ')


@pytest.mark.parametrize("how", ["whole", "cut", "stalled"])
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("key", [None, OWN_KEY])
def test_a_redirect_uses_nothing(customer: Customer, raw: RawProvider, status: int, how: str, key: str | None) -> None:
    """Nobody follows it, so nothing was made: it passes as it is, costs nothing, is not bridged, and no key worked."""
    if key:
        own_key(customer, 50_000)
    raw.script[:] = [half(status, how)]
    if how == "whole":
        raw.script[:] = [b"HTTP/1.1 %d Moved\r\nlocation: /x\r\ncontent-length: 5\r\n\r\nmoved" % status]
    relay = customer.service.application.relay
    relay.used_keys()
    reply = ask(customer, post(CHAT, customer.token, chat("word " * 1000, max_tokens=5)))
    assert (reply.status, reply.headers["x-ownkey-billed-to"]) == (status, "own_key" if key else "allowance")
    assert "location" not in reply.headers
    if status != 304:
        assert reply.body == b"moved" if how == "whole" else HALF.startswith(reply.body)
    (event,) = customer.settled(1)
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("refused", 0, 0)
    assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)
    assert keys(raw) == ["own" if key else "platform"]
    assert not relay.used_keys()


def test_a_redirect_is_no_answer_to_a_second_attempt(customer: Customer, raw: RawProvider) -> None:
    """Where the allowance is answered with a redirect, the client gets what its own key was answered with."""
    own_key(customer, 50_000)
    raw.script[:] = [half(503, "cut"), b"HTTP/1.1 307 Moved\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"]
    reply = ask(customer, post(CHAT, customer.token, chat(max_tokens=50)))
    assert (reply.status, "x-ownkey-fallback" in reply.headers) == (503, False)
    assert keys(raw) == ["own", "platform"]
    customer.settled(2)
    assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)


def test_an_error_in_drops_is_not_waited_for(customer: Customer, raw: RawProvider) -> None:
    """All of an error has the time of one silence: what came of it until then is passed on."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 No\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"x")  # breaks off when we hang up
            time.sleep(0.05)

    raw.script[:] = [drip]
    began = time.monotonic()
    reply = ask(customer, post(CHAT, customer.token, chat(max_tokens=50)))
    assert reply.status == 400
    assert set(reply.body) == {ord("x")}
    assert time.monotonic() - began < 20  # all of it would take 50 seconds
    customer.settled(1)


def test_gathering_an_error_is_no_work() -> None:
    """Half a million pieces of one byte are gathered in less than a moment."""
    began = time.monotonic()
    error = ErrorReply([])
    for _ in range(500_000):
        assert not error.add([b"x"])
    assert error.add([b"x" * 600_000])
    assert time.monotonic() - began < 10
