"""Cohere's and Ollama's own formats, Azure's deployments and versions, Vertex AI's models of other makers, sound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.call import Call
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.gateway.estimates import AUDIO_TOKENS_PER_SECOND
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import Usage
from tests.unit.gateway.samples import call

LINES = "application/x-ndjson"
PROMPT = {"model": "llama3", "prompt": "x" * 400}
OLLAMA_STREAM = (
    b"".join(json.dumps({"model": "llama3", "response": word, "done": False}).encode() + b"\n" for word in "abcdef")
    + json.dumps({"done": True, "response": "", "prompt_eval_count": 21, "eval_count": 889, "context": [1]}).encode()
    + b"\n"
)


def read(asked: Call, pieces: list[bytes], content_type: str, *, finished: bool = True) -> Usage:
    """The usage of a reply that comes in these pieces."""
    watch = ReplyWatch(asked, content_type, "")
    for piece in pieces:
        watch.feed(piece)
        watch.output_so_far()
    return watch.usage(finished)


def test_a_stream_of_lines_is_exact_however_it_is_cut() -> None:
    """Every single split of an Ollama stream gives the counts of its last line, also where the text is long."""
    asked = call("ollama", PROMPT, "/api/generate")
    for at in range(len(OLLAMA_STREAM) + 1):
        assert read(asked, [OLLAMA_STREAM[:at], OLLAMA_STREAM[at:]], LINES) == Usage(21, 889)
    long = OLLAMA_STREAM[: OLLAMA_STREAM.index(b"\n") + 1] * 30_000 + OLLAMA_STREAM
    assert read(asked, [long[at : at + 65_536] for at in range(0, len(long), 65_536)], LINES) == Usage(21, 889)


def test_a_stream_of_lines_that_breaks_off_is_estimated() -> None:
    """Without its last line it costs its request and a token a line; an error of ours fits between two lines only."""
    asked = call("ollama", PROMPT, "/api/generate")
    end = OLLAMA_STREAM.index(b"\n", 200) + 1
    usage = read(asked, [OLLAMA_STREAM[:end]], LINES, finished=False)
    assert usage.estimated
    assert usage.input_tokens >= 100
    assert usage.output_tokens >= 3
    for cut, fits in ((end, True), (end + 5, False)):
        watch = ReplyWatch(asked, LINES, "")
        watch.feed(OLLAMA_STREAM[:cut])
        watch.usage(False)
        assert watch.is_event_stream is fits


def test_a_prompt_that_ollama_had_in_its_cache_is_estimated() -> None:
    """It leaves ``prompt_eval_count`` out then; the output is exact all the same."""
    usage = read(
        call("ollama", {**PROMPT, "stream": False}, "/api/generate"), [b'{"eval_count":5}'], "application/json"
    )
    assert (usage.estimated, usage.output_tokens) == (True, 5)
    assert usage.input_tokens >= 100


@pytest.mark.parametrize(("stream", "streams"), [({}, True), ({"stream": True}, True), ({"stream": False}, False)])
def test_ollama_streams_unless_it_is_told_not_to(stream: dict[str, Any], streams: bool) -> None:
    """That is its default, so that an error of ours in the middle is a line more."""
    assert call("ollama", {**PROMPT, **stream}, "/api/chat").stream is streams


@pytest.mark.parametrize(("options", "limit"), [({}, None), ({"num_predict": 50}, 50), ({"num_predict": -1}, None)])
def test_ollamas_limit_stands_in_its_options(options: dict[str, int], limit: int | None) -> None:
    """``num_predict``; -1 and -2 mean no limit, and are replaced by one where the allowance needs it."""
    asked = call("ollama", {**PROMPT, "options": {"seed": 1, **options}}, "/api/generate")
    assert asked.output_limit == limit
    assert json.loads(asked.with_output_limit(20))["options"] == {"seed": 1, "num_predict": 20}


@pytest.mark.parametrize("limit", [-1.0, -3, 0, "50", True, [], 10**9])
def test_what_is_no_limit_is_refused(limit: object) -> None:
    """A limit that we would have to guess about is named and refused."""
    with pytest.raises(InvalidRequest):
        call("ollama", {**PROMPT, "options": {"num_predict": limit}}, "/api/generate")


def test_ollamas_pictures_are_counted() -> None:
    """They stand in a list beside the text, at the top or in a message."""
    few = call("ollama", PROMPT, "/api/generate").input_ceiling()
    assert call("ollama", {**PROMPT, "images": ["AAAA"]}, "/api/generate").input_ceiling() > few + 5_000
    chat = {"model": "m", "messages": [{"role": "user", "content": "x", "images": ["AAAA", "BBBB"]}]}
    assert call("ollama", chat, "/api/chat").input_ceiling() > 15_000


COHERE_STREAM = (
    b'event: content-delta\ndata: {"type":"content-delta","delta":{"message":{"content":{"text":"Hi"}}}}\n\n'
    b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":'
    b'{"input_tokens":3,"output_tokens":4},"tokens":{"input_tokens":900,"output_tokens":9}}}}\n\n'
)


def test_cohere_is_charged_what_it_bills() -> None:
    """``billed_units``, not the tokens of its own prompt; in either stream; it is not asked for usage."""
    asked = call("cohere", {"model": "command-r", "stream": True, "messages": []}, "/v2/chat")
    assert asked.reports_usage
    assert read(asked, [COHERE_STREAM], "text/event-stream") == Usage(3, 4)
    lines = (
        b'{"event_type":"text-generation","text":"Hi"}\n{"event_type":"stream-end","response":{"text":"Hi","meta":'
        b'{"billed_units":{"input_tokens":3,"output_tokens":4}}}}\n'
    )
    first = call("cohere", {"model": "command", "stream": True, "message": "x"}, "/v1/chat")
    assert read(first, [lines[:70], lines[70:]], "application/stream+json") == Usage(3, 4)


def test_a_search_is_charged_by_its_text() -> None:
    """A rerank reports searches and no tokens; what it read is estimated and marked."""
    asked = call("cohere", {"model": "rerank-v3.5", "query": "x" * 40, "documents": ["y" * 360]}, "/v2/rerank")
    usage = read(asked, [b'{"results":[],"meta":{"billed_units":{"search_units":1}}}'], "application/json")
    assert (usage.estimated, usage.output_tokens) == (True, 0)
    assert 100 <= usage.input_tokens <= 150


@pytest.mark.parametrize(
    ("query", "asks"),
    [
        ("api-version=2024-02-01", False),
        ("api-version=2024-10-21", True),
        ("x=1&api-version=2025-04-01-preview", True),
        ("", True),
    ],
)
def test_an_old_azure_is_not_asked_for_usage(query: str, asks: bool) -> None:
    """Versions before September 2024 refuse ``stream_options``; their streams are estimated."""
    path = "/openai/deployments/mine/chat/completions"
    asked = call("azure", {"stream": True, "messages": []}, f"{path}?{query}" if query else path)
    assert asked.model == "mine"
    assert asked.reports_usage is not asks


@pytest.mark.parametrize(
    ("path", "model", "kind"),
    [
        (
            "publishers/anthropic/models/claude-sonnet-4%4020250514:streamRawPredict",
            "claude-sonnet-4@20250514",
            "messages",
        ),
        ("publishers/google/models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro", "generate"),
        ("publishers/mistralai/models/codestral-2:rawPredict", "codestral-2", "raw_chat"),
        ("endpoints/1234567890:generateContent", "1234567890", "generate"),
    ],
)
def test_vertex_names_its_models_in_the_path(path: str, model: str, kind: str) -> None:
    """Whoever made it, the model of the path is the one that is recorded; no member is added that it does not know."""
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "stream": True}
    asked = call("vertex", body, f"/v1/projects/p/locations/global/{path}")
    assert (asked.model, asked.endpoint.kind, asked.reports_usage) == (model, kind, True)


SOUND: list[tuple[dict[str, Any], Usage | None]] = [
    ({"text": "x", "usage": {"type": "duration", "seconds": 7.2}}, Usage(8 * AUDIO_TOKENS_PER_SECOND, 0)),
    ({"text": "x", "usage": {"type": "duration", "seconds": 0}}, Usage(0, 0)),
    ({"text": "x", "usage": {"prompt_audio_seconds": 36}}, Usage(36 * AUDIO_TOKENS_PER_SECOND, 0)),
    (
        {"text": "x", "usage": {"prompt_audio_seconds": 36, "prompt_tokens": 13, "completion_tokens": 151}},
        Usage(13, 151),
    ),
    (
        {"usage": {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264}},
        Usage(4, 3260),
    ),
    ({"task": "transcribe", "duration": 4.1, "text": "x"}, Usage(5 * AUDIO_TOKENS_PER_SECOND, 0)),
    ({"task": "transcribe", "duration": "long", "text": "x"}, None),
    ({"duration": 4.1, "text": "x"}, None),
    ({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}}, Usage(14, 45)),
]


@pytest.mark.parametrize(("body", "usage"), SOUND)
def test_sound_by_tokens_or_by_seconds(body: dict[str, Any], usage: Usage | None) -> None:
    """Tokens count where they are reported, and a total above them; seconds only where there are none."""
    assert OPENAI.usage_in_body(json.dumps(body).encode()) == usage
