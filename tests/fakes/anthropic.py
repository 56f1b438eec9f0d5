"""Anthropic's dialect as the fake provider speaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.fakes.behaviour import Behaviour
from tests.fakes.plan import Counts, Json, Piece, Plan, Shape, Speech, document, dumps, speech, with_usage
from tests.fakes.record import Received

_FINISH = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}


def messages(received: Received, behaviour: Behaviour) -> Plan:
    """``/v1/messages``."""
    body = received.json
    tools = [{"name": t.get("name"), "parameters": t.get("input_schema")} for t in body.get("tools") or []]
    content = (body.get("messages") or [{}])[-1].get("content")
    if isinstance(content, list) and any(block.get("type") == "tool_result" for block in content):
        tools = []  # the call was answered
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    said = speech(behaviour, received, body.get("max_tokens"), tools, forced)
    counts = (received.tokens_in, said.total)

    def usage(read: int, made: int) -> Json:
        cached = min(behaviour.cached, read)
        return {
            "input_tokens": read - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": made,
        }

    message: Json = {
        "id": f"msg_{received.number}",
        "type": "message",
        "role": "assistant",
        "model": received.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    if not received.stream:
        done = {**message, "content": _content(said), "stop_reason": _FINISH[said.finish]}
        data, reported = with_usage(done, "usage", behaviour, counts, usage)
        return Plan([Piece(data, counts[1], reported)])
    pieces = _events(behaviour, message, said, counts, usage)
    return Plan(pieces, headers=[("content-type", "text/event-stream; charset=utf-8")], streaming=True, tail=2)


def _content(said: Speech) -> list[Json]:
    thoughts = [{"type": "thinking", "thinking": "hmm " * said.reasoning, "signature": "sig"}] if said.reasoning else []
    if not said.tool:
        return [*thoughts, {"type": "text", "text": said.whole}]
    try:
        given = json.loads(said.whole)
    except ValueError:  # broken off by the output limit
        given = {}
    return [*thoughts, {"type": "tool_use", "id": "toolu_1", "name": said.tool, "input": given}]


def _events(behaviour: Behaviour, message: Json, said: Speech, counts: Counts, usage: Shape) -> Iterator[Piece]:
    read, total = counts
    made = 0
    kind = behaviour.usage

    def event(name: str, tokens: int = 0, reports: Counts | None = None, **data: object) -> Piece:
        nonlocal made
        made += tokens
        return Piece(f"event: {name}\ndata: {dumps({'type': name, **data})}\n\n".encode(), tokens, reports)

    # Reported, but by the nature of this dialect only a first figure: one output token.
    begun = None if kind == "missing" else (0, 0) if kind == "zero" else (read, 1)
    first = {} if begun is None else {"usage": None if kind == "null" else usage(*begun)}
    yield event("message_start", 0, None if kind == "null" else begun, message={**message, **first})
    index = 0
    if said.reasoning:
        yield event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
        for _ in range(said.reasoning):
            yield event("content_block_delta", 1, index=0, delta={"type": "thinking_delta", "thinking": "hmm "})
        yield event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "sig"})
        yield event("content_block_stop", index=0)
        index = 1
    block: Json = {"type": "text", "text": ""}
    if said.tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": said.tool, "input": {}}
    yield event("content_block_start", index=index, content_block=block)
    yield event("ping")
    for number in range(len(said.tokens)):
        text = said.text(number)
        delta = (
            {"type": "input_json_delta", "partial_json": text} if said.tool else {"type": "text_delta", "text": text}
        )
        yield event("content_block_delta", 1, index=index, delta=delta)
        if kind == "every":
            yield event("message_delta", 0, (read, made), delta={"stop_reason": None}, usage=usage(read, made))
    yield event("content_block_stop", index=index)
    stop = {"stop_reason": _FINISH[said.finish], "stop_sequence": None}
    if kind in ("duplicate", "decreasing"):
        more = total + 100 if kind == "decreasing" else total
        yield event("message_delta", 0, (read, more), delta=stop, usage={"output_tokens": more})
    last: Json = {"usage": {"output_tokens": 0 if kind == "zero" else total}}
    if kind in ("missing", "null"):
        last = {} if kind == "missing" else {"usage": None}
    reports = None if kind in ("missing", "null") else (0, 0) if kind == "zero" else counts
    yield event("message_delta", 0, reports, delta=stop, **last)
    yield event("message_stop")


def count_tokens(received: Received, _behaviour: Behaviour) -> Plan:
    """``/v1/messages/count_tokens``."""
    return document({"input_tokens": received.count_input()})


def models(_received: Received, _behaviour: Behaviour) -> Plan:
    """``/v1/models``."""
    row = {"type": "model", "id": "fake-1", "display_name": "Fake 1", "created_at": "2026-01-01T00:00:00Z"}
    return document({"data": [row], "has_more": False, "first_id": "fake-1", "last_id": "fake-1"})


def error_body(status: int, message: str) -> Json:
    """An error in Anthropic's shape."""
    kinds = {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}


def error_event(_received: Received) -> bytes:
    """An error in the middle of a stream."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return f"event: error\ndata: {dumps(error)}\n\n".encode()
