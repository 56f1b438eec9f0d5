"""Bedrock, Ollama and Cohere through the whole gateway: what arrives, what breaks off how, what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownkey.credentials import Secret
from ownkey.errors import ProviderFailed
from ownkey.gateway.dialects.bedrock import BEDROCK
from ownkey.gateway.event_frames import FrameCutter
from ownkey.gateway.readers import FrameReader
from ownkey.providers.registry import PROVIDERS
from tests.fakes.provider import FakeProvider
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Wire, post
from tests.unit.gateway.test_bedrock import CLAUDE_STREAM, CONVERSE_STREAM
from tests.unit.gateway.test_other_formats import COHERE_STREAM, OLLAMA_STREAM

FRAMES, LINES, EVENTS = "application/vnd.amazon.eventstream", "application/x-ndjson", "text/event-stream"
CONVERSE = "/model/amazon.nova-lite-v1%3A0/converse-stream"
INVOKE = "/model/us.anthropic.claude-3%3A0/invoke-with-response-stream"
STREAMS = [
    ("bedrock", CONVERSE, {"messages": []}, FRAMES, CONVERSE_STREAM, (10, 9)),
    ("bedrock", INVOKE, {"messages": [], "max_tokens": 90}, FRAMES, CLAUDE_STREAM, (20, 30)),
    ("ollama", "/api/generate", {"model": "llama3", "prompt": "x"}, LINES, OLLAMA_STREAM, (21, 889)),
    ("cohere", "/v2/chat", {"model": "c", "stream": True, "messages": []}, EVENTS, COHERE_STREAM, (3, 4)),
]
OURS = ("bedrock", "ollama", "cohere", "azure", "qwen")


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application, with platform keys for these providers."""
    folder: Path = tmp_path_factory.mktemp("formats")
    plans = folder / "plans.toml"
    plans.write_text('[plans.tested]\nname = "Tested"\nmonthly_tokens = 1000000\napi_access = true\n')
    keys = {slug: Secret(PLATFORM_KEY) for slug in OURS}
    urls = dict.fromkeys(PROVIDERS, oracle.url)
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, platform_keys=keys, base_urls=urls)
    with running(settings, oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, provider: FakeProvider) -> Customer:
    """An organization of its own for each test."""
    assert provider.requests == []
    return new_customer(service)


def answer(
    path: str, body: object, reply: bytes, content_type: str, status: int = 200, **headers: str
) -> dict[str, Any]:
    """A reply for one request, as the fake provider replays it."""
    return {
        "method": "POST",
        "url_path": path,
        "request_body": json.dumps(body),
        "response_status": status,
        "response_headers": {"content-type": content_type, **{n.replace("_", "-"): v for n, v in headers.items()}},
        "response_body": base64.b64encode(reply).decode(),
        "response_body_encoding": "base64",
        "streaming": status == 200,
    }


@pytest.mark.parametrize(("slug", "path", "body", "content_type", "stream", "usage"), STREAMS)
@pytest.mark.parametrize("payer", ["allowance", "own_key"])
def test_a_stream_arrives_as_it_was_and_is_metered(
    customer: Customer,
    provider: FakeProvider,
    slug: str,
    path: str,
    body: dict[str, Any],
    content_type: str,
    stream: bytes,
    usage: tuple[int, int],
    payer: str,
) -> None:
    """Every byte passes, and the event has the provider's figures, whoever pays."""
    if payer == "own_key":
        customer.connect(slug, "an-own-key-0123456789-abcdefghij")
    provider.replay([answer(path, body, stream, content_type)], split="random", seed=3)
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}{path}", customer.token, body))
        reply = wire.reply()
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, content_type, stream)
    (event,) = customer.settled(1)
    assert (event.input_tokens, event.output_tokens, event.estimated, event.billed_to) == (*usage, False, payer)


def broken(customer: Customer, slug: str, path: str, body: object) -> bytes:
    """What arrives of a stream that the provider breaks off; the connection must break, too."""
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}{path}", customer.token, body))
        received = wire.rest()
    assert not received.endswith(b"0\r\n\r\n")
    return received


def test_a_broken_stream_of_frames_ends_with_an_exception(customer: Customer, provider: FakeProvider) -> None:
    """Between two frames AWS's SDKs get an exception to raise, then the connection breaks."""
    length = int.from_bytes(CONVERSE_STREAM[:4], "big")
    provider.replay([answer(CONVERSE, {"messages": []}, CONVERSE_STREAM, FRAMES)], cut=length, cut_how="fin")
    received = broken(customer, "bedrock", CONVERSE, {"messages": []})
    body = received.partition(b"\r\n\r\n")[2]
    assert CONVERSE_STREAM[:length] in body
    added = body[body.index(b"\x00\x00", body.index(CONVERSE_STREAM[:length]) + length) :]
    reader = FrameReader(BEDROCK)
    reader.take(added[: int.from_bytes(added[:4], "big")])
    assert reader.failed
    assert b"internalServerException" in added
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("failed", True)


def test_a_stream_broken_inside_a_frame_gets_nothing_more(customer: Customer, provider: FakeProvider) -> None:
    """What would follow half a frame could not be read; the broken connection says it."""
    provider.replay([answer(CONVERSE, {"messages": []}, CONVERSE_STREAM, FRAMES)], cut=140, cut_how="fin")
    received = broken(customer, "bedrock", CONVERSE, {"messages": []})
    assert b"provider_failed" not in received
    assert CONVERSE_STREAM[:140] in received


def test_a_broken_stream_of_lines_ends_with_an_error_line(customer: Customer, provider: FakeProvider) -> None:
    """Ollama's clients raise on a line with ``error``."""
    body = {"model": "llama3", "prompt": "x"}
    cut = OLLAMA_STREAM.index(b"\n") + 1
    provider.replay([answer("/api/generate", body, OLLAMA_STREAM, LINES)], cut=cut, cut_how="fin")
    received = broken(customer, "ollama", "/api/generate", body)
    assert b'{"error":"The AI provider' in received


@pytest.mark.parametrize("slug", ["bedrock", "azure", "cohere", "qwen"])
@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("after", ["7", "Fri, 31 Dec 2027 23:59:59 GMT"])
def test_when_to_try_again_is_the_providers_word(
    customer: Customer, provider: FakeProvider, slug: str, status: int, after: str
) -> None:
    """``Retry-After``, in seconds or as a date, passes with the provider's own status and body; nothing is charged."""
    path = {"bedrock": CONVERSE, "cohere": "/v2/chat"}.get(slug, "/openai/v1/chat/completions")
    body, said = {"model": "m", "messages": []}, b'{"message":"Slow down."}'
    headers = {"retry_after": after, "x_amzn_errortype": "ThrottlingException"}
    provider.replay([answer(path, body, said, "application/json", status, **headers)])
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}{path}", customer.token, body))
        reply = wire.reply()
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, said, after)
    assert reply.headers["x-amzn-errortype"] == "ThrottlingException"
    assert "x-should-retry" not in reply.headers
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens) == ("refused", 0)


def test_amazons_refusals_of_a_key_are_the_keys(customer: Customer, provider: FakeProvider) -> None:
    """An own key that Amazon refuses is named so, in AWS's shape with our code."""
    customer.connect("bedrock", "an-own-key-0123456789-abcdefghij")
    said = b'{"message":"The security token included in the request is invalid."}'
    provider.replay([answer(CONVERSE, {"messages": []}, said, "application/json", 403)])
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/bedrock{CONVERSE}", customer.token, {"messages": []}))
        reply = wire.reply()
    assert (reply.status, reply.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert (reply.json["code"], reply.json["__type"]) == ("provider_key_rejected", "AccessDeniedException")


def test_a_guardrail_is_asked_for(customer: Customer, provider: FakeProvider) -> None:
    """What a header of Amazon's asks for reaches Amazon: a guardrail left out would be a hole."""
    path, body = INVOKE.removesuffix("-with-response-stream"), {"messages": [], "max_tokens": 90}
    provider.replay([answer(path, body, b'{"usage":{"input_tokens":1,"output_tokens":2}}', "application/json")])
    with Wire(customer.service.url) as wire:
        extra = "X-Amzn-Bedrock-GuardrailIdentifier: g1\nX-Amz-Security-Token: no\n"
        wire.send(post(f"/bedrock{path}", customer.token, body, extra=extra))
        assert wire.reply().status == 200
    sent = dict(provider.last.headers)
    assert sent["x-amzn-bedrock-guardrailidentifier"] == "g1"
    assert "x-amz-security-token" not in sent


@pytest.mark.parametrize(
    ("slug", "path", "said"),
    [
        ("ollama", "/api/pull", "changes the server"),
        ("bedrock", "/async-invoke", "does later"),
        ("azure", "/openai/batches", "does later"),
    ],
)
def test_an_account_that_is_shared_is_not_changed(customer: Customer, slug: str, path: str, said: str) -> None:
    """On the operator's key nobody pulls models or starts work that ends later."""
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}{path}", customer.token, {"model": "m"}))
        reply = wire.reply()
    assert reply.status == 403
    assert b'"code":"forbidden"' in reply.body
    assert said.encode() in reply.body


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_path_that_nobody_knows_is_for_own_keys(customer: Customer, provider: FakeProvider, method: str) -> None:
    """On the operator's key it could hand out a credential or start work; on an own key it is metered as it goes."""
    path, body = "/api/v1/tokens", {"expire_in_seconds": 1800}
    provider.replay([{**answer(path, body, b'{"token":"st-1"}', "application/json"), "method": method}])
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/qwen{path}", customer.token, body).replace(b"POST", method.encode(), 1))
        refused = wire.reply()
        assert (refused.status, provider.requests) == (403, [])
        assert "not know what this path does" in refused.json["error"]["message"]
        customer.connect("qwen", "sk-own-0123456789abcdefghijklmnop")
        wire.send(post(f"/qwen{path}", customer.token, body).replace(b"POST", method.encode(), 1))
        assert wire.reply().headers["x-ownkey-billed-to"] == "own_key"
    (event,) = customer.settled(1)
    assert event.charged_tokens == 0


def test_frames_of_ours_are_frames() -> None:
    """What we add can be cut like everything else in the stream."""
    event = BEDROCK.error_event(ProviderFailed(), "r")
    ((headers, payload),) = FrameCutter(10_000).take(event)
    assert b"exception" in headers
    assert json.loads(payload)["code"] == "provider_failed"
