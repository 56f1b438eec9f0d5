"""Replies and requests written by hand, in the three formats, for the tests of this folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from ownkey.gateway.call import Call, read_call
from ownkey.providers.registry import find

PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
    "mistral": "/v1/chat/completions",
    "groq": "/openai/v1/chat/completions",
}


def call(slug: str = "openai", body: object = None, path: str = "", method: str = "POST", **headers: str) -> Call:
    """A call to a provider, by default the usual one with an empty object."""
    raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    target, _, query = (path or PATHS[slug]).partition("?")
    return read_call(find(slug), method, target, query, fields, raw)


def events(*payloads: object, end: str = "\n") -> bytes:
    """Server-sent events with these data; text stands as it is, everything else as JSON."""
    lines = [payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False) for payload in payloads]
    return "".join(f"data: {line}{end}{end}" for line in lines).encode()


def named(kind: str, payload: dict[str, Any]) -> bytes:
    """One event with a name, as Anthropic and OpenAI's Responses have it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **payload}, ensure_ascii=False)}\n\n".encode()


def openai_chunk(text: str | None, **more: Any) -> dict[str, Any]:
    """A chunk of a chat stream."""
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice], **more}


def openai_end() -> dict[str, Any]:
    """The chunk that says why a chat stream ended."""
    return {**openai_chunk(None), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


OPENAI_USAGE = {
    "prompt_tokens": 25,
    "completion_tokens": 9,
    "total_tokens": 34,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
OPENAI_STREAM = events(
    openai_chunk(""),
    openai_chunk("Grüße"),
    openai_chunk(" 世界 🎈"),
    openai_end(),
    {**openai_chunk(None), "choices": [], "usage": OPENAI_USAGE},
    "[DONE]",
)
ANTHROPIC_STREAM = b"".join(
    [
        named(
            "message_start",
            {
                "message": {
                    "role": "assistant",
                    "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1},
                }
            },
        ),
        named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        b"event: ping\ndata: {}\n\n",
        named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Grüße aus"}}),
        named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": " 北京"}}),
        named("content_block_stop", {"index": 0}),
        named("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}}),
        named("message_stop", {}),
    ]
)


def gemini_chunk(text: str, written: int, **more: Any) -> dict[str, Any]:
    """A chunk of a Gemini stream; its usage is cumulative."""
    usage = {"promptTokenCount": 7, "candidatesTokenCount": written, "thoughtsTokenCount": 3}
    usage["totalTokenCount"] = 10 + written
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, **more}
    return {"candidates": [candidate], "usageMetadata": usage}


GEMINI_STREAM = events(
    gemini_chunk("Zwölf", 2), gemini_chunk(" Möwen 🐦", 6), gemini_chunk("", 8, finishReason="STOP"), end="\r\n"
)


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python a piece of work takes: the same whatever else the machine does."""
    lines = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal lines
        lines += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines
