"""Google's dialect as the fake provider speaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.behaviour import Behaviour
from tests.fakes.openai import EMBEDDING
from tests.fakes.plan import Counts, Json, Piece, Plan, Shape, Speech, document, dumps, speech, with_usage
from tests.fakes.record import Received

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP"}
_JSON = [("content-type", "application/json; charset=UTF-8")]


def generate(received: Received, behaviour: Behaviour) -> Plan:
    """``:generateContent``."""
    said, choices = _said(received, behaviour)
    counts = (received.tokens_in, said.total * choices)
    thoughts = [{"text": "hmm " * said.reasoning, "thought": True}] if said.reasoning else []
    rows = _rows([*thoughts, *_parts(said)], choices, _FINISH[said.finish])
    content = {"candidates": rows, "modelVersion": received.model, "responseId": f"r{received.number}"}
    data, reported = with_usage(
        content, "usageMetadata", behaviour, counts, _usage(behaviour, said.reasoning * choices)
    )
    return Plan([Piece(data, counts[1], reported)], headers=list(_JSON))


def stream_generate(received: Received, behaviour: Behaviour) -> Plan:
    """``:streamGenerateContent``: events with ``alt=sse``, else a JSON array."""
    said, choices = _said(received, behaviour)
    chunks = _chunks(received, behaviour, said, choices)
    if "alt=sse" in received.query:
        pieces = (piece._replace(data=b"data: %s\r\n\r\n" % piece.data) for piece in chunks)
        return Plan(pieces, headers=[("content-type", "text/event-stream")], streaming=True, tail=1)
    return Plan(_array(chunks), headers=list(_JSON), streaming=True, tail=1)


def _said(received: Received, behaviour: Behaviour) -> tuple[Speech, int]:
    body = received.json
    config = _field(body, "generationConfig") or {}
    tools = [tool for one in body.get("tools") or [] for tool in _field(one, "functionDeclarations") or []]
    functions = [
        {**tool, "parameters": _field(tool, "parametersJsonSchema") or tool.get("parameters")} for tool in tools
    ]
    calling = _field(_field(body, "toolConfig") or {}, "functionCallingConfig") or {}
    parts = (body.get("contents") or [{}])[-1].get("parts") or []
    if any(_field(part, "functionResponse") for part in parts):
        functions = []  # the call was answered
    limit = _field(config, "maxOutputTokens")
    said = speech(behaviour, received, limit, functions, calling.get("mode") == "ANY")
    return said, int(_field(config, "candidateCount") or 1)


def _field(holder: Json, name: str) -> Any:
    """A field, in camel case or in snake case: Google takes both, and its own SDK mixes them."""
    value = holder.get(name)
    return value if value is not None else holder.get(re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name))


def _usage(behaviour: Behaviour, thoughts: int) -> Shape:
    def usage(read: int, made: int) -> Json:
        """Thoughts stand beside the candidates' tokens, cached input inside the prompt's."""
        thought = min(thoughts, made)
        counts: Json = {
            "promptTokenCount": read,
            "candidatesTokenCount": made - thought,
            "totalTokenCount": read + made,
        }
        if thought:
            counts["thoughtsTokenCount"] = thought
        if behaviour.cached:
            counts["cachedContentTokenCount"] = min(behaviour.cached, read)
        return counts

    return usage


def _parts(said: Speech) -> list[Json]:
    if not said.tool:
        return [{"text": said.whole}]
    try:
        return [{"functionCall": {"name": said.tool, "args": json.loads(said.whole)}}]
    except ValueError:  # broken off by the output limit
        return []


def _rows(parts: list[Json], choices: int, finish: str | None) -> list[Json]:
    done = {"finishReason": finish} if finish else {}
    return [{"content": {"parts": parts, "role": "model"}, **done, "index": index} for index in range(choices)]


def _chunks(received: Received, behaviour: Behaviour, said: Speech, choices: int) -> Iterator[Piece]:
    """Every chunk reports usage, growing, unless the behaviour says otherwise; the last counts."""
    usage = _usage(behaviour, said.reasoning * choices)
    kind, read, made = behaviour.usage, received.tokens_in, 0
    total = said.total * choices

    def chunk(parts: list[Json], tokens: int, finish: str | None = None, shown: int | None = None) -> Piece:
        nonlocal made
        made += tokens
        content: Json = {"candidates": _rows(parts, choices, finish)}
        counts: Counts | None = (read, made if shown is None else shown)
        if kind == "zero":
            counts = (0, 0)
        if kind in ("missing", "null"):
            counts = None
        if kind != "missing":
            content["usageMetadata"] = None if counts is None else usage(*counts)
        content |= {"modelVersion": received.model, "responseId": f"r{received.number}"}
        return Piece(dumps(content).encode(), tokens, counts)

    for _ in range(said.reasoning):
        yield chunk([{"text": "hmm ", "thought": True}], choices)
    if said.tool:
        yield chunk(_parts(said), len(said.tokens) * choices)
    else:
        for number in range(len(said.tokens)):
            yield chunk([{"text": said.text(number)}], choices)
    if kind in ("duplicate", "decreasing"):
        yield chunk([{"text": ""}], 0, shown=total + 100 if kind == "decreasing" else total)
    yield chunk([{"text": ""}], 0, _FINISH[said.finish])


def _array(chunks: Iterator[Piece]) -> Iterator[Piece]:
    opening = b"["
    for piece in chunks:
        yield piece._replace(data=opening + piece.data + b"\n")
        opening = b",\r\n"
    yield Piece(b"]")


def count_tokens(received: Received, _behaviour: Behaviour) -> Plan:
    """``:countTokens``."""
    return document({"totalTokens": received.count_input()})


def embed(received: Received, behaviour: Behaviour) -> Plan:
    """``:embedContent``."""
    return _embedded({"embedding": {"values": EMBEDDING}}, received, behaviour)


def batch_embed(received: Received, behaviour: Behaviour) -> Plan:
    """``:batchEmbedContents``."""
    rows = [{"values": EMBEDDING} for _ in received.json.get("requests") or []]
    return _embedded({"embeddings": rows}, received, behaviour)


def _embedded(content: Json, received: Received, behaviour: Behaviour) -> Plan:
    received.tokens_in = received.count_input()

    def usage(read: int, _made: int) -> Json:
        return {"promptTokenCount": read, "totalTokenCount": read}

    data, reported = with_usage(content, "usageMetadata", behaviour, (received.tokens_in, 0), usage)
    return Plan([Piece(data, 0, reported)], headers=list(_JSON))


def models(_received: Received, _behaviour: Behaviour) -> Plan:
    """``/models``."""
    return document({"models": [{"name": "models/fake-1", "displayName": "Fake 1", "version": "1"}]})


def error_body(status: int, message: str) -> Json:
    """An error in Google's shape."""
    states = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    return {"error": {"code": status, "message": message, "status": states.get(status, "INTERNAL")}}


def error_event(_received: Received) -> bytes:
    """An error in the middle of a stream."""
    return f"data: {dumps(error_body(503, 'The model is overloaded. Please try again later.'))}\r\n\r\n".encode()
