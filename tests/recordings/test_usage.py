"""Recorded replies of providers: usage as an independent reader found it, in one piece and in many."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest

from ownkey.gateway.call import Call, read_call
from ownkey.gateway.usage_filter import UsageChunkFilter
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import NOTHING_USED, Usage
from ownkey.providers.provider import Provider
from ownkey.providers.registry import PROVIDERS
from tests.fixtures.recordings import read_recordings

pytestmark = pytest.mark.recordings

FAMILIES = ("openai", "anthropic", "gemini", "openai_compatible", "other")
Recording = dict[str, Any]

# The reader of the recordings adds up the parts; we charge the total where the provider says that it is more.
CHARGED_BY_TOTAL = {"r-51b16505729b"}
# Reports a number of searches and no tokens.
NO_TOKENS = {"r-65a89cbd5407"}
# A stream of two events, the second of which says that the request was refused for lack of money.
NOTHING_GENERATED = {"r-501de15e9432"}


def body_of(one: Recording, name: str) -> bytes:
    """A recorded body as bytes."""
    text = one[name] or ""
    return base64.b64decode(text) if one[f"{name}_encoding"] == "base64" else text.encode()


def provider_of(one: Recording) -> Provider:
    """The row that serves a recording; one without a row is read as OpenAI's format, Vertex as Gemini's."""
    return PROVIDERS.get(one["provider"]) or PROVIDERS["gemini" if one["provider"] == "vertex" else "openai"]


def call_of(one: Recording) -> Call:
    """The recorded request, read."""
    path, _, query = one["url_path"].partition("?")
    headers = [(name.encode(), value.encode()) for name, value in one["request_headers"].items()]
    return read_call(provider_of(one), one["method"], path, query, headers, body_of(one, "request_body"))


def usage_in_pieces(one: Recording, call: Call, cuts: list[int], finished: bool = True, ask: bool = False) -> Usage:
    """The usage of a recorded reply that comes in pieces."""
    body, last, so_far = body_of(one, "response_body"), 0, 0
    watch = ReplyWatch(call, one["response_headers"].get("content-type", ""), "")
    for cut in [*sorted(cuts), len(body) if finished else last]:
        watch.feed(body[last:cut])
        last = max(last, cut)
        if ask:
            now = watch.output_so_far()
            assert now >= so_far, one["id"]
            so_far = now
    return watch.usage(finished)


def differences(one: Recording, usage: Usage) -> list[str]:
    """Where a usage is not what the recording's reader found."""
    expected = one["expected"]
    if one["id"] in CHARGED_BY_TOTAL:
        return [] if usage.total_tokens == expected["total_tokens"] else ["total"]
    wanted = {
        "input_tokens": expected["billable_input_tokens"],
        "output_tokens": expected["billable_output_tokens"],
        "cached_input_tokens": expected["cached_input_tokens"],
        "cache_write_tokens": expected["cache_write_input_tokens"],
        "reasoning_tokens": expected["reasoning_tokens"],
    }
    if expected["billable_input_tokens"] is None and expected["billable_output_tokens"] is None:
        wanted["total_tokens"] = expected["total_tokens"]
    return [
        f"{name} {getattr(usage, name)} instead of {value}"
        for name, value in wanted.items()
        if value is not None and getattr(usage, name) != value
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_usage_is_what_the_provider_reported(recordings: Path, family: str) -> None:
    """Of every recorded reply with usage: every figure, read from the whole body."""
    problems, compared = [], 0
    for one in read_recordings(recordings, family):
        if one["expected"] is None or one["id"] in NO_TOKENS:
            continue
        dialect, body = call_of(one).endpoint.dialect, body_of(one, "response_body")
        usage = dialect.usage_in_body(body) or dialect.usage_in_events(body)
        found = ["not found"] if usage is None else differences(one, usage)
        problems += [f"{one['id']} {one['provider']} {one['endpoint']}: {problem}" for problem in found]
        compared += 1
    print(f"{family}: {compared} replies with usage")
    assert problems == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watch_says_the_same_however_a_reply_is_cut(recordings: Path, family: str) -> None:
    """Cut at random places, with and without being asked on the way; short replies byte by byte."""
    draw = random.Random(20261101)  # noqa: S311
    for one in read_recordings(recordings, family):
        call, length = call_of(one), len(body_of(one, "response_body"))
        whole = usage_in_pieces(one, call, [])
        if one["expected"] is None and call.endpoint.generates:
            assert one["id"] in NOTHING_GENERATED or (whole.estimated and whole.total_tokens > 0), one["id"]
        if not call.endpoint.generates:
            assert whole == NOTHING_USED
        for ask in (False, True):
            cuts = [draw.randrange(length + 1) for _ in range(draw.choice((1, 3, 20)))]
            assert usage_in_pieces(one, call, cuts, ask=ask) == whole, one["id"]
        if length < 2_000:
            assert usage_in_pieces(one, call, list(range(1, length))) == whole, one["id"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_that_breaks_off_is_never_free(recordings: Path, family: str) -> None:
    """Broken off anywhere, whatever a call generates costs at least its input, and reading raises nothing."""
    draw = random.Random(7)  # noqa: S311
    for one in read_recordings(recordings, family):
        call, length = call_of(one), len(body_of(one, "response_body"))
        if not call.endpoint.generates or one["id"] in NOTHING_GENERATED:
            continue
        for _ in range(4):
            usage = usage_in_pieces(one, call, [draw.randrange(length + 1)], finished=False)
            assert usage.input_tokens > 0 or not usage.estimated, one["id"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_filter_drops_the_usage_chunk_only(recordings: Path, family: str) -> None:
    """Of a recorded chat stream one event at most goes, the same one however the stream is cut."""
    draw = random.Random(3)  # noqa: S311
    for one in read_recordings(recordings, family):
        if not one["streaming"] or one["endpoint"] != "chat_completions":
            continue
        body = body_of(one, "response_body")
        passed = filtered(body, [])
        assert filtered(body, [draw.randrange(len(body) + 1) for _ in range(30)]) == passed
        assert filtered(body, list(range(len(body)))) == passed
        if passed != body:
            start = next(at for at, (a, b) in enumerate(zip(body, passed + b"\0", strict=False)) if a != b)
            gone = len(body) - len(passed)
            assert body[:start] + body[start + gone :] == passed
            assert b'"usage"' in body[start - 200 : start + gone]


def filtered(stream: bytes, cuts: list[int]) -> bytes:
    """What a caller who did not ask for usage gets of a stream that comes in pieces."""
    passing, out, last = UsageChunkFilter(), b"", 0
    for cut in [*sorted(cuts), len(stream)]:
        out += passing.feed(stream[last:cut])
        last = cut
    return out + passing.flush()
