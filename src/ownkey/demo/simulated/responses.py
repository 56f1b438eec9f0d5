"""OpenAI's ``POST /responses``, plain and streamed with its real event names.

Written after https://platform.openai.com/docs/api-reference/responses and its streaming page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from ownkey.demo.simulated import model as brain
from ownkey.demo.simulated.model import Answer, Question, Tool, count_input
from ownkey.demo.simulated.openai import chosen, required, text_of, whole_number
from ownkey.demo.simulated.wire import EVENT_STREAM, Ask, Document, Events, Json, Reply, Stream


def create(ask: Ask) -> Reply:
    """``POST /responses``."""
    question = _question(ask)
    answer = brain.answer(question)
    response = _response(ask, question)
    item = _item(answer)
    if ask.body.get("stream"):
        return Stream(EVENT_STREAM, _events(response, item, question, answer))
    return Document(_finished(response, item, question, answer), answer.output_tokens)


def _question(ask: Ask) -> Question:
    body = ask.body
    given = required(body, "input", (str, list))
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    said = [text_of(item.get("content")) for item in items if isinstance(item, dict) and item.get("role") == "user"]
    last = items[-1] if isinstance(items[-1], dict) else {}
    functions = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    choice = body.get("tool_choice", "auto")
    wanted = (body.get("text") or {}).get("format") or {}
    return Question(
        model=ask.model,
        text=said[-1] if said else "",
        input_tokens=count_input(items, body.get("instructions"), tools=body.get("tools")),
        limit=whole_number(body, "max_output_tokens"),
        tools=chosen([Tool(each["name"], each.get("parameters") or {}) for each in functions], choice),
        forced=choice == "required" or isinstance(choice, dict),
        result=str(last.get("output", "")) if last.get("type") == "function_call_output" else None,
        schema=wanted.get("schema"),
    )


def _response(ask: Ask, question: Question) -> Json:
    """The response object before anything was said."""
    body = ask.body
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": question.limit,
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": body.get("metadata") or {},
    }


def _item(answer: Answer) -> Json:
    """The one output item, empty and in progress."""
    if answer.call:
        return {
            "id": f"fc_{secrets.token_hex(16)}",
            "type": "function_call",
            "status": "in_progress",
            "arguments": "",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": answer.call.name,
        }
    return {
        "id": f"msg_{secrets.token_hex(16)}",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _complete(item: Json, answer: Answer) -> Json:
    content = {"arguments": answer.text} if answer.call else {"content": [_part(answer.text)]}
    return {**item, **content, "status": "incomplete" if answer.finish == "length" else "completed"}


def _finished(response: Json, item: Json, question: Question, answer: Answer) -> Json:
    cut = answer.finish == "length"
    return {
        **response,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_complete(item, answer)],
        "usage": {
            "input_tokens": question.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": question.input_tokens + answer.output_tokens,
        },
    }


def _events(response: Json, item: Json, question: Question, answer: Answer) -> Iterator[tuple[bytes, int]]:
    events = Events(named=True, numbered=True)
    yield events.write({"type": "response.created", "response": response}), 0
    yield events.write({"type": "response.in_progress", "response": response}), 0
    yield events.write({"type": "response.output_item.added", "output_index": 0, "item": item}), answer.extra_tokens
    yield from _call_events(events, item, answer) if answer.call else _text_events(events, item, answer)
    done = _complete(item, answer)
    yield events.write({"type": "response.output_item.done", "output_index": 0, "item": done}), 0
    finished = _finished(response, item, question, answer)
    yield events.write({"type": f"response.{finished['status']}", "response": finished}), 0


def _text_events(events: Events, item: Json, answer: Answer) -> Iterator[tuple[bytes, int]]:
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield events.write({"type": "response.content_part.added", **where, "part": _part("")}), 0
    for piece in answer.pieces:
        yield events.write({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}), 1
    yield events.write({"type": "response.output_text.done", **where, "text": answer.text, "logprobs": []}), 0
    yield events.write({"type": "response.content_part.done", **where, "part": _part(answer.text)}), 0


def _call_events(events: Events, item: Json, answer: Answer) -> Iterator[tuple[bytes, int]]:
    where = {"item_id": item["id"], "output_index": 0}
    for piece in answer.pieces:
        yield events.write({"type": "response.function_call_arguments.delta", **where, "delta": piece}), 1
    done = {"type": "response.function_call_arguments.done", **where, "name": item["name"], "arguments": answer.text}
    yield events.write(done), 0
