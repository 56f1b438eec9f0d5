"""Hiding the usage chunk: that one event goes, every other byte stays."""

from __future__ import annotations

from typing import Any

import pytest

from ownkey.gateway.usage_filter import UsageChunkFilter
from tests.unit.gateway.samples import OPENAI_STREAM, OPENAI_USAGE, events, openai_chunk, openai_end

LINE_ENDS = [b"\n", b"\r\n", b"\r"]
USAGE_CHUNK = {"id": "c1", "choices": [], "usage": OPENAI_USAGE}


def filtered(stream: bytes, *cuts: int) -> bytes:
    """What passes of a stream that comes in pieces."""
    passing, out, last = UsageChunkFilter(), b"", 0
    for cut in (*cuts, len(stream)):
        out += passing.feed(stream[last:cut])
        last = cut
    return out + passing.flush()


@pytest.mark.parametrize("end", LINE_ENDS)
def test_the_usage_chunk_goes_and_nothing_else(end: bytes) -> None:
    """At every position of the cut, with every kind of line end, exactly one event is missing."""
    usage = events(USAGE_CHUNK).replace(b"\n", end)
    before = events(openai_chunk("Grüße 世界"), openai_end()).replace(b"\n", end)
    after = events("[DONE]").replace(b"\n", end)
    stream = before + usage + after
    for cut in range(len(stream) + 1):
        assert filtered(stream, cut) == before + after
    assert filtered(stream, *range(len(stream))) == before + after


@pytest.mark.parametrize(
    "payload",
    [
        openai_chunk("x", usage=OPENAI_USAGE),
        openai_chunk("x", usage=None),
        {"choices": [], "usage": None},
        {"choices": [], "prompt_filter_results": []},
        {"usage": OPENAI_USAGE},
        {"choices": None, "usage": OPENAI_USAGE},
        {"choices": [], "x_groq": {"usage": OPENAI_USAGE}},
        {"choices": [{"delta": {"content": '"usage": {"choices": []}'}}]},
        {"type": "response.completed", "response": {"usage": OPENAI_USAGE}},
        'not json "usage"',
        "[DONE]",
    ],
)
def test_every_other_event_stays(payload: Any) -> None:
    """Chunks with text, null usage, Azure's filter results, foreign events and junk pass byte for byte."""
    stream = events(openai_chunk("a"), payload, "[DONE]")
    for cut in range(len(stream) + 1):
        assert filtered(stream, cut) == stream


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\n\n\n\n",
        b": keep-alive\n\n",
        b"data: {}",
        b"\r\r\n\n\r",
        b'{"error":{"message":"not a stream"}}',
        b"event: x\nid: 5\nretry: 10\ndata: a\ndata: b\n\n",
        b"data: \xff\xfe\n\n",
    ],
)
def test_odd_streams_pass_whole(stream: bytes) -> None:
    """Comments, blank lines, several data lines, other bytes and an unfinished end are none of our business."""
    for cut in range(len(stream) + 1):
        assert filtered(stream, cut) == stream


def test_whole_events_are_not_held_back() -> None:
    """An event that ends in its piece leaves with it; only half events wait."""
    passing = UsageChunkFilter()
    one = events(openai_chunk("a"))
    assert passing.feed(one) == one
    assert passing.feed(one + one[:10]) == one
    assert passing.feed(one[10:]) == one


def test_a_huge_event_is_not_held() -> None:
    """Beyond 64 KiB an event passes as it comes; it is no usage chunk, however it is cut."""
    huge = b'data: {"choices":[],"usage":{"prompt_tokens":1},"x":"' + b"y" * 200_000 + b'"}\n\n'
    stream = OPENAI_STREAM[:100] + b"\n\n" + huge + events(USAGE_CHUNK) + events("[DONE]")
    expected = OPENAI_STREAM[:100] + b"\n\n" + huge + events("[DONE]")
    for cuts in ((), (50_000,), range(0, len(stream), 1_000), range(0, len(stream), 65_537)):
        assert filtered(stream, *cuts) == expected
    passing = UsageChunkFilter()
    passed = sum(len(passing.feed(b"data: x" + b"y" * 1_000)) for _ in range(1_000))
    assert passed > 900_000
