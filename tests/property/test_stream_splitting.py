"""However a reply is cut on its way, its bytes and its usage are the same."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownkey.credentials import Secret
from ownkey.gateway.call import Call
from ownkey.gateway.headers import ReplyHead
from ownkey.gateway.passage import Passage
from ownkey.gateway.redacting import Needles
from ownkey.gateway.usage_filter import UsageChunkFilter
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import Usage
from tests.gateway.scale import scaled
from tests.unit.gateway.samples import (
    ANTHROPIC_STREAM,
    GEMINI_STREAM,
    OPENAI_STREAM,
    OPENAI_USAGE,
    call,
    events,
    gemini_chunk,
    named,
    openai_chunk,
    openai_end,
)

KEY = "sk-own-key-0123456789-abcdefghijklmnop"
NEEDLES = Needles([Secret(KEY)])
LINE_ENDS = ["\n", "\r\n", "\r"]
CALLS = {
    "openai": call("openai", {"model": "m", "stream": True}),
    "anthropic": call("anthropic", {"model": "m", "stream": True}),
    "gemini": call("gemini", {}, "/v1beta/models/m:streamGenerateContent?alt=sse"),
    "responses": call("openai", {"model": "m", "stream": True, "input": "x"}, "/v1/responses"),
}


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The stream cut at these places."""
    places = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]


def usage_of(call: Call, parts: list[bytes], finished: bool, asked: frozenset[int] = frozenset()) -> Usage:
    """The usage of a reply that comes in these parts, with the count so far asked for after some of them."""
    watch, last = ReplyWatch(call, "text/event-stream", ""), 0
    for number, part in enumerate(parts):
        watch.feed(part)
        if number in asked:
            now = watch.output_so_far()
            assert now >= last
            last = now
    return watch.usage(finished)


def passed(parts: list[bytes]) -> bytes:
    """What the filter lets through of these parts."""
    passing = UsageChunkFilter()
    return b"".join(passing.feed(part) for part in parts) + passing.flush()


def reached(call: Call, parts: list[bytes]) -> bytes:
    """What the client gets of these parts, in the event stream that a call is answered with."""
    passage = Passage(call, ReplyHead(b"", "text/event-stream", ""), NEEDLES)
    last = len(parts) - 1
    return b"".join(piece for number, part in enumerate(parts) for piece in passage.feed([part], number == last))


def corpus(slug: str, end: str) -> bytes:
    """About four kilobytes of stream, in several scripts, with this line end."""
    words = ["Zwölf ", "世界和平 ", "🎈🐦 ", "Привет ", 'say "hi" \\ ', "한국어 "] * 3
    if slug == "openai":
        body = b": comment\n\n" + events(*(openai_chunk(word) for word in words), openai_end())
        body += events({**openai_chunk(None), "choices": [], "usage": OPENAI_USAGE}, "[DONE]")
    elif slug == "responses":
        deltas = [named("response.output_text.delta", {"delta": word}) for word in words]
        usage = {"input_tokens": 9, "output_tokens": 8, "total_tokens": 17}
        body = b"".join(deltas) + named("response.completed", {"response": {"id": "r", "usage": usage}})
    elif slug == "anthropic":
        start, rest = ANTHROPIC_STREAM.split(b"event: content_block_stop")
        deltas = [named("content_block_delta", {"delta": {"type": "text_delta", "text": word}}) for word in words]
        body = start + b"".join(deltas) + b"event: content_block_stop" + rest
    else:
        body = events(*(gemini_chunk(word, 2 * number) for number, word in enumerate(words)))
        body += GEMINI_STREAM.replace(b"\r\n", b"\n")
    return body.replace(b"\n", end.encode())


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("slug", CALLS)
def test_every_single_cut(slug: str, end: str) -> None:
    """Cut in two at every byte, inside characters and between CR and LF: the same usage, the same bytes passed."""
    stream = corpus(slug, end)
    whole, filtered = usage_of(CALLS[slug], [stream], True), passed([stream])
    assert not whole.estimated
    assert len(filtered) < len(stream) if slug == "openai" else filtered == stream
    for cut in range(len(stream) + 1):
        parts = pieces(stream, [cut])
        assert usage_of(CALLS[slug], parts, True) == whole
        assert usage_of(CALLS[slug], parts, True, frozenset((0,))) == whole
        assert passed(parts) == filtered


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("slug", CALLS)
def test_every_single_cut_of_a_stream_with_a_key_in_it(slug: str, end: str) -> None:
    """Cut in two at every byte, inside the key or not: stars of its length arrive, and the usage is the same."""
    clean = corpus(slug, end)
    stream = clean.replace("世界和平".encode(), KEY.encode())
    call, whole = CALLS[slug], usage_of(CALLS[slug], [stream], True)
    shown = passed([stream]) if slug == "openai" else stream
    shown = shown.replace(KEY.encode(), b"*" * len(KEY))
    assert b"*" in shown
    assert reached(call, [clean]) == (passed([clean]) if slug == "openai" else clean)
    for cut in range(len(stream) + 1):
        parts = pieces(stream, [cut])
        assert usage_of(call, parts, True) == whole
        assert reached(call, parts) == shown


@pytest.mark.prove
@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("slug", CALLS)
def test_many_cuts_at_once(slug: str, end: str) -> None:
    """Cut into up to thirty pieces at random places, whole or broken off: the same usage, the same bytes passed."""
    draw = random.Random(f"{slug}{end}")  # noqa: S311
    stream = corpus(slug, end)
    for _ in range(scaled(200, 1_000)):
        broken = stream[: draw.randrange(len(stream) + 1)]
        cuts = [draw.randrange(len(broken) + 1) for _ in range(draw.randrange(30))]
        asked = frozenset(draw.sample(range(len(cuts) + 1), len(cuts) // 2))
        parts = pieces(broken, cuts)
        assert usage_of(CALLS[slug], parts, False, asked) == usage_of(CALLS[slug], [broken], False)
        assert passed(parts) == passed([broken])


payloads = st.one_of(
    st.text(max_size=20).map(openai_chunk),
    st.text(max_size=20).map(lambda text: gemini_chunk(text, len(text))),
    st.sampled_from(
        [
            {"choices": [], "usage": OPENAI_USAGE},
            {"choices": [], "usage": None},
            {"type": "message_delta", "usage": {"output_tokens": 5}},
            {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
            {"error": {"message": "no"}},
            "[DONE]",
            "not json",
            '{"usage": ',
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(payloads, max_size=6),
    st.sampled_from(LINE_ENDS),
    st.lists(st.sampled_from(["", ": comment", "event: x", "id: 1", "data", "garbage", "\ufeff"]), max_size=3),
    st.data(),
)
def test_any_stream_at_any_cuts(parts: list[Any], end: str, extra: list[str], data: st.DataObject) -> None:
    """Any sequence of events, in any dialect, with anything between them: how it is cut makes no difference."""
    stream = b"".join(
        f"{line}{end}".encode() + events(payload).replace(b"\n", end.encode())
        for payload, line in zip(parts, [*extra, *[""] * len(parts)], strict=False)
    )
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    asked = frozenset(data.draw(st.lists(st.integers(0, 8))))
    finished = data.draw(st.booleans())
    for reading in CALLS.values():
        assert usage_of(reading, pieces(stream, cuts), finished, asked) == usage_of(reading, [stream], finished)
    assert passed(pieces(stream, cuts)) == passed([stream])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_any_bytes_at_any_cuts(junk: bytes, data: st.DataObject) -> None:
    """Bytes that are no reply at all raise nothing, and none of them is lost."""
    cuts = data.draw(st.lists(st.integers(0, len(junk)), max_size=5))
    for reading in CALLS.values():
        assert usage_of(reading, pieces(junk, cuts), data.draw(st.booleans())).input_tokens > 0
    assert passed(pieces(junk, cuts)) == passed([junk])
    assert b'"usage"' in junk or passed([junk]) == junk


def test_the_samples_are_what_they_say() -> None:
    """The hand-written streams have the usage that the other tests rely on."""
    for slug, stream in (("openai", OPENAI_STREAM), ("anthropic", ANTHROPIC_STREAM), ("gemini", GEMINI_STREAM)):
        assert usage_of(CALLS[slug], [stream], True) == usage_of(CALLS[slug], [stream], False)
