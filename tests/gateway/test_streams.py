"""Streams as providers really send them: odd lines, errors in the middle, ends that are none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.service import Customer
from tests.gateway.wire import Reply, Wire, chat, post

END_MARKS = (b"[DONE]", b"message_stop")
CONTENTS = {"contents": [{"parts": [{"text": "Hello"}]}]}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (
        "/openai/v1/chat/completions",
        chat(stream=True, max_tokens=100, stream_options={"include_usage": True}),
    ),
    "responses": ("/openai/v1/responses", {"model": "m", "input": "Hello", "stream": True}),
    "anthropic": ("/anthropic/v1/messages", chat(stream=True, max_tokens=100)),
    "gemini": ("/gemini/v1beta/models/m:streamGenerateContent?alt=sse", CONTENTS),
}
every_dialect = pytest.mark.parametrize("slug", STREAMS)


def streamed(customer: Customer, slug: str) -> Reply:
    """A whole stream."""
    path, body = STREAMS[slug]
    with Wire(customer.service.url) as wire:
        wire.send(post(path, customer.token, body))
        return wire.reply()


@every_dialect
@pytest.mark.parametrize("line_end", ["lf", "crlf", "cr"])
def test_every_byte_passes(customer: Customer, provider: FakeProvider, slug: str, line_end: str) -> None:
    """Comments, keep-alives and any kind of line end arrive as they were sent, byte by byte, counted exactly."""
    provider.next(tokens=12, comments=True, line_end=line_end, drip=0.0)
    reply = streamed(customer, slug)
    assert reply.body == bytes(provider.last.sent)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("finished", False)
    assert (event.input_tokens, event.output_tokens) == (provider.last.tokens_in, provider.last.tokens_out)


@every_dialect
def test_an_error_in_the_middle_arrives(customer: Customer, provider: FakeProvider, slug: str) -> None:
    """The provider's error event reaches the client as it came, without an end mark of ours; the call has failed.

    What was delivered before it is charged; marked as an estimate, unless every event reports what was used so far.
    """
    provider.next(tokens=30, error_after=10)
    reply = streamed(customer, slug)
    assert reply.status == 200
    assert reply.body == bytes(provider.last.sent)
    assert b'"error"' in reply.body
    assert not any(mark in reply.body for mark in END_MARKS)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("failed", slug != "gemini")
    assert provider.last.tokens_out <= event.output_tokens <= 60
    assert customer.allowance().reserved == 0


@every_dialect
def test_an_end_without_its_mark(customer: Customer, provider: FakeProvider, slug: str) -> None:
    """A stream that ends without mark and usage gets none from us; what was delivered is charged as an estimate."""
    provider.next(tokens=30, no_end=True, usage="missing")
    reply = streamed(customer, slug)
    assert reply.body == bytes(provider.last.sent)
    assert not any(mark in reply.body for mark in END_MARKS)
    (event,) = customer.settled(1)
    assert event.estimated
    assert event.output_tokens >= 30


def test_what_nobody_knows_passes(customer: Customer, provider: FakeProvider) -> None:
    """Unknown events, empty data, bad JSON, a last line without its end: all of it passes, none of it breaks us."""
    body = (
        b"\xef\xbb\xbf: hello\n\n:\n\nevent: what\ndata: {}\n\ndata:\n\ndata: not json\n\nid: 7\nretry: 10\n\nfoo\n\n"
        b'data: {"choices":[{"index":0,"delta":{"content":"\xe4\xb8\x96"}}]}\n\ndata: {"usage":null}\n\ndata: [DONE]'
    )
    for include in (True, False):
        provider.next(body=body, headers=(("content-type", "text/event-stream"),))
        with Wire(customer.service.url) as wire:
            asked = chat(stream=True, max_tokens=50, stream_options={"include_usage": include})
            wire.send(post(STREAMS["openai"][0], customer.token, asked))
            assert wire.reply().body == body
    assert all(event.estimated for event in customer.settled(2))


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream; Charset=UTF-8"])
def test_a_type_is_the_same_in_capitals(customer: Customer, provider: FakeProvider, content_type: str) -> None:
    """However its type is spelled, usage that only we asked for is counted and not shown; the type passes as it is."""
    provider.next(tokens=12, headers=(("content-type", content_type),))
    with Wire(customer.service.url) as wire:
        wire.send(post(STREAMS["openai"][0], customer.token, chat(stream=True, max_tokens=100)))
        reply = wire.reply()
    assert reply.headers["content-type"] == content_type
    assert b'"usage":{' in provider.last.sent
    assert b'"usage":{' not in reply.body
    assert b"[DONE]" in reply.body
    (event,) = customer.settled(1)
    assert (event.output_tokens, event.estimated) == (12, False)


@every_dialect
@pytest.mark.parametrize("after", [0, 5])
def test_a_client_that_leaves_a_silent_provider(
    customer: Customer, provider: FakeProvider, slug: str, after: int
) -> None:
    """A client that hangs up while its provider is silent ends the provider's connection within a second."""
    provider.next(tokens=50, stall=float("inf"), stall_after=after)
    path, body = STREAMS[slug]
    wire = Wire(customer.service.url)
    wire.send(post(path, customer.token, body))
    provider.wait(lambda p: bool(p.requests) and p.last.tokens_out >= after and p.last.status == 200)
    wire.close()
    provider.wait(lambda p: p.last.closed_at is not None, timeout=1.0)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("cancelled", True)
    assert event.charged_tokens > 0
    assert customer.allowance().reserved == 0


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("retry_after", ["7", "Wed, 25 Nov 2026 08:00:00 GMT"])
def test_pressure_passes_with_its_advice(
    customer: Customer, provider: FakeProvider, status: int, retry_after: str
) -> None:
    """A provider's 429, 503 and 529 pass with `Retry-After` in either form; one try, which costs nothing."""
    provider.next(status=status, retry_after=retry_after)
    reply = streamed(customer, "openai")
    assert (reply.status, reply.headers["retry-after"]) == (status, retry_after)
    assert reply.body == bytes(provider.last.sent)
    assert b"allowance_exhausted" not in reply.body
    assert b"request_limit_reached" not in reply.body
    assert len(provider.requests) == 1
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens) == ("refused", 0)
