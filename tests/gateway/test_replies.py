"""Relaying replies: byte for byte, metered before their end leaves, and broken when the provider breaks."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"


def stream(customer: Customer, **fields: Any) -> bytes:
    """A streaming chat request."""
    return post(CHAT, customer.token, chat(stream=True, **fields))


def test_the_allowance_headers(customer: Customer) -> None:
    """The reply says who pays, what is left and when it resets, and carries our request id."""
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat(max_tokens=50)))
        headers = wire.reply().headers
    (event,) = customer.settled(1)
    assert headers["x-request-id"] == event.request_id
    assert headers["x-ownkey-billed-to"] == "allowance"
    assert 0 < int(headers["x-ownkey-allowance-remaining"]) < 1_000_000
    assert headers["x-ownkey-allowance-reset"].endswith("-01T00:00:00Z")
    assert "x-ownkey-output-limit" not in headers


def test_provider_connections_are_kept(customer: Customer, provider: FakeProvider) -> None:
    """Twenty calls one after the other, plain and streaming, need one connection to the provider."""
    before = len(provider.connections)
    with Wire(customer.service.url) as wire:
        for number in range(20):
            wire.send(post(CHAT, customer.token, chat(stream=number % 2 == 0)))
            assert wire.reply().status == 200
    assert len(provider.connections) <= before + 1


def test_an_output_limit_is_lowered_and_said(customer: Customer, provider: FakeProvider) -> None:
    """A call that wants more than is left gets a lower limit, in the request and in a header."""
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat(max_tokens=5_000_000)))
        reply = wire.reply()
    assert reply.status == 200
    limit = int(reply.headers["x-ownkey-output-limit"])
    assert limit < 1_000_000
    assert provider.last.json["max_tokens"] == limit
    assert provider.last.json["messages"] == chat()["messages"]


def test_the_end_of_a_reply_waits_for_its_settlement(customer: Customer) -> None:
    """When the client has the last byte, the usage event is already there."""
    for body in (chat(), chat(stream=True)):
        with Wire(customer.service.url) as wire:
            wire.send(post(CHAT, customer.token, body))
            request_id = wire.reply().headers["x-request-id"]
            assert request_id in {event.request_id for event in customer.events()}


def test_missing_usage_is_estimated(customer: Customer, provider: FakeProvider) -> None:
    """A reply without usage is charged an estimate and marked so; an explicit zero stays zero."""
    with Wire(customer.service.url) as wire:
        for usage in ("missing", "null", "zero"):
            provider.next(usage=usage, tokens=40)
            wire.send(post(CHAT, customer.token, chat()))
            wire.reply()
    missing, null, zero = customer.settled(3)
    assert missing.estimated
    assert null.estimated
    assert missing.output_tokens >= 40
    assert missing.input_tokens > 0
    assert (zero.estimated, zero.charged_tokens) == (False, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("path", [CHAT, "/anthropic/v1/messages"])
def test_a_stream_the_provider_breaks_arrives_broken(
    customer: Customer, provider: FakeProvider, path: str, how: str
) -> None:
    """The dialect's error event, no end mark, no clean end of the HTTP reply, and a charge for what was delivered."""
    provider.next(tokens=50, cut=20, cut_how=how, pause=0.002)
    with Wire(customer.service.url) as wire:
        wire.send(post(path, customer.token, chat(stream=True, max_tokens=100)))
        said = wire.rest()
    assert b"provider_failed" in said
    assert b"[DONE]" not in said
    assert b"message_stop" not in said
    assert not said.endswith(b"0\r\n\r\n")
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("failed", True)
    assert 15 <= event.output_tokens <= 60
    assert customer.allowance().reserved == 0
    customer.check_ledger()


@pytest.mark.parametrize(
    "malformed", ["chunk_size", "length_long", "two_lengths", "length_and_chunked", "garbage", "header_nul"]
)
def test_a_reply_that_is_no_http_is_a_failure(customer: Customer, provider: FakeProvider, malformed: str) -> None:
    """502 `provider_failed`, or a broken reply if some of it had been passed on; nothing stays held."""
    provider.next(malformed=malformed)
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        said = wire.rest() if malformed in ("length_long",) else b"%d" % wire.reply().status
    assert b"502" in said or b"provider_failed" in said or not said.endswith(b"0\r\n\r\n")
    customer.settled(1)
    assert customer.allowance().reserved == 0


def test_a_provider_that_closes_without_reply(customer: Customer, provider: FakeProvider) -> None:
    """502 `provider_failed`, and nothing is charged."""
    provider.next(no_reply=True)
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        reply = wire.reply()
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens) == ("failed", 0)


@pytest.mark.parametrize(("status", "header"), [(429, "7"), (529, ""), (503, ""), (500, ""), (400, "")])
def test_provider_errors_pass_through(customer: Customer, provider: FakeProvider, status: int, header: str) -> None:
    """Status, body and `Retry-After` are the provider's, told from ours by their code; nothing is charged."""
    provider.next(status=status, retry_after=header or None)
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        reply = wire.reply()
    assert reply.status == status
    assert reply.headers.get("retry-after", "") == header
    assert reply.json["error"].get("code") != "allowance_exhausted"
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens) == ("refused", 0)


def test_a_refused_platform_key_is_our_failure(customer: Customer, provider: FakeProvider) -> None:
    """The caller cannot mend the operator's key: 502 `provider_failed`, never the provider's 401."""
    provider.accept({"sk-something-else"})
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        reply = wire.reply()
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    assert PLATFORM_KEY.encode() not in reply.body


def test_an_echoed_key_is_redacted(customer: Customer, provider: FakeProvider) -> None:
    """A provider that repeats the credential in its error or in a header does not show it to the caller."""
    key = "sk-canary-0123456789-abcdefghijklmnop"
    customer.connect("openai", key)
    provider.next(echo=True, headers=(("x-ratelimit-echo", f"Bearer {key}"),))
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()))
        reply = wire.reply()
    assert provider.last.key == key
    assert key.encode() not in reply.body
    assert key not in str(reply.headers)


def test_an_own_keys_failure_never_spends_the_allowance(customer: Customer, provider: FakeProvider) -> None:
    """No credit, rate limit, outage: passed through, nothing charged, and the platform's key is never used."""
    key = "sk-own-key-0123456789-abcdefghijklmnop"
    customer.connect("openai", key)
    with Wire(customer.service.url) as wire:
        for status in (402, 429, 500, 503):
            provider.next(status=status)
            wire.send(post(CHAT, customer.token, chat()))
            assert wire.reply().status == status
    assert {one.key for one in provider.requests} == {key}
    assert {event.billed_to for event in customer.settled(4)} == {"own_key"}
    assert customer.allowance().used == 0


@pytest.mark.parametrize("events_read", [0, 1, 5, 30])
def test_a_client_that_hangs_up(customer: Customer, provider: FakeProvider, events_read: int) -> None:
    """The provider is stopped within a second, and what it had delivered is charged, never nothing."""
    provider.script(tokens=100_000, pause=0.005)
    wire = Wire(customer.service.url)
    wire.send(stream(customer))
    for _ in range(events_read):
        while not wire.line().startswith(b"data:"):
            pass
    provider.wait(1)
    wire.close()
    provider.wait(lambda p: p.last.closed_at is not None, timeout=1.0)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("cancelled", True)
    assert event.charged_tokens > 0
    assert events_read - 1 <= event.output_tokens <= events_read + 256
    assert customer.allowance().reserved == 0
    customer.check_ledger()


def test_a_client_that_hangs_up_before_a_plain_reply(customer: Customer, provider: FakeProvider) -> None:
    """The provider had begun to work: its input is charged, and it is stopped."""
    provider.script(delay=30)
    wire = Wire(customer.service.url)
    wire.send(post(CHAT, customer.token, chat()))
    provider.wait(1)
    wire.close()
    provider.wait(lambda p: p.last.closed_at is not None, timeout=1.0)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("cancelled", True)
    assert event.charged_tokens > 0


@pytest.mark.parametrize("payer", ["allowance", "own_key"])
def test_simultaneous_calls_on_real_sockets(customer: Customer, provider: FakeProvider, payer: str) -> None:
    """200 calls at once: all answered, each counted exactly once, and the sums are the provider's."""
    if payer == "own_key":
        customer.connect("openai", "sk-own-key-0123456789-abcdefghijklmnop")
    provider.script(delay=0.05)
    wires = [Wire(customer.service.url) for _ in range(200)]
    for number, wire in enumerate(wires):
        wire.send(post(CHAT, customer.token, chat(f"call {number}", max_tokens=20)))
    assert {wire.reply().status for wire in wires} == {200}
    for wire in wires:
        wire.close()
    events = customer.settled(200)
    tokens = (sum(event.input_tokens for event in events), sum(event.output_tokens for event in events))
    assert tokens == provider.totals()
    assert customer.allowance().used == (sum(tokens) if payer == "allowance" else 0)
    customer.check_ledger()


def test_a_slow_reader_holds_up_the_provider_and_nobody_else(customer: Customer, provider: FakeProvider) -> None:
    """A client that stops reading makes the provider wait rather than our memory grow; others are served."""
    provider.next(text="x" * 3_600_000)
    slow = Wire(customer.service.url)
    slow.send(post(CHAT, customer.token, chat(max_tokens=900_000)))
    time.sleep(0.3)
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat(max_tokens=20)))
        assert wire.reply().status == 200
    reply = slow.reply()
    slow.close()
    assert len(json.loads(reply.body)["choices"][0]["message"]["content"]) == 3_600_000
    customer.settled(2)


@pytest.fixture(scope="module")
def impatient(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with short time-outs."""
    folder = tmp_path_factory.mktemp("impatient")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 100000\napi_access = true\n')
    settings = settings_for(
        oracle, data_dir=folder, plans_file=plans, first_byte_timeout=0.5, idle_timeout=0.5, drain_timeout=1
    )
    with running(settings, oracle) as service:
        yield service


def test_a_silent_provider(impatient: Service, provider: FakeProvider) -> None:
    """No first byte in time: 504 `provider_timed_out`, its connection closed, nothing held, and its input charged."""
    customer = new_customer(impatient)
    provider.next(delay=60)
    with Wire(impatient.url) as wire:
        wire.send(post(CHAT, customer.token, chat(max_tokens=20)))
        reply = wire.reply()
    assert (reply.status, reply.json["error"]["code"]) == (504, "provider_timed_out")
    provider.wait(lambda p: p.last.closed_at is not None)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated, event.output_tokens) == ("failed", True, 0)
    assert event.charged_tokens > 0  # it was working, as far as we know


def test_a_provider_that_stalls_in_mid_stream(impatient: Service, provider: FakeProvider) -> None:
    """The stream ends with an error event and without its end mark; what was delivered is charged."""
    customer = new_customer(impatient)
    provider.next(tokens=50, stall=60, stall_after=10)
    with Wire(impatient.url) as wire:
        wire.send(stream(customer, max_tokens=60))
        said = wire.rest()
    assert b"provider_timed_out" in said
    assert b"[DONE]" not in said
    (event,) = customer.settled(1)
    assert 10 <= event.output_tokens <= 60
    assert customer.allowance().reserved == 0


def test_an_unreachable_provider(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> None:
    """502 `provider_failed`; nothing was sent, so nothing is held, charged or recorded as an attempt."""
    folder = tmp_path_factory.mktemp("unreachable")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 100000\napi_access = true\n')
    urls = {"openai": "http://127.0.0.1:1"}
    with running(settings_for(oracle, data_dir=folder, plans_file=plans, base_urls=urls), oracle) as service:
        customer = new_customer(service)
        with Wire(service.url) as wire:
            wire.send(post(CHAT, customer.token, chat(max_tokens=20)))
            reply = wire.reply()
        assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
        assert customer.events() == []
        assert customer.allowance().reserved == 0


def test_stopping_lets_running_replies_finish(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stream that ends within the drain time is whole; one that does not gets an error event; all is settled."""
    oracle.clear()
    folder = tmp_path_factory.mktemp("stopping")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 100000\napi_access = true\n')
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, drain_timeout=2)
    said: dict[str, bytes] = {}

    def read(name: str, wire: Wire) -> None:
        with wire:
            said[name] = wire.rest()

    with running(settings, oracle) as service:
        customer = new_customer(service)
        threads = []
        for name, pause in (("short", 0.02), ("long", 0.5)):
            oracle.next(tokens=40, pause=pause)
            wire = Wire(service.url)
            wire.send(stream(customer, max_tokens=60))
            threads.append(threading.Thread(target=read, args=(name, wire)))
            threads[-1].start()
        oracle.wait(2)
        time.sleep(0.2)
    for thread in threads:
        thread.join(10)
    assert said["short"].endswith(b"0\r\n\r\n")
    assert b"[DONE]" in said["short"]
    assert b"unavailable" in said["long"]
    assert b"[DONE]" not in said["long"]


def raw_provider(replies: list[bytes]) -> tuple[str, threading.Thread]:
    """A server that answers each request on its one connection with the next of these byte strings."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listening:
            listening.settimeout(60)  # the service starts meanwhile, and a busy machine takes its time
            waiting = list(replies)
            while waiting:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(5)
                    while waiting and connection.recv(65_536):
                        connection.sendall(waiting.pop(0))
                    time.sleep(0.2)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("first", "replies"),
    [
        (b"HEAD", [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", OK]),
        (b"GET", [OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother", OK]),
        (b"GET", [OK + b"HTTP/1.1 200 O", OK]),
        (b"GET", [b"HTTP/1.1 204 No Content\r\n\r\n", OK]),
        (b"GET", [b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n", OK]),
    ],
)
def test_no_reply_is_taken_for_another(
    oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory, first: bytes, replies: list[bytes]
) -> None:
    """Whatever a provider sends beside a reply, the next call gets its own reply and nobody gets more than theirs."""
    url, thread = raw_provider([OK, *replies])
    folder = tmp_path_factory.mktemp("raw")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 100000\napi_access = true\n')
    with running(settings_for(oracle, data_dir=folder, plans_file=plans, base_urls={"openai": url}), oracle) as service:
        customer = new_customer(service)
        head = f"/openai/v1/models HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {customer.token}\r\n\r\n".encode()
        with Wire(service.url) as wire:
            wire.send(b"GET " + head)
            assert wire.reply().body == b"{}"
            wire.send(first + b" " + head)
            reply = wire.reply(headless=first == b"HEAD")
            assert reply.status in (200, 204, 502)
            assert b"other" not in reply.body
            wire.send(b"GET " + head)
            assert wire.reply().status == 200
        thread.join(5)
