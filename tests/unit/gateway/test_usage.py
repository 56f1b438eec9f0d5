"""Usage as each format reports it: put on one footing, never summed, never invented."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownkey.gateway.dialects.anthropic import ANTHROPIC
from ownkey.gateway.dialects.gemini import GEMINI
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.gateway.dialects.table import DIALECTS
from ownkey.metering.usage import Usage
from tests.unit.gateway.samples import (
    ANTHROPIC_STREAM,
    GEMINI_STREAM,
    OPENAI_STREAM,
    OPENAI_USAGE,
    events,
    gemini_chunk,
    named,
    openai_chunk,
)

IN_PARTS = {"input_tokens": 9, "output_tokens": 5}
DRAWN = {"image_gen": {"input_tokens": 50, "output_tokens": 6_240, "total_tokens": 6_290}, "web_search": {}}
DEEP_RESEARCH = {
    "prompt_tokens": 30,
    "completion_tokens": 50,
    "total_tokens": 80,
    "citation_tokens": 120,
    "num_search_queries": 5,
    "reasoning_tokens": 300,
}
OPENAI_BODIES: list[tuple[Any, Usage | None]] = [
    ({"usage": OPENAI_USAGE}, Usage(25, 9, 8, 0, 4)),
    ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, Usage(0, 0)),
    ({"usage": None}, None),
    ({"usage": {}}, None),
    ({"usage": []}, None),
    ({"usage": {"prompt_tokens": "12", "completion_tokens": None}}, None),
    ({"usage": {"prompt_tokens": -1, "completion_tokens": -2}}, None),
    ({"usage": {"prompt_tokens": True, "completion_tokens": False}}, None),
    ({"usage": {"prompt_tokens": 10**30, "completion_tokens": 1, "total_tokens": 5}}, Usage(4, 1)),
    ({"usage": {"prompt_tokens": 12.0, "completion_tokens": 3.0}}, Usage(12, 3)),
    ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0)),
    ({"usage": {"total_tokens": 43}}, Usage(43, 0)),
    ({"usage": {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}}, Usage(35, 74)),
    ({"usage": {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 40}}, Usage(35, 12)),
    (
        {
            "usage": {
                "input_tokens": 9,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 4},
            }
        },
        Usage(9, 5, 2, 3, 4),
    ),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 6}}, Usage(9, 5, 6)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 5, "num_cached_tokens": 6}}, Usage(9, 5, 6)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}}, Usage(9, 5)),
    ({"usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": "odd"}}, Usage(9, 5)),
    ({"usage": DEEP_RESEARCH}, Usage(150, 350, 0, 0, 300)),
    ({"usage": {**DEEP_RESEARCH, "total_tokens": 500}}, Usage(150, 350, 0, 0, 300)),
    ({"usage": {**DEEP_RESEARCH, "citation_tokens": None, "reasoning_tokens": 9}}, Usage(30, 50, 0, 0, 9)),
    ({"usage": {**DEEP_RESEARCH, "citation_tokens": -7, "reasoning_tokens": "odd"}}, Usage(30, 50)),
    ({"usage": {"type": "duration", "seconds": 7.2}}, Usage(80, 0)),
    (
        {"usage": {"billed_units": {"input_tokens": 9.0, "output_tokens": 5.0}, "tokens": {"input_tokens": 900}}},
        Usage(9, 5),
    ),
    ({"meta": {"billed_units": {"input_tokens": 9, "output_tokens": 5}}}, Usage(9, 5)),
    ({"meta": {"billed_units": {"search_units": 1}}}, None),
    ({"usage": IN_PARTS, "tool_usage": DRAWN}, Usage(59, 6_245)),
    ({"usage": IN_PARTS, "tool_usage": {"image_gen": {"input_tokens": 0, "output_tokens": 0}}}, Usage(9, 5)),
    ({"usage": IN_PARTS, "tool_usage": {"image_gen": {"input_tokens": -1}, "web_search": 5}}, Usage(9, 5)),
    ({"usage": IN_PARTS, "tool_usage": {"image_gen": 7}}, Usage(9, 5)),
    ({"usage": IN_PARTS, "tool_usage": "odd"}, Usage(9, 5)),
    ({"usage": None, "tool_usage": DRAWN}, Usage(50, 6_240)),
    ({"usage": None, "tool_usage": {"image_gen": None}}, None),
    ({"response": {"usage": {}}, "x_groq": {"usage": None}, "delta": {"usage": {}}}, None),
    ({"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}}, Usage(9, 5)),
    ({"prompt_eval_count": 9, "eval_count": 5, "response": "text", "done": True}, Usage(9, 5)),
    (
        {"choices": [{"message": {"content": '{"usage": {"prompt_tokens": 99}}'}}], "usage": OPENAI_USAGE},
        Usage(25, 9, 8, 0, 4),
    ),
    ({"choices": [{"message": {"tool_calls": [{"usage": {"prompt_tokens": 99, "completion_tokens": 1}}]}}]}, None),
    ({"choices": "odd", "type": 5, "usage": OPENAI_USAGE}, Usage(25, 9, 8, 0, 4)),
    ({"choices": [{"finish_reason": 7}, "odd"], "usage": OPENAI_USAGE}, Usage(25, 9, 8, 0, 4)),
]


@pytest.mark.parametrize(("body", "usage"), OPENAI_BODIES)
def test_openai_bodies(body: Any, usage: Usage | None) -> None:
    """Every spelling of usage is read; cached and reasoning tokens are inside; a higher total is charged.

    What deep research read and thought, and what a tool drew, stands beside the rest and is added.
    """
    assert OPENAI.usage_in_body(json.dumps(body).encode()) == usage


# A reply that was summed up first, and took advice; what the answer itself took is in the totals, too.
STEPS = [
    {
        "type": "compaction",
        "input_tokens": 900,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 100,
        "output_tokens": 300,
    },
    {"type": "message", "input_tokens": 3, "output_tokens": 1},
    {
        "type": "advisor_message",
        "input_tokens": 120,
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 40},
    },
    {"type": "fallback_message", "input_tokens": 2, "output_tokens": 1},
    {"type": "compaction", "input_tokens": "odd", "output_tokens": -5},
    {"type": "unheard of", "input_tokens": 7, "output_tokens": 7},
]
ANTHROPIC_BODIES: list[tuple[Any, Usage | None]] = [
    ({"usage": {"input_tokens": 10, "output_tokens": 4}}, Usage(10, 4)),
    (
        {
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
                "output_tokens": 4,
                "output_tokens_details": {"thinking_tokens": 3},
            }
        },
        Usage(130, 4, 100, 20, 3),
    ),
    (
        {
            "usage": {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 5},
            }
        },
        Usage(13, 1, 0, 12),
    ),
    ({"usage": {"input_tokens": 0, "output_tokens": 0}}, Usage(0, 0)),
    ({"usage": {"input_tokens": 5, "output_tokens": 2, "cache_creation": None}}, Usage(5, 2)),
    ({"usage": {"input_tokens": 5, "output_tokens": 2, "iterations": STEPS}}, Usage(1_135, 332, 10, 100, 40)),
    ({"usage": {"input_tokens": 5, "output_tokens": 2, "iterations": None}}, Usage(5, 2)),
    ({"usage": {"input_tokens": 5, "output_tokens": 2, "iterations": ["odd", {"type": 5}]}}, Usage(5, 2)),
    (
        {
            "content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 99}}}],
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
        Usage(1, 1),
    ),
    ({"usage": None}, None),
    ({"usage": {}}, None),
    ({"type": "error", "error": {"type": "api_error"}}, None),
]


@pytest.mark.parametrize(("body", "usage"), ANTHROPIC_BODIES)
def test_anthropic_bodies(body: Any, usage: Usage | None) -> None:
    """Cached and cache-write tokens stand beside the input and are added to it, and so are steps beside the answer."""
    assert ANTHROPIC.usage_in_body(json.dumps(body).encode()) == usage


GEMINI_BODIES: list[tuple[Any, Usage | None]] = [
    (gemini_chunk("x", 6), Usage(7, 9, 0, 0, 3)),
    ({"usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}}, Usage(7, 0)),
    ({"usageMetadata": {"promptTokenCount": 14}}, Usage(14, 0)),
    (
        {"usageMetadata": {"promptTokenCount": 7, "toolUsePromptTokenCount": 30, "candidatesTokenCount": 2}},
        Usage(37, 2),
    ),
    (
        {"usageMetadata": {"promptTokenCount": 7, "cachedContentTokenCount": 5, "candidatesTokenCount": 2}},
        Usage(7, 2, 5),
    ),
    ({"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 50}}, Usage(7, 43)),
    ({"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}}, Usage(0, 0)),
    ({"usageMetadata": {"trafficType": "ON_DEMAND"}}, None),
    ({"embeddings": []}, None),
    ([gemini_chunk("a", 1), gemini_chunk("b", 4), {"candidates": []}], Usage(7, 7, 0, 0, 3)),
    ([], None),
    (
        {
            "usage": {
                "total_input_tokens": 9,
                "total_output_tokens": 13,
                "total_thought_tokens": 207,
                "total_cached_tokens": 1,
                "total_tool_use_tokens": 4,
                "total_tokens": 233,
            }
        },
        Usage(13, 220, 1, 0, 207),
    ),
    ({"predictions": [{"bytesBase64Encoded": "AA=="}]}, None),
    ({"predictions": [{"embeddings": {"statistics": {"token_count": 4}}}, {"embeddings": {}}]}, Usage(4, 0)),
    ({"usageMetadata": {"promptTokenCount": "7", "candidatesTokenCount": -3}}, None),
]


@pytest.mark.parametrize(("body", "usage"), GEMINI_BODIES)
def test_gemini_bodies(body: Any, usage: Usage | None) -> None:
    """Thoughts stand beside the candidates, tool prompts beside the prompt; of an array the last report counts."""
    assert GEMINI.usage_in_body(json.dumps(body).encode()) == usage


def test_one_object_a_line() -> None:
    """A stream of JSON lines reports in its last line that has usage (Cohere's older chat, Ollama)."""
    lines = [{"response": "a", "done": False}, {"done": True, "prompt_eval_count": 3, "eval_count": 4}, {"x": 1}]
    body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    assert OPENAI.usage_in_body(body) == Usage(3, 4)
    end = {"event_type": "stream-end", "response": {"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 6}}}}
    assert OPENAI.usage_in_body(b'{"text":"a"}\n' + json.dumps(end).encode()) == Usage(5, 6)


def test_a_cut_off_gemini_array_reports_what_is_whole() -> None:
    """An array of chunks that breaks off anywhere still has the usage of its last whole report."""
    whole = json.dumps([gemini_chunk("a", 1), gemini_chunk("b", 4)]).encode()
    assert GEMINI.usage_in_body(whole[:-10]) == Usage(7, 4, 0, 0, 3)
    first_only = whole[: whole.index(b"}, {") + 20]
    assert GEMINI.usage_in_body(first_only) == Usage(7, 4, 0, 0, 3)


def responses(kind: str, usage: Any) -> bytes:
    """One Responses event that carries the whole answer."""
    return named(kind, {"response": {"id": "r", "output": [], "usage": usage}})


STREAMS = [
    ("openai", OPENAI_STREAM, Usage(25, 9, 8, 0, 4)),
    ("openai", OPENAI_STREAM.replace(b"\n", b"\r\n"), Usage(25, 9, 8, 0, 4)),
    ("openai", OPENAI_STREAM.replace(b"\n", b"\r"), Usage(25, 9, 8, 0, 4)),
    ("openai", events(openai_chunk("a", usage=None), openai_chunk("b", usage=None), "[DONE]"), None),
    (
        "openai",
        events(*(openai_chunk("x", usage={"prompt_tokens": 3, "completion_tokens": n}) for n in (1, 2, 3))),
        Usage(3, 3),
    ),
    (
        "openai",
        events(openai_chunk("a"), {"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}),
        Usage(3, 4),
    ),
    ("openai", responses("response.created", None) + responses("response.completed", IN_PARTS), Usage(9, 5)),
    (
        "openai",
        named("response.completed", {"response": {"tool_usage": DRAWN, "usage": IN_PARTS}}),
        Usage(59, 6_245),
    ),
    ("openai", responses("response.incomplete", IN_PARTS), Usage(9, 5)),
    ("openai", responses("response.failed", IN_PARTS), Usage(9, 5)),
    ("openai", responses("response.failed", None), None),
    (
        "openai",
        named("response.output_text.delta", {"delta": "x"}) + responses("response.completed", IN_PARTS),
        Usage(9, 5),
    ),
    (
        "openai",
        events({"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 2, "output_tokens": 6}}}}),
        Usage(2, 6),
    ),
    (
        "openai",
        b': keep-alive\n\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
        Usage(1, 2),
    ),
    ("openai", events(openai_chunk('{"usage":{"prompt_tokens":99,"completion_tokens":99}}'), "[DONE]"), None),
    ("anthropic", ANTHROPIC_STREAM, Usage(15, 12, 5)),
    ("anthropic", ANTHROPIC_STREAM.replace(b"\n", b"\r\n"), Usage(15, 12, 5)),
    ("anthropic", ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")], Usage(15, 1, 5)),
    (
        "anthropic",
        ANTHROPIC_STREAM
        + named("message_delta", {"usage": {"input_tokens": 20, "output_tokens": 30, "cache_read_input_tokens": None}}),
        Usage(25, 30, 5),
    ),
    (
        "anthropic",
        ANTHROPIC_STREAM
        + named("message_delta", {"usage": {"output_tokens": 12, "iterations": STEPS}})
        + named("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 13}}),
        Usage(1_145, 343, 15, 100, 40),
    ),
    ("gemini", GEMINI_STREAM, Usage(7, 11, 0, 0, 3)),
    ("gemini", GEMINI_STREAM.replace(b"\r\n", b"\n"), Usage(7, 11, 0, 0, 3)),
    ("gemini", events({"usageMetadata": {"trafficType": "X"}}), None),
    (
        "gemini",
        named("interaction.completed", {"interaction": {"usage": {"total_input_tokens": 2, "total_output_tokens": 3}}}),
        Usage(2, 3),
    ),
]


@pytest.mark.parametrize(("dialect", "stream", "usage"), STREAMS)
def test_streams(dialect: Any, stream: bytes, usage: Usage | None) -> None:
    """The last report wins; Anthropic's are merged by field; text that looks like usage is text."""
    assert DIALECTS[dialect].usage_in_events(stream) == usage


@pytest.mark.parametrize("dialect", DIALECTS.values())
@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"[",
        b"nul",
        b"\xff\xfe\x00",
        b'{"type":"\xff","usage":{"prompt_tokens":"\xff"}}',
        b"[" * 200_000,
        b'{"usage":' * 5_000,
        b'{"usageMetadata":{"promptTokenCount":NaN},"usage":{"total_input_tokens":NaN,"input_tokens":1e}}',
        b"data: {\n\n",
        b'"usage"',
        b'data: "usage"\n\n',
    ],
)
def test_junk_reports_nothing(dialect: Any, junk: bytes) -> None:
    """Whatever a provider sends, reading it raises nothing and invents nothing."""
    assert dialect.usage_in_body(junk) is None
    assert dialect.usage_in_events(junk) is None
    assert dialect.emitted(junk) == 0
    assert dialect.text_of(junk) == ""
    assert dialect.is_error(junk) is False
