"""A failing own key: the allowance serves the call only where the organization chose so, and only for what passes."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ownkey.vault import provider_keys
from tests.fakes.provider import FakeProvider
from tests.gateway.conftest import PLANS
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.test_chat import ask
from tests.gateway.wire import Reply, Wire, chat, post

OWN_KEY = "sk-own-key-0123456789-abcdefghijklmnop"
CHAT = "/openai/v1/chat/completions"
NO_MONEY = b'{"error":{"message":"You exceeded your current quota","type":"x","code":"insufficient_quota"}}'
# What passes by itself, and why the allowance may step in.
PASSES: tuple[tuple[Mapping[str, Any], str], ...] = (
    ({"status": 429, "retry_after": "7"}, "rate_limit"),
    ({"status": 529}, "rate_limit"),
    ({"status": 500}, "outage"),
    ({"status": 503, "retry_after": "7"}, "outage"),
    ({"no_reply": True}, "outage"),
    ({"no_reply": True, "cut_how": "rst"}, "outage"),
    ({"malformed": "garbage"}, "outage"),
    ({"delay": float("inf")}, "outage"),
)
# What somebody has to mend, and an answer that has begun.
STAYS: tuple[Mapping[str, Any], ...] = (
    {"status": 401},
    {"echo": True},
    {"status": 403},
    {"status": 402},
    {"status": 429, "body": NO_MONEY},
    {"status": 400},
    {"status": 404},
    {"status": 422},
    {"cut": 2},
    {"cut": 0},
)


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application, with little patience for a provider that is silent."""
    folder: Path = tmp_path_factory.mktemp("fallback")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, first_byte_timeout=1)
    with running(settings, oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, provider: FakeProvider) -> Customer:
    """An organization with an own key for OpenAI."""
    customer = new_customer(service)
    customer.connect("openai", OWN_KEY)
    return customer


def choose(customer: Customer, tokens: int | None) -> None:
    """The organization's choice for its key."""
    node = customer.service.node
    customer.service.do(lambda: provider_keys.set_fallback(node.db, customer.actor, "openai", tokens))


def send(customer: Customer, path: str = CHAT, **fields: Any) -> Reply:
    """A call of up to 100 output tokens, and its whole reply; one that breaks off has status 0."""
    with Wire(customer.service.url) as wire:
        wire.send(post(path, customer.token, chat(**{"max_tokens": 100, **fields})))
        try:
            return wire.reply()
        except ConnectionError:
            return Reply(0, {}, b"")


def keys(provider: FakeProvider) -> list[str | None]:
    """The credentials that the provider saw, in order."""
    return [one.key for one in provider.requests]


@pytest.mark.parametrize("fault", [*[fault for fault, _ in PASSES], *STAYS])
@pytest.mark.parametrize("stream", [False, True])
def test_by_default_a_failing_key_never_uses_the_allowance(
    customer: Customer, provider: FakeProvider, fault: Mapping[str, Any], stream: bool
) -> None:
    """Without a choice no fault whatever brings the platform's key or the allowance into play."""
    provider.next(**fault)
    reply = send(customer, stream=stream)
    assert "x-ownkey-fallback" not in reply.headers
    assert keys(provider) == [OWN_KEY]
    customer.settled(1)
    assert customer.allowance().used == 0


@pytest.mark.parametrize(("fault", "reason"), PASSES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_allowance_serves_what_passes_by_itself(
    customer: Customer, provider: FakeProvider, fault: Mapping[str, Any], reason: str, stream: bool
) -> None:
    """By choice a rate limit or an outage is bridged: the answer says who paid and why, and both attempts are told."""
    choose(customer, 50_000)
    provider.next(**fault)
    reply = send(customer, stream=stream)
    assert reply.status == 200
    assert (reply.headers["x-ownkey-billed-to"], reply.headers["x-ownkey-fallback"]) == ("allowance", reason)
    assert "x-ownkey-allowance-reset" in reply.headers
    assert (b"[DONE]" in reply.body) if stream else reply.json["choices"]
    assert keys(provider) == [OWN_KEY, PLATFORM_KEY]
    assert provider.requests[0].mount == provider.requests[1].mount == "openai"
    first, second = customer.settled(2)
    assert (first.billed_to, first.charged_tokens, first.fallback) == ("own_key", 0, None)
    assert (second.billed_to, second.fallback, second.fallback_of) == ("allowance", reason, first.request_id)
    assert reply.headers["x-request-id"] == second.request_id
    served = provider.requests[1]
    assert customer.allowance().used == second.charged_tokens == served.tokens_in + served.tokens_out
    assert customer.allowance().reserved == 0
    customer.check_ledger()
    # The key goes on being tried first.
    assert send(customer).headers["x-ownkey-billed-to"] == "own_key"


@pytest.mark.parametrize("fault", STAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_pass_is_never_bridged(
    customer: Customer, provider: FakeProvider, fault: Mapping[str, Any], stream: bool
) -> None:
    """A rejected key, no credit, a bad request and an answer that has begun stay what they are, whatever was chosen."""
    choose(customer, 50_000)
    provider.next(**fault)
    reply = send(customer, stream=stream)
    assert "x-ownkey-fallback" not in reply.headers
    assert keys(provider) == [OWN_KEY]
    customer.settled(1)
    assert customer.allowance().used == 0


def test_what_only_an_own_key_may_do_is_never_bridged(customer: Customer, provider: FakeProvider) -> None:
    """Work done later, and what shows the account itself, are not for the allowance, whoever failed."""
    choose(customer, 50_000)
    provider.script(status=503)
    send(customer, background=True, path="/openai/v1/responses", input="Hello")
    with Wire(customer.service.url) as wire:
        wire.send(f"GET /openai/v1/models HTTP/1.1\nHost: here\nAuthorization: Bearer {customer.token}\n\n")
        assert wire.reply().status == 503
    assert set(keys(provider)) == {OWN_KEY}


def test_an_address_of_ones_own_is_never_bridged(customer: Customer, provider: FakeProvider) -> None:
    """Behind an organization's own address stands another provider: the choice does not survive, nor would it count."""
    choose(customer, 50_000)
    customer.connect("openai", OWN_KEY, provider.at("theirs"))
    with pytest.raises(Exception, match="address of its own"):
        choose(customer, 50_000)
    provider.script(status=503)
    send(customer)
    assert PLATFORM_KEY not in keys(provider)


def test_the_choice_survives_an_update_and_goes_with_removal(customer: Customer, provider: FakeProvider) -> None:
    """It belongs to the connection: a new key keeps it, and a key connected after a removal begins with never."""
    choose(customer, 50_000)
    customer.connect("openai", "sk-own-key-number-two-0123456789-abcdef")
    provider.next(status=503)
    assert send(customer).headers["x-ownkey-fallback"] == "outage"
    customer.disconnect("openai")
    customer.connect("openai", OWN_KEY)
    provider.next(status=503)
    assert send(customer).status == 503


@pytest.mark.parametrize("change", ["replaced", "withdrawn", "removed"])
def test_what_changes_between_the_attempts_counts(customer: Customer, provider: FakeProvider, change: str) -> None:
    """A new key is not tried, nor the old one again; without the choice the first attempt is the last."""
    choose(customer, 50_000)
    provider.next(status=503)
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(send, customer)
        provider.wait(lambda one: one.held == 1)
        if change == "replaced":
            customer.connect("openai", "sk-own-key-number-two-0123456789-abcdef")
        elif change == "withdrawn":
            choose(customer, None)
        else:
            customer.disconnect("openai")
        provider.release()
        reply = call.result()
    assert reply.status == (200 if change == "replaced" else 503)
    assert keys(provider) == ([OWN_KEY, PLATFORM_KEY] if change == "replaced" else [OWN_KEY])
    customer.settled(len(provider.requests))
    assert customer.allowance().reserved == 0


def test_a_provider_that_is_not_there_leaves_nothing_held(service: Service, tmp_path: Path) -> None:
    """If neither attempt can connect, the client reads what it would without the choice."""
    plans = tmp_path / "plans.toml"
    plans.write_text(PLANS)
    with FakeProvider() as gone:
        pass
    with running(settings_for(gone, data_dir=tmp_path, plans_file=plans), gone) as alone:
        customer = new_customer(alone)
        customer.connect("openai", OWN_KEY)
        choose(customer, 50_000)
        reply = send(customer)
        assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
        assert reply.headers["x-ownkey-billed-to"] == "own_key"
        customer.settled(0)
        assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)


@contextmanager
def hanging_up_on_every_other() -> Iterator[tuple[str, list[bytes]]]:
    """A provider's address, and what it read: of two connections it resets the first before it has read anything."""
    read: list[bytes] = []
    answer = b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    def serve(listening: socket.socket) -> None:
        number = 0
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                number += 1
                if number % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    read.append(connection.recv(65_536))
                    connection.sendall(head % len(answer) + answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", read
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_connection_lost_before_anything_was_sent_is_bridged(provider: FakeProvider, tmp_path: Path) -> None:
    """Made and lost again while the key is read anew, it is an outage like any other; no key was read by anyone."""
    plans = tmp_path / "plans.toml"
    plans.write_text(PLANS)
    with hanging_up_on_every_other() as (url, read):
        urls = {"openai": url, "anthropic": provider.at("anthropic")}
        with running(settings_for(provider, data_dir=tmp_path, plans_file=plans, base_urls=urls), provider) as service:
            customer = new_customer(service)
            customer.connect("openai", OWN_KEY)
            choose(customer, 50_000)
            provider.next(stall=float("inf"), stall_after=1)
            with Wire(service.url) as busy:  # with another call under way the key is read in a thread, which takes time
                busy.send(post("/anthropic/v1/messages", customer.token, chat(stream=True, max_tokens=100)))
                busy.line()
                for _ in range(20):
                    reply = send(customer)
                    assert (reply.status, reply.headers["x-ownkey-fallback"]) == (200, "outage")
            events = customer.settled(21 + sum(one.billed_to == "own_key" for one in customer.events()))
    assert len(read) == 20
    assert all(PLATFORM_KEY.encode() in one and OWN_KEY.encode() not in one for one in read)
    made = {one.request_id for one in events}
    assert any(one.fallback_of not in made for one in events if one.fallback)  # nothing was sent: no event


@pytest.mark.parametrize("refused", ["cap", "allowance", "platform", "broken"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_second_attempt_without_an_answer_leaves_the_first(
    customer: Customer, provider: FakeProvider, refused: str, stream: bool
) -> None:
    """If the allowance cannot serve it either, the client gets the provider's own error, and nothing stays held."""
    choose(customer, 30 if refused == "cap" else 50_000)
    provider.next(status=429, retry_after="7")
    if refused == "platform":
        provider.next(status=401)
    if refused == "broken":
        provider.next(no_reply=True)
    text = "x" * 2_000_000 if refused == "allowance" else "Hello"
    reply = send(customer, text=text, stream=stream)
    assert (reply.status, reply.headers["retry-after"]) == (429, "7")
    assert reply.headers["x-ownkey-billed-to"] == "own_key"
    assert "x-ownkey-fallback" not in reply.headers
    assert reply.headers["content-type"] == "application/json"
    assert "error" in reply.json
    assert "code" not in reply.json["error"] or reply.json["error"]["code"] != "allowance_exhausted"
    events = customer.settled(2 if refused in ("platform", "broken") else 1)
    assert reply.headers["x-request-id"] == events[0].request_id
    assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)
    customer.check_ledger()


def test_fifty_calls_at_once_do_not_pass_the_cap(customer: Customer, provider: FakeProvider) -> None:
    """However many fail at once, what the allowance gives is below what was chosen, counted by the provider."""
    cap = 2_000
    choose(customer, cap)
    provider.script(tokens=100)
    provider.next(status=429, times=50)
    provider.hold()
    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(send, customer) for _ in range(50)]
        provider.wait(lambda one: one.held == 50, timeout=20)
        provider.release()
        replies = [call.result() for call in calls]
    served = [reply for reply in replies if reply.status == 200]
    assert 0 < len(served) < 50
    assert {reply.status for reply in replies} == {200, 429}
    tokens_in, tokens_out = provider.totals(PLATFORM_KEY)
    assert customer.allowance().used == tokens_in + tokens_out <= cap
    assert customer.allowance().reserved == 0
    customer.check_ledger()


def test_a_client_that_leaves_is_charged_for_what_was_made(customer: Customer, provider: FakeProvider) -> None:
    """Hanging up during the second attempt stops the provider and settles it, as during a first."""
    choose(customer, 50_000)
    provider.next(status=503)
    provider.next(tokens=5, stall=float("inf"), stall_after=3)
    with Wire(customer.service.url) as wire:
        wire.send(post(CHAT, customer.token, chat(stream=True, max_tokens=100)))
        wire.line()
        provider.wait(lambda one: len(one.requests) == 2 and one.last.tokens_out >= 3)
    _, second = customer.settled(2)
    assert (second.outcome, second.billed_to) == ("cancelled", "allowance")
    assert 0 < customer.allowance().used == second.charged_tokens
    assert customer.allowance().reserved == 0


def test_the_assistant_is_bridged_too(customer: Customer, provider: FakeProvider) -> None:
    """The page's chat takes the same path, and says who paid in the end."""
    choose(customer, 50_000)
    provider.next(status=503)
    provider.script(tokens=30)
    assert ask(customer)[1] == "allowance"
    assert keys(provider) == [OWN_KEY, PLATFORM_KEY]
    provider.next(status=401)
    with pytest.raises(Exception, match="organization's API key"):
        ask(customer)


def test_nothing_else_is_said_of_the_key(customer: Customer, provider: FakeProvider) -> None:
    """Its health is what it was without the choice, and the metrics count what was bridged and what was not."""
    choose(customer, 50_000)
    provider.next(status=429)
    send(customer)
    node, relay = customer.service.node, customer.service.application.relay
    for _ in range(200):
        (key,) = customer.service.do(lambda: provider_keys.list_keys(node.db, customer.actor))
        if key.health == "limited":
            break
    assert (key.health, key.fallback_tokens) == ("limited", 50_000)
    registry = CollectorRegistry()
    registry.register(relay.metrics)
    exposed = generate_latest(registry).decode()
    assert 'ownkey_fallbacks_total{outcome="served",provider="openai",reason="rate_limit"}' in exposed


def test_a_body_is_the_same_both_times(customer: Customer, provider: FakeProvider) -> None:
    """The second attempt asks for what the first did, byte for byte, but for what metering adds to any call."""
    choose(customer, 50_000)
    provider.next(status=503)
    send(customer, text="Grüße, 世界", seed=7)
    bodies = [json.loads(one.body) for one in provider.requests]
    assert bodies[0] == bodies[1]
