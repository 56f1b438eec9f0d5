"""Where a call goes and who makes it: decided by the routed path and one token, whatever else a request says."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.service import PLATFORM_KEY, Customer
from tests.gateway.wire import Reply, Wire, chat

CHAT = "/openai/v1/chat/completions"
GEMINI = "/gemini/v1beta/models/{}:generateContent"
SLOTS = ["authorization: Bearer {}", "x-api-key: {}", "x-goog-api-key: {}", "api-key: {}", "?key={}"]
CONTENTS = {"contents": [{"parts": [{"text": "Hello"}]}]}


def ask(customer: Customer, path: str, body: object, *fields: str, host: str = "here") -> Reply:
    """A POST with header lines, or query parameters among them."""
    query = "&".join(field[1:] for field in fields if field.startswith("?"))
    lines = "".join(f"{field}\n" for field in fields if not field.startswith("?"))
    data = json.dumps(body)
    target = f"{path}{'&' if '?' in path else '?'}{query}" if query else path
    with Wire(customer.service.url) as wire:
        wire.send(f"POST {target} HTTP/1.1\nHost: {host}\n{lines}Content-Length: {len(data)}\n\n")
        wire.send(data.encode())
        return wire.reply()


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat(max_tokens=50)), ("/anthropic/v1/messages", chat(max_tokens=50)), (GEMINI.format("m"), CONTENTS)],
)
def test_every_slot_decides_alike(customer: Customer, provider: FakeProvider, path: str, body: object) -> None:
    """A good token is accepted and a bad one refused in each place alike; the provider sees its own credential."""
    for slot in SLOTS:
        assert ask(customer, path, body, slot.format(customer.token)).status == 200
        refused = ask(customer, path, body, slot.format("ownkey_" + "x" * 40))
        assert refused.status == 401
    assert len(provider.requests) == len(SLOTS)
    for received in provider.requests:
        assert received.key == PLATFORM_KEY
        assert customer.token not in received.target
        assert not any(customer.token in value for _, value in received.headers)


def test_two_tokens_are_a_conflict_wherever_they_are(customer: Customer, provider: FakeProvider) -> None:
    """Two different tokens in any two places are 400, whichever of them is good; the same one twice is fine."""
    for first in SLOTS:
        for second in SLOTS:
            if first != second:
                both = (first.format(customer.token), second.format("ownkey_other"))
                assert ask(customer, CHAT, chat(), *both).status == 400
    assert ask(customer, CHAT, chat(), "?key=ownkey_a", "?key=ownkey_b").status == 400
    assert provider.requests == []
    assert ask(customer, CHAT, chat(), *(slot.format(customer.token) for slot in SLOTS)).status == 200


@pytest.mark.parametrize("name", ["key", "%6bey", "k%65y", "KEY", "Key", "%4bey"])
def test_no_key_parameter_goes_up(customer: Customer, provider: FakeProvider, name: str) -> None:
    """However a `key` parameter is written, it never reaches the provider; other parameters do as they came."""
    token = f"authorization: Bearer {customer.token}"
    extra = f"?{name}={customer.token}&a=%20b&c"
    assert ask(customer, CHAT, chat(), token, extra).status == 200
    assert provider.last.query == "a=%20b&c"


@pytest.mark.parametrize("host", ["x/?", "x#", "a/admin?", "api.openai.com/x", "user@here", "a,b", "::1"])
def test_an_odd_host_is_refused(customer: Customer, provider: FakeProvider, host: str) -> None:
    """A Host that could be read as part of an address is 400 for calls and pages."""
    for path in (CHAT, "/sign-in", "/api/v1/me"):
        reply = ask(customer, path, chat(), f"authorization: Bearer {customer.token}", host=host)
        assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert provider.requests == []


@pytest.mark.parametrize("host", ["api.anthropic.com", "169.254.169.254", "here:8000", "[::1]:80", "EXAMPLE.com"])
def test_the_host_decides_nothing(customer: Customer, provider: FakeProvider, host: str) -> None:
    """The call goes where its path says, to that provider's own host, with that provider's key."""
    reply = ask(customer, CHAT, chat(), f"authorization: Bearer {customer.token}", host=host)
    assert reply.status == 200
    assert provider.last.mount == "openai"
    assert provider.last.host == f"127.0.0.1:{provider.port}"


BAD_MODELS = [
    "..",
    "../admin",
    "a/../b",
    "a\\b",
    "a?b",
    "a#b",
    "a\r\nx: y",
    "a\nb",
    "a\0b",
    "a%2e%2e%2fb",
    "a//b",
]


@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_bad_model_is_refused(customer: Customer, provider: FakeProvider, model: str) -> None:
    """A name that could change the address it becomes part of is 400, in a body and in a path, plain or quoted."""
    token = f"authorization: Bearer {customer.token}"
    assert ask(customer, CHAT, {**chat(), "model": model}, token).status == 400
    assert ask(customer, "/anthropic/v1/messages", {**chat(max_tokens=5), "model": model}, token).status == 400
    for quoted in {quote(model, safe=""), quote(model)}:
        reply = ask(customer, GEMINI.format(quoted), CONTENTS, token)
        assert reply.status == 400, quoted
    assert provider.requests == []


def test_a_model_that_disagrees_with_the_path(customer: Customer, provider: FakeProvider) -> None:
    """The path's model is the one that is priced and asked for; a body that names another is 400."""
    token = f"authorization: Bearer {customer.token}"
    path = GEMINI.format("gemini-2.5-flash")
    assert ask(customer, path, {**CONTENTS, "model": "models/gemini-2.5-pro"}, token).status == 400
    assert provider.requests == []
    assert ask(customer, path, {**CONTENTS, "model": "models/gemini-2.5-flash"}, token, "?model=other").status == 200
    assert provider.last.model == "gemini-2.5-flash"
    (event,) = customer.settled(1)
    assert event.model == "gemini-2.5-flash"


def test_what_connection_names_stays_here(customer: Customer, provider: FakeProvider) -> None:
    """A field that `Connection` names is for this hop only, even one that passes otherwise."""
    token = f"authorization: Bearer {customer.token}"
    ask(customer, CHAT, chat(), token, "openai-beta: passes")
    assert provider.last.header("openai-beta") == "passes"
    reply = ask(customer, CHAT, chat(), token, "openai-beta: stays", "connection: keep-alive, OpenAI-Beta")
    assert reply.status == 200
    assert provider.last.header("openai-beta") == ""
    assert provider.last.header("connection") == ""
