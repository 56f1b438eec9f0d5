"""OpenAI's dialect as the fake provider speaks it."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

from tests.fakes.behaviour import Behaviour
from tests.fakes.plan import Counts, Headers, Json, Piece, Plan, Shape, Speech, document, dumps, speech, with_usage
from tests.fakes.record import Received

_STREAM: Headers = [("content-type", "text/event-stream; charset=utf-8")]
_FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls"}
_CREATED = 1_767_225_600
IMAGE_TOKENS = 64
EMBEDDING = [0.6, 0.8, 0.0, 0.0]


def chat_usage(cached: int, reasoning: int, read: int, made: int) -> Json:
    """Chat's usage object."""
    return {
        "prompt_tokens": read,
        "completion_tokens": made,
        "total_tokens": read + made,
        "prompt_tokens_details": {"cached_tokens": min(cached, read), "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": min(reasoning, made), "audio_tokens": 0},
    }


def _response_usage(cached: int, reasoning: int, read: int, made: int) -> Json:
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": min(cached, read)},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": min(reasoning, made)},
        "total_tokens": read + made,
    }


def chat(received: Received, behaviour: Behaviour) -> Plan:
    """``/chat/completions``."""
    body = received.json
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    answered = (body.get("messages") or [{}])[-1].get("role") == "tool"
    tools = [] if answered else [tool.get("function") or {} for tool in body.get("tools") or []]
    choice = body.get("tool_choice")
    said = speech(behaviour, received, limit, tools, choice == "required" or isinstance(choice, dict))
    choices = int(body.get("n") or 1)
    counts = (received.tokens_in, said.total * choices)

    def usage(read: int, made: int) -> Json:
        return chat_usage(behaviour.cached, said.reasoning, read, made)

    if not received.stream:
        head = {
            "id": f"chatcmpl-{received.number}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": received.model,
        }
        rows = [{"index": i, "message": _message(said), "finish_reason": _FINISH[said.finish]} for i in range(choices)]
        data, reported = with_usage({**head, "choices": rows}, "usage", behaviour, counts, usage)
        return Plan([Piece(data, counts[1], reported)])
    asked = behaviour.unasked_usage or bool((body.get("stream_options") or {}).get("include_usage"))
    pieces = _chat_pieces(received, behaviour, said, choices, counts, usage, asked)
    return Plan(pieces, headers=list(_STREAM), streaming=True, tail=1)


def _message(said: Speech) -> Json:
    if not said.tool:
        return {"role": "assistant", "content": said.whole}
    function = {"name": said.tool, "arguments": said.whole}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }


def _chat_pieces(
    received: Received, behaviour: Behaviour, said: Speech, choices: int, counts: Counts, usage: Shape, asked: bool
) -> Iterator[Piece]:
    made = 0
    head = f'data: {{"id":"chatcmpl-{received.number}","object":"chat.completion.chunk","created":{_CREATED},"model":'
    head += f'{dumps(received.model)},"choices":['
    quiet = ',"usage":null' if asked else ""

    def chunk(index: int, delta: Json, finish: str | None = None, tokens: int = 0) -> Piece:
        nonlocal made
        made += tokens
        choice = dumps({"index": index, "delta": delta, "finish_reason": finish})
        now = f',"usage":{dumps(usage(counts[0], made))}' if behaviour.usage == "every" else quiet
        reports = (counts[0], made) if behaviour.usage == "every" else None
        return Piece(f"{head}{choice}]{now}}}\n\n".encode(), tokens, reports)

    for index in range(choices):
        first: Json = {"role": "assistant", "content": None if said.tool else ""}
        if said.tool:
            function = {"name": said.tool, "arguments": ""}
            first["tool_calls"] = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
        yield chunk(index, first, tokens=said.reasoning)
        for number in range(len(said.tokens)):
            text = said.text(number)
            delta: Json = {"content": text}
            if said.tool:
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
            yield chunk(index, delta, tokens=1)
        yield chunk(index, {}, _FINISH[said.finish])
    if asked:
        for figures in _final_usages(behaviour, counts):
            shown = None if figures is None else usage(*figures)
            yield Piece(f'{head}],"usage":{dumps(shown)}}}\n\n'.encode(), 0, figures)
    yield Piece(b"data: [DONE]\n\n")


def _final_usages(behaviour: Behaviour, counts: Counts) -> list[Counts | None]:
    """The usages reported at the end, in order; None is a null."""
    read, made = counts
    special: dict[str, list[Counts | None]] = {
        "missing": [],
        "null": [None],
        "zero": [(0, 0)],
        "duplicate": [counts, counts],
        "decreasing": [(read, made + 100), counts],
    }
    return special.get(behaviour.usage, [counts])


def completions(received: Received, behaviour: Behaviour) -> Plan:
    """``/completions``."""
    said = speech(behaviour, received, received.json.get("max_tokens"), [], forced=False)
    counts = (received.tokens_in, said.total)
    head = {"id": f"cmpl-{received.number}", "object": "text_completion", "created": _CREATED, "model": received.model}

    def usage(read: int, made: int) -> Json:
        return chat_usage(behaviour.cached, said.reasoning, read, made)

    def choice(text: str, finish: str | None) -> Json:
        return {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]}

    if not received.stream:
        data, reported = with_usage({**head, **choice(said.whole, said.finish)}, "usage", behaviour, counts, usage)
        return Plan([Piece(data, counts[1], reported)])

    def pieces() -> Iterator[Piece]:
        for number in range(len(said.tokens)):
            yield Piece(f"data: {dumps({**head, **choice(said.text(number), None)})}\n\n".encode(), 1)
        yield Piece(f"data: {dumps({**head, **choice('', said.finish)})}\n\n".encode(), said.reasoning)
        if (received.json.get("stream_options") or {}).get("include_usage"):
            for figures in _final_usages(behaviour, counts):
                last = {**head, "choices": [], "usage": None if figures is None else usage(*figures)}
                yield Piece(f"data: {dumps(last)}\n\n".encode(), 0, figures)
        yield Piece(b"data: [DONE]\n\n")

    return Plan(pieces(), headers=list(_STREAM), streaming=True, tail=1)


def responses(received: Received, behaviour: Behaviour) -> Plan:
    """``/responses``."""
    body = received.json
    tools = [tool for tool in body.get("tools") or [] if tool.get("type") == "function"]
    given = body.get("input")
    if isinstance(given, list) and given and given[-1].get("type") == "function_call_output":
        tools = []  # the call was answered
    choice = body.get("tool_choice")
    said = speech(
        behaviour, received, body.get("max_output_tokens"), tools, choice == "required" or isinstance(choice, dict)
    )
    counts = (received.tokens_in, said.total)

    def usage(read: int, made: int) -> Json:
        return _response_usage(behaviour.cached, said.reasoning, read, made)

    done = _response(received, said, complete=True)
    if not received.stream:
        data, reported = with_usage(done, "usage", behaviour, counts, usage)
        return Plan([Piece(data, counts[1], reported)])
    figures = (_final_usages(behaviour, counts) or [None])[-1]
    if behaviour.usage != "missing":
        done["usage"] = None if figures is None else usage(*figures)
    events = _response_events(received, said, done, figures)
    return Plan(events, headers=list(_STREAM), streaming=True, tail=1)


def _response(received: Received, said: Speech, *, complete: bool) -> Json:
    cut = said.finish == "length"
    return {
        "id": f"resp_{received.number}",
        "object": "response",
        "created_at": _CREATED,
        "status": ("incomplete" if cut else "completed") if complete else "in_progress",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if complete and cut else None,
        "model": received.model,
        "output": [_item(said, complete=True)] if complete else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _item(said: Speech, *, complete: bool) -> Json:
    text = said.whole if complete else ""
    state = "completed" if complete else "in_progress"
    if said.tool:
        call = {"type": "function_call", "call_id": "call_1", "name": said.tool, "arguments": text}
        return {"id": "fc_1", "status": state, **call}
    content = [{"type": "output_text", "text": text, "annotations": []}] if complete else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": state, "content": content}


def _response_events(received: Received, said: Speech, done: Json, figures: Counts | None) -> Iterator[Piece]:
    number = -1

    def event(kind: str, tokens: int = 0, reports: Counts | None = None, **data: object) -> Piece:
        nonlocal number
        number += 1
        return Piece(
            f"event: {kind}\ndata: {dumps({'type': kind, 'sequence_number': number, **data})}\n\n".encode(),
            tokens,
            reports,
        )

    begun = _response(received, said, complete=False)
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    item = _item(said, complete=False)
    yield event("response.output_item.added", said.reasoning, output_index=0, item=item)
    where: Json = {"item_id": item["id"], "output_index": 0}
    part = "function_call_arguments" if said.tool else "output_text"
    if not said.tool:
        where["content_index"] = 0
        yield event("response.content_part.added", **where, part={"type": "output_text", "text": "", "annotations": []})
    for index in range(len(said.tokens)):
        yield event(f"response.{part}.delta", 1, **where, delta=said.text(index))
    if said.tool:
        yield event(f"response.{part}.done", **where, name=said.tool, arguments=said.whole)
    else:
        yield event(f"response.{part}.done", **where, text=said.whole)
        whole = {"type": "output_text", "text": said.whole, "annotations": []}
        yield event("response.content_part.done", **where, part=whole)
    yield event("response.output_item.done", output_index=0, item=_item(said, complete=True))
    yield event(f"response.{done['status']}", 0, figures, response=done)


def embeddings(received: Received, behaviour: Behaviour) -> Plan:
    """``/embeddings``: always the same four numbers."""
    given = received.json.get("input")
    number = len(given) if isinstance(given, list) else 1
    packed = base64.b64encode(struct.pack("<4f", *EMBEDDING)).decode()
    vector = packed if received.json.get("encoding_format") == "base64" else EMBEDDING
    rows = [{"object": "embedding", "index": index, "embedding": vector} for index in range(number)]
    received.tokens_in = received.count_input()

    def usage(read: int, _made: int) -> Json:
        return {"prompt_tokens": read, "total_tokens": read}

    content = {"object": "list", "data": rows, "model": received.model}
    data, reported = with_usage(content, "usage", behaviour, (received.tokens_in, 0), usage)
    return Plan([Piece(data, 0, reported)])


def images(received: Received, behaviour: Behaviour) -> Plan:
    """``/images/generations``: one red pixel a picture."""
    number = int(received.json.get("n") or 1)
    received.tokens_in = received.count_input()
    counts = (received.tokens_in, IMAGE_TOKENS * number)

    def usage(read: int, made: int) -> Json:
        details = {"text_tokens": read, "image_tokens": 0}
        return {
            "input_tokens": read,
            "output_tokens": made,
            "total_tokens": read + made,
            "input_tokens_details": details,
        }

    content = {"created": _CREATED, "data": [{"b64_json": base64.b64encode(PIXEL).decode()}] * number}
    data, reported = with_usage(content, "usage", behaviour, counts, usage)
    return Plan([Piece(data, counts[1], reported)])


def transcription(received: Received, behaviour: Behaviour) -> Plan:
    """``/audio/transcriptions``: charged by duration, which has no tokens."""
    return document({"text": behaviour.text or "hello", "usage": {"type": "duration", "seconds": 3}})


def models(received: Received, _behaviour: Behaviour) -> Plan:
    """``/models``."""
    return document(
        {"object": "list", "data": [{"id": "fake-1", "object": "model", "created": _CREATED, "owned_by": "fake"}]}
    )


def error_body(status: int, message: str) -> Json:
    """An error in OpenAI's shape."""
    kinds = {
        401: ("invalid_request_error", "invalid_api_key"),
        403: ("invalid_request_error", "missing_scope"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
        402: ("insufficient_quota", "insufficient_quota"),
    }
    kind, code = kinds.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_event(received: Received) -> bytes:
    """An error in the middle of a stream."""
    error = {"message": "The server had an error.", "type": "server_error", "param": None, "code": "server_error"}
    if received.kind == "responses":
        event = {
            "type": "error",
            "sequence_number": 99,
            "code": "server_error",
            "message": error["message"],
            "param": None,
        }
        return f"event: error\ndata: {dumps(event)}\n\n".encode()
    return f"data: {dumps({'error': error})}\n\n".encode()


def _pixel() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


PIXEL = _pixel()
