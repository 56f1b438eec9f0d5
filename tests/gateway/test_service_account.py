"""Calls on a service account's key: one access token for all of them, renewed in time, and never shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ownkey.credentials import Secret
from ownkey.vault import provider_keys
from tests.fakes.provider import FakeProvider
from tests.fakes.token_service import TokenService, document
from tests.gateway.conftest import PLANS
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Reply, Wire, chat, post

PATH = "/vertex/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent"
BODY = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}], "generationConfig": {"maxOutputTokens": 20}}


@pytest.fixture(scope="module")
def google() -> Iterator[TokenService]:
    """The token service; ``tokens`` gives it with nothing remembered."""
    with TokenService() as google:
        yield google


@pytest.fixture
def tokens(google: TokenService) -> TokenService:
    """The token service, willing, and with an empty memory."""
    google.release()
    google.lifetime = 3600
    google.answers.clear()
    google.asked.clear()
    return google


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, google: TokenService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application, whose Vertex is the fake provider and whose operator has a service account, too."""
    folder: Path = tmp_path_factory.mktemp("service")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    platform = {"vertex": Secret(google.account("operator")), "openai": Secret("sk-platform-0123456789abcdef")}
    settings = settings_for(
        oracle, data_dir=folder, plans_file=plans, platform_keys=platform, google_token_url=google.url
    )
    with running(settings, oracle) as service:
        yield service


def ask(customer: Customer) -> Reply:
    """One call on Vertex."""
    with Wire(customer.service.url) as wire:
        wire.send(post(PATH, customer.token, BODY))
        return wire.reply()


def in_threads(customer: Customer, number: int) -> tuple[ThreadPoolExecutor, list[Future[Reply]]]:
    """So many calls at the same time."""
    pool = ThreadPoolExecutor(number)
    return pool, [pool.submit(ask, customer) for _ in range(number)]


def wait_for(condition: Any) -> None:
    """Until it holds; at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_many_calls_share_one_token(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """Twenty calls that begin without a token cause one request for one, and all carry it, and nothing else does."""
    key = tokens.account("many")
    customer.connect("vertex", key)
    tokens.hold()
    pool, replies = in_threads(customer, 20)
    with pool:
        wait_for(lambda: len(customer.service.application.relay.active) == 20)
        tokens.release()
        assert [reply.result().status for reply in replies] == [200] * 20
    assert ask(customer).status == 200
    assert len(tokens.asked) == 1
    assert {request.key for request in provider.requests} == {tokens.given[-1]}
    assert not any(json.loads(key)["private_key"].encode() in request.body for request in provider.requests)
    assert all(event.billed_to == "own_key" for event in customer.settled(21))


def test_waiting_for_a_token_keeps_nobody_else(
    customer: Customer, provider: FakeProvider, tokens: TokenService
) -> None:
    """While the token service is silent, calls on other keys are answered."""
    customer.connect("vertex", tokens.account("slow"))
    tokens.hold()
    pool, (waiting,) = in_threads(customer, 1)
    with pool:
        wait_for(lambda: tokens.asked)
        with Wire(customer.service.url) as wire:
            wire.send(post("/openai/v1/chat/completions", customer.token, chat(max_tokens=5)))
            assert wire.reply().status == 200
        assert not waiting.done()
        tokens.release()
        assert waiting.result().status == 200


def test_a_key_replaced_meanwhile_is_not_used(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """A call that waited for the old key's token goes out on the new key."""
    customer.connect("vertex", tokens.account("old"))
    tokens.hold()
    pool, (waiting,) = in_threads(customer, 1)
    with pool:
        wait_for(lambda: tokens.asked)
        customer.connect("vertex", tokens.account("new"))
        tokens.release()
        assert waiting.result().status == 200
    assert [request.key.partition("-")[0] for request in provider.requests] == ["ya29.new"]


def test_a_key_removed_meanwhile_is_not_used(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """A call that waited for the token of a key that is gone runs on the allowance, as if it came now."""
    customer.connect("vertex", tokens.account("gone"))
    tokens.hold()
    pool, (waiting,) = in_threads(customer, 1)
    with pool:
        wait_for(lambda: tokens.asked)
        customer.disconnect("vertex")
        tokens.release()
        assert waiting.result().status == 200
    assert [request.key.partition("-")[0] for request in provider.requests] == ["ya29.operator"]
    (event,) = customer.settled(1)
    assert event.billed_to == "allowance"


def test_a_refused_key_is_told_and_noted(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """``invalid_grant`` is the organization's key refused: 403 with our code, health *rejected*, nothing sent."""
    with TokenService() as another:
        pem = json.loads(another.account("unknown"))["private_key"]
    customer.connect("vertex", document("unknown@project.iam.gserviceaccount.com", pem))
    reply = ask(customer)
    assert (reply.status, reply.json["error"]["details"][0]["reason"]) == (403, "provider_key_rejected")
    assert "invalid_grant" in reply.json["error"]["message"]
    assert "eyJ" not in reply.json["error"]["message"]  # the service repeats the assertion
    assert provider.requests == []
    wait_for(lambda: _health(customer) == "rejected")


def _health(customer: Customer) -> str:
    node = customer.service.node
    (key,) = customer.service.do(lambda: provider_keys.list_keys(node.db, customer.actor))
    return key.health.value


def test_a_service_that_fails_is_an_outage(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """An error or nonsense of the token service is 502, does not reject the key, and passes."""
    for answer in ((503, {"error": "unavailable"}), (200, {"nothing": 1}), (200, {"access_token": "a\r\nx: y"})):
        customer.connect("vertex", tokens.account("outage"))
        tokens.answers.append(answer)
        reply = ask(customer)
        assert (reply.status, reply.json["error"]["details"][0]["reason"]) == (502, "provider_failed")
    threading.Event().wait(2.1)  # a failure stands for two seconds
    assert ask(customer).status == 200
    wait_for(lambda: _health(customer) == "active")


def test_a_failure_is_not_asked_for_again_at_once(
    customer: Customer, provider: FakeProvider, tokens: TokenService
) -> None:
    """Calls one after another on a key that gets no token do not storm the token service."""
    customer.connect("vertex", tokens.account("storm"))
    tokens.answers += [(503, {})] * 50
    assert [ask(customer).status for _ in range(20)] == [502] * 20
    assert len(tokens.asked) < 5


def test_a_token_is_renewed_before_its_end(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """Calls go on while the next token is fetched, and no call carries one that has ended."""
    tokens.lifetime = 2
    customer.connect("vertex", tokens.account("short"))
    ends: dict[str, float] = {}
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert ask(customer).status == 200
        sent = provider.last.key
        ends.setdefault(sent, time.monotonic() + tokens.lifetime)
        assert time.monotonic() < ends[sent] + 0.5
    assert 2 <= len(tokens.asked) <= 6


def test_a_token_that_the_provider_refuses_is_dropped(
    customer: Customer, provider: FakeProvider, tokens: TokenService
) -> None:
    """After a 401 the next call gets a new token, in case the old one was revoked before its end."""
    customer.connect("vertex", tokens.account("revoked"))
    assert ask(customer).status == 200
    provider.next(status=401)
    assert ask(customer).status == 403
    assert ask(customer).status == 200
    assert len(tokens.asked) == 2
    assert provider.requests[0].key != provider.requests[-1].key


def test_refused_tokens_make_no_storm(customer: Customer, provider: FakeProvider, tokens: TokenService) -> None:
    """Where every token is refused, they are not fetched one after another."""
    customer.connect("vertex", tokens.account("refused"))
    provider.script(status=401)
    assert [ask(customer).status for _ in range(20)] == [403] * 20
    assert len(tokens.asked) <= 2


def test_a_late_refusal_is_of_the_token_it_had(
    customer: Customer, provider: FakeProvider, tokens: TokenService
) -> None:
    """Calls that began with a token before say nothing of the one there is now."""
    customer.connect("vertex", tokens.account("late"))
    assert ask(customer).status == 200
    provider.next(status=401, times=5)
    provider.hold()
    pool, late = in_threads(customer, 5)
    with pool:
        provider.wait(lambda one: one.held == 5)
        provider.release(1)
        wait_for(lambda: any(reply.done() for reply in late))
        another, (fresh,) = in_threads(customer, 1)
        with another:
            provider.wait(lambda one: one.held == 5)
            assert len(tokens.asked) == 2
            provider.release()
            assert fresh.result().status == 200
        assert [reply.result().status for reply in late] == [403] * 5
    assert ask(customer).status == 200
    assert len(tokens.asked) == 2


def test_neither_token_nor_private_key_comes_back(
    customer: Customer, provider: FakeProvider, tokens: TokenService, capfd: pytest.CaptureFixture[str]
) -> None:
    """A provider that repeats what it got, or knows the key, shows the caller neither; no log line has them."""
    key = tokens.account("echo")
    pem = json.loads(key)["private_key"]
    customer.connect("vertex", key)
    assert ask(customer).status == 200
    token = tokens.given[-1]
    said = json.dumps({"error": {"message": f"Bad token {token} of {pem}", "status": "INVALID_ARGUMENT", "code": 400}})
    provider.next(status=400, body=said.encode(), headers=(("x-goog-echo", token),))
    reply = ask(customer)
    assert reply.status == 400
    shown = reply.body.decode() + str(reply.headers)
    assert token not in shown
    assert not any(line in shown for line in pem.splitlines() if len(line) > 20)
    assert reply.headers["x-goog-echo"] == "*" * len(token)
    logged = "".join(capfd.readouterr())
    assert token not in logged
    assert not any(line in logged for line in pem.splitlines() if len(line) > 20)


def test_the_operators_account_serves_the_allowance(
    service: Service, provider: FakeProvider, tokens: TokenService
) -> None:
    """The platform key for Vertex is a JSON document, too; a refusal of it is no business of the caller."""
    customer = new_customer(service)
    assert ask(customer).status == 200
    assert provider.last.key.startswith("ya29.operator-")
    (event,) = customer.settled(1)
    assert event.billed_to == "allowance"


def test_a_client_that_leaves_while_waiting_costs_nothing(
    customer: Customer, provider: FakeProvider, tokens: TokenService
) -> None:
    """Nothing is sent for it when the token comes, and nothing stays held."""
    customer.connect("vertex", tokens.account("left"))
    tokens.hold()
    with Wire(customer.service.url) as wire:
        wire.send(post(PATH, customer.token, BODY))
        wait_for(lambda: tokens.asked)
    tokens.release()
    wait_for(lambda: not customer.service.application.relay.active)
    assert provider.requests == []
    customer.check_ledger()
