"""Recorded replies of providers: usage as an independent reader found it, in one piece and in many."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.call import Call, read_call
from ownkey.gateway.usage_filter import UsageChunkFilter
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import NOTHING_USED, Usage
from ownkey.providers.provider import Provider
from ownkey.providers.registry import PROVIDERS
from tests.fixtures.recordings import read_recordings

pytestmark = pytest.mark.recordings

FAMILIES = ("openai", "anthropic", "gemini", "bedrock", "openai_compatible", "other")
Recording = dict[str, Any]

# What we say otherwise than the recordings' own reader, or than a recording as it stands, and why. A test fails when
# an entry is needed no more.
NOT_JSON = {"r-1ff35aee1eee": "the request is recorded without its last brace, and is refused"}
READ_AGAIN = dict.fromkeys(
    [
        "r-2f7f57ecd9e0",
        "r-37271b95276c",
        "r-52003b97f8b0",
        "r-7cf73bb93ac0",
        "r-9056fbb4443c",
        "r-c490abc2449d",
        "r-d2f1c0c10880",
        "r-f304565a566e",
    ],
    "looking at an answer that was paid for when it was made is free",
)
BY_TOTAL = {"r-51b16505729b": "the reader adds up the parts; hidden thinking is in the total only, and is charged"}
ESTIMATED = {
    "r-65a89cbd5407": "a rerank reports one search and no tokens: it is charged by its text",
    "r-60d27dde2e45": "Ollama leaves out a prompt that it had in its cache: it is charged by its text",
}
FAILED_WITHIN = {"r-501de15e9432": "two events, the second of which says that there is no money: nothing is charged"}
SAYS_ITS_SIZE = {"r-eb684fa8e9e2": "a cache is charged by the hour, and by how many tokens it says are in it"}
BROKEN_OFF = {"d-0007": "the stream ends with an error, after the first count of its output"}
BY_STEPS = dict.fromkeys(
    ["r-0010027a5fae", "r-15ca10147858", "r-e0fa3f70e533", "r-fef81c697540"],
    "the reader leaves out the steps that the totals leave out, and the provider bills",
)


def body_of(one: Recording, name: str) -> bytes:
    """A recorded body as bytes."""
    text = one[name] or ""
    return base64.b64decode(text) if one[f"{name}_encoding"] == "base64" else text.encode()


# Recorded under other names than our rows have.
SLUGS = {"alibaba": "qwen", "bedrock_mantle": "bedrock"}


def provider_of(one: Recording) -> Provider:
    """The row that serves a recording; a company without a row is read as OpenAI's format."""
    name = one["provider"] or ""
    return PROVIDERS.get(SLUGS.get(name, name)) or PROVIDERS["openai"]


def call_of(one: Recording) -> Call:
    """The recorded request, read."""
    path, _, query = one["url_path"].partition("?")
    headers = [(name.encode(), value.encode()) for name, value in one["request_headers"].items()]
    return read_call(provider_of(one), one["method"], path, query, headers, body_of(one, "request_body"))


def usage_in_pieces(one: Recording, call: Call, cuts: list[int], finished: bool = True, ask: bool = False) -> Usage:
    """The usage of a recorded reply that comes in pieces."""
    body, last, so_far = body_of(one, "response_body"), 0, 0
    headers = [(name.encode(), str(value).encode()) for name, value in one["response_headers"].items()]
    watch = ReplyWatch(call, one["response_headers"].get("content-type", ""), "", headers)
    for cut in [*sorted(cuts), len(body) if finished else last]:
        watch.feed(body[last:cut])
        last = max(last, cut)
        if ask:
            now = watch.output_so_far()
            assert now >= so_far, one["id"]
            so_far = now
    return watch.usage(finished)


def by_steps(one: Recording) -> dict[str, int]:
    """What a recorded reply of Anthropic's bills, as its documentation says: the sum of all steps, the last time it
    lists them."""
    text = body_of(one, "response_body").decode()
    steps, _ = json.JSONDecoder().raw_decode(text, text.index("[", text.rindex('"iterations"')))
    read, written = (sum(step[f"cache_{kind}_input_tokens"] for step in steps) for kind in ("read", "creation"))
    return {
        "billable_input_tokens": sum(step["input_tokens"] for step in steps) + read + written,
        "billable_output_tokens": sum(step["output_tokens"] for step in steps),
        "cached_input_tokens": read,
        "cache_write_input_tokens": written,
    }


def expected_of(one: Recording) -> Any:
    """What the recording's reader found, completed by the steps that it leaves out; None: no usage."""
    return one["expected"] | by_steps(one) if one["id"] in BY_STEPS else one["expected"]


def differences(one: Recording, usage: Usage) -> list[str]:
    """Where a usage is not what the recording's reader found."""
    expected = expected_of(one)
    if one["id"] in BY_TOTAL and usage.output_tokens != expected["billable_output_tokens"]:
        return [] if usage.total_tokens == expected["total_tokens"] else ["total"]
    wanted = {
        "estimated": one["id"] in ESTIMATED or one["id"] in BROKEN_OFF,
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


def readable(folder: Path, family: str) -> list[Recording]:
    """The recordings of a family whose request can be read."""
    return [one for one in read_recordings(folder, family) if one["id"] not in NOT_JSON]


@pytest.mark.parametrize("family", FAMILIES)
def test_usage_is_what_the_provider_reported(recordings: Path, family: str) -> None:
    """Of every recorded reply with usage: every figure, exact or estimated as it should be."""
    problems, compared = [], 0
    for one in readable(recordings, family):
        if one["expected"] is None or one["id"] in READ_AGAIN:
            continue
        usage = usage_in_pieces(one, call_of(one), [])
        found = differences(one, usage)
        problems += [f"{one['id']} {one['provider']} {one['endpoint']}: {problem}" for problem in found]
        compared += 1
    print(f"{family}: {compared} replies with usage")
    assert problems == []


def test_every_difference_is_still_one(recordings: Path) -> None:
    """An entry of the lists above that nothing needs any more is to be taken out."""
    found: set[str] = set()
    for family in FAMILIES:
        for one in read_recordings(recordings, family):
            try:
                call = call_of(one)
            except InvalidRequest:
                found.add(one["id"])
                continue
            usage, expected = usage_in_pieces(one, call, []), one["expected"]
            if expected is None:
                if call.endpoint.generates and not usage.total_tokens:
                    found.add(one["id"])
                continue
            exact = (expected["billable_input_tokens"] or 0, expected["billable_output_tokens"] or 0)
            only_total = expected["billable_input_tokens"] is expected["billable_output_tokens"] is None
            if usage.estimated or (exact != (usage.input_tokens, usage.output_tokens) and not only_total):
                found.add(one["id"])
    assert found == {*NOT_JSON, *READ_AGAIN, *BY_TOTAL, *ESTIMATED, *FAILED_WITHIN, *BROKEN_OFF, *BY_STEPS}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watch_says_the_same_however_a_reply_is_cut(recordings: Path, family: str) -> None:
    """Cut at random places, with and without being asked on the way; short replies byte by byte."""
    draw = random.Random(20261101)  # noqa: S311
    for one in readable(recordings, family):
        call, length = call_of(one), len(body_of(one, "response_body"))
        whole = usage_in_pieces(one, call, [])
        if one["expected"] is None and call.endpoint.generates:
            assert one["id"] in FAILED_WITHIN or whole.total_tokens > 0, one["id"]
            assert whole.estimated or one["id"] in {*FAILED_WITHIN, *SAYS_ITS_SIZE}, one["id"]
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
    for one in readable(recordings, family):
        call, length = call_of(one), len(body_of(one, "response_body"))
        if not call.endpoint.generates or one["id"] in FAILED_WITHIN:
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
