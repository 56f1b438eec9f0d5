"""A provider that repeats the key in an answer shows it to nobody, in any format, and is metered all the same."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownkey.credentials import Secret
from ownkey.gateway.event_frames import FrameCutter
from ownkey.providers.registry import PROVIDERS
from tests.fakes.provider import FakeProvider
from tests.gateway.conftest import PLANS
from tests.gateway.service import PLATFORM_KEY, Customer, Service, running, settings_for
from tests.gateway.test_other_formats import CONVERSE, EVENTS, FRAMES, LINES, answer
from tests.gateway.wire import Wire, chat, post
from tests.unit.gateway.samples import (
    ANTHROPIC_STREAM,
    GEMINI_STREAM,
    OPENAI_STREAM,
    events,
    named,
)
from tests.unit.gateway.test_bedrock import CONVERSE_STREAM, event
from tests.unit.gateway.test_other_formats import COHERE_STREAM, OLLAMA_STREAM

OWN_KEY = "sk-own-key-0123456789-abcdefghijklmnop"
JSON = "application/json"
ASKS_FOR_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
GEMINI = "/v1beta/models/gemini-2.5-flash"
RESPONSES_STREAM = named("response.output_text.delta", {"delta": "@"}) + named(
    "response.completed", {"response": {"usage": {"input_tokens": 6, "output_tokens": 7, "total_tokens": 13}}}
)


def plain(content: dict[str, Any]) -> bytes:
    """A whole reply."""
    return json.dumps(content, ensure_ascii=False).encode()


# Provider, path, request, type of the reply, the reply with @ where the key stands, and its input and output tokens.
REPLIES = [
    ("openai", "/v1/chat/completions", ASKS_FOR_USAGE, EVENTS, OPENAI_STREAM.replace(b"\xe4\xb8\x96", b"@"), (25, 9)),
    ("openai", "/v1/responses", {"stream": True, "input": "x"}, EVENTS, RESPONSES_STREAM, (6, 7)),
    ("anthropic", "/v1/messages", {"stream": True}, EVENTS, ANTHROPIC_STREAM.replace(b" aus", b"@"), (15, 12)),
    ("gemini", f"{GEMINI}:streamGenerateContent?alt=sse", {}, EVENTS, GEMINI_STREAM.replace(b"Zw", b"@"), (7, 11)),
    ("cohere", "/v2/chat", {"stream": True}, EVENTS, COHERE_STREAM.replace(b'"Hi"', b'"@"'), (3, 4)),
    ("ollama", "/api/generate", {"prompt": "x"}, LINES, OLLAMA_STREAM.replace(b'"c"', b'"@"'), (21, 889)),
    (
        "openai",
        "/v1/chat/completions",
        {},
        JSON,
        plain({"choices": [{"message": {"content": "@ @"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
        (3, 4),
    ),
    (
        "anthropic",
        "/v1/messages",
        {},
        JSON,
        plain({"content": [{"type": "text", "text": "@"}], "usage": {"input_tokens": 3, "output_tokens": 4}}),
        (3, 4),
    ),
    (
        "gemini",
        f"{GEMINI}:generateContent",
        {},
        JSON,
        plain({"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}, "id": "@"}),
        (3, 4),
    ),
    (
        "bedrock",
        CONVERSE.removesuffix("-stream"),
        {},
        JSON,
        plain({"output": "@", "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}),
        (3, 4),
    ),
]


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application, with platform keys for all of these providers."""
    folder: Path = tmp_path_factory.mktemp("redacting")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    keys = {slug: Secret(PLATFORM_KEY) for slug in ("openai", "anthropic", "gemini", "cohere", "ollama", "bedrock")}
    urls = dict.fromkeys(PROVIDERS, oracle.url)
    settings = settings_for(oracle, data_dir=folder, plans_file=plans, platform_keys=keys, base_urls=urls)
    with running(settings, oracle) as service:
        yield service


def asked(slug: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A request's body: one that any of these providers takes."""
    if slug in ("gemini", "bedrock"):
        return {"contents" if slug == "gemini" else "messages": [], **fields}
    return {"model": "m", "max_tokens": 50, "messages": [], **fields}


@pytest.mark.parametrize(("slug", "path", "fields", "content_type", "reply", "usage"), REPLIES)
@pytest.mark.parametrize("payer", ["allowance", "own_key"])
@pytest.mark.parametrize("split", ["whole", "bytes", "random"])
def test_a_key_in_an_answer_is_overwritten(
    customer: Customer,
    provider: FakeProvider,
    slug: str,
    path: str,
    fields: dict[str, Any],
    content_type: str,
    reply: bytes,
    usage: tuple[int, int],
    payer: str,
    split: Any,
) -> None:
    """Stars of its length stand in its place, every other byte is the provider's, and the usage is as reported."""
    key = PLATFORM_KEY.encode()
    if payer == "own_key":
        customer.connect(slug, OWN_KEY)
        key = OWN_KEY.encode()
    assert b"@" in reply
    body = asked(slug, fields)
    provider.replay([answer(path, body, reply.replace(b"@", key), content_type)], split=split, seed=5)
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}{path}", customer.token, body))
        got = wire.reply()
    assert provider.last.key == key.decode()
    assert (got.status, got.body) == (200, reply.replace(b"@", b"*" * len(key)))
    (counted,) = customer.settled(1)
    assert (counted.input_tokens, counted.output_tokens, counted.estimated) == (*usage, False)
    assert counted.outcome == "finished"


def test_every_single_cut_of_a_stream(customer: Customer, provider: FakeProvider) -> None:
    """Cut in two inside the key and around it: the same bytes arrive, less the usage that nobody asked for."""
    customer.connect("openai", OWN_KEY)
    head, tail = b'data: {"choices":[{"delta":{"content":"', b'"}}]}\n\n'
    usage = events({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}, "[DONE]")
    stream = head + OWN_KEY.encode() + tail + usage
    shown = head + b"*" * len(OWN_KEY) + tail + b"data: [DONE]\n\n"
    body = chat(stream=True)
    cuts = range(len(head) - 1, len(head) + len(OWN_KEY) + 2)
    with Wire(customer.service.url) as wire:
        for cut in cuts:
            provider.replay([answer("/v1/chat/completions", body, stream, EVENTS)], split=cut, gap=0.003)
            wire.send(post("/openai/v1/chat/completions", customer.token, body))
            assert wire.reply().body == shown
    for counted in customer.settled(len(cuts)):
        assert (counted.input_tokens, counted.output_tokens, counted.estimated) == (3, 4, False)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("end", [OWN_KEY, OWN_KEY[:-1], OWN_KEY[:1]])
def test_a_body_that_ends_with_a_key(customer: Customer, provider: FakeProvider, framing: str, end: str) -> None:
    """Nothing that waited for more is lost at the end, and a whole key is overwritten there, too."""
    customer.connect("openai", OWN_KEY)
    provider.next(body=b"The key: " + end.encode(), headers=(("content-type", "text/plain"),), framing=framing)
    with Wire(customer.service.url) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        assert wire.reply().body == b"The key: " + end.replace(OWN_KEY, "*" * len(OWN_KEY)).encode()


def test_what_waits_is_sent_when_the_provider_breaks_off(customer: Customer, provider: FakeProvider) -> None:
    """The beginning of what might have become a key arrives before the error does, once."""
    customer.connect("anthropic", OWN_KEY)
    stream = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"aus")] + OWN_KEY[:12].encode()
    body = asked("anthropic", {"stream": True})
    recorded = answer("/v1/messages", body, stream + b"!", EVENTS)
    provider.replay([recorded], cut=len(stream), cut_how="fin")
    with Wire(customer.service.url) as wire:
        wire.send(post("/anthropic/v1/messages", customer.token, body))
        said = wire.rest()
    assert said.count(OWN_KEY[:12].encode()) == 1
    assert b"provider_failed" in said.partition(OWN_KEY[:12].encode())[2]
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("content_type", [FRAMES, FRAMES.upper()])
@pytest.mark.parametrize("split", ["whole", "bytes", "random"])
def test_a_stream_of_frames_stops_before_a_key(
    customer: Customer, provider: FakeProvider, split: Any, content_type: str
) -> None:
    """Frames have checksums: what came before the key arrives as it was, the reply breaks, and its cost is charged."""
    customer.connect("bedrock", OWN_KEY)
    said = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": OWN_KEY}})
    first = int.from_bytes(CONVERSE_STREAM[:4], "big")
    stream = CONVERSE_STREAM[:first] + said + CONVERSE_STREAM[first:]
    body = asked("bedrock", {})
    provider.replay([answer(CONVERSE, body, stream, content_type)], split=split, seed=11)
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/bedrock{CONVERSE}", customer.token, body))
        if split == "whole":  # nothing has been sent when the key is seen
            reply = wire.reply()
            assert reply.status == 502
            assert b"repeats the API key" in reply.body
        else:
            received = wire.rest()
            frames = dechunked(received)
            assert stream.startswith(frames)
            assert OWN_KEY.encode()[:12] not in frames
            assert len(list(FrameCutter(100_000).take(frames))) <= 1
            assert not received.endswith(b"0\r\n\r\n")
    (counted,) = customer.settled(1)
    assert (counted.outcome, counted.billed_to) == ("failed", "own_key")
    assert counted.input_tokens > 0


def dechunked(received: bytes) -> bytes:
    """The body of a reply in chunks that breaks off."""
    rest, body = received.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_answer_stops_before_a_key(customer: Customer, provider: FakeProvider, stream: bool) -> None:
    """Compressed although we ask for none: it cannot be rewritten, and does not decode to the key."""
    customer.connect("openai", OWN_KEY)
    text = events({"choices": [{"delta": {"content": f"{OWN_KEY}"}}]}, "[DONE]")
    body, recorded = chat(stream=stream), {"content-encoding": "gzip"}
    packed = gzip.compress(text, mtime=0)
    provider.next(body=packed, headers=(("content-type", EVENTS), *recorded.items()), framing="chunked")
    with Wire(customer.service.url) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, body))
        reply = wire.reply()
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    provider.next(gzip=True)
    with Wire(customer.service.url) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        assert json.loads(gzip.decompress(wire.reply().body))["choices"]
    assert [event.outcome for event in customer.settled(2)] == ["failed", "finished"]


def test_a_head_is_overwritten_too(customer: Customer, provider: FakeProvider) -> None:
    """A header field of an answer that repeats the key has stars instead."""
    customer.connect("openai", OWN_KEY)
    provider.next(headers=(("x-ratelimit-echo", f"Bearer {OWN_KEY};{OWN_KEY}"),))
    with Wire(customer.service.url) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        stars = "*" * len(OWN_KEY)
        assert wire.reply().headers["x-ratelimit-echo"] == f"Bearer {stars};{stars}"
