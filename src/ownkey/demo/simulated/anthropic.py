"""Anthropic's endpoints: messages, count_tokens, models. Written after https://platform.claude.com/docs/en/api/messages."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from ownkey.demo.simulated import model as brain
from ownkey.demo.simulated.companies import Company
from ownkey.demo.simulated.keys import anthropic_error
from ownkey.demo.simulated.model import Answer, Question, Tool, count_input, parsed
from ownkey.demo.simulated.openai import text_of
from ownkey.demo.simulated.wire import EVENT_STREAM, Ask, Document, Events, Json, Refusal, Reply, Stream

_FINISH = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}


def invalid(message: str) -> Refusal:
    """A 400 in Anthropic's shape."""
    return anthropic_error(400, "invalid_request_error", message)


def check_model(company: Company, body: Json) -> str:
    """The model of a request; raise 404 if there is no such one."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("model: Field required")
    if not company.has_model(model):
        raise anthropic_error(404, "not_found_error", f"model: {model}")
    return model


def messages(ask: Ask) -> Reply:
    """``POST /v1/messages``."""
    limit = ask.body.get("max_tokens")
    if limit is None:
        raise invalid("max_tokens: Field required")
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise invalid("max_tokens: Input should be a valid integer")
    if limit < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    question = _question(ask, limit)
    answer = brain.answer(question)
    message: Json = {
        "model": ask.model,
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(question.input_tokens, 1),
    }
    if ask.body.get("stream"):
        return Stream(EVENT_STREAM, _events(message, question, answer))
    content = [_block(answer, complete=True)]
    used = _usage(question.input_tokens, answer.output_tokens)
    done = {**message, "content": content, "stop_reason": _FINISH[answer.finish], "usage": used}
    return Document(done, answer.output_tokens)


def count_tokens(ask: Ask) -> Reply:
    """``POST /v1/messages/count_tokens``."""
    return Document({"input_tokens": _question(ask, None).input_tokens})


def models(company: Company, name: str | None) -> Document:
    """``GET /v1/models`` and ``GET /v1/models/{id}``."""
    made = {"type": "model", "created_at": "2026-01-01T00:00:00Z"}
    if name is not None:
        if not company.has_model(name):
            raise anthropic_error(404, "not_found_error", f"model: {name}")
        return Document({**made, "id": name, "display_name": name})
    rows = [{**made, "id": model, "display_name": model} for model in company.models]
    return Document({"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]})


def _question(ask: Ask, limit: int | None) -> Question:
    body = ask.body
    given = body.get("messages")
    if not isinstance(given, list):
        raise invalid("messages: Field required")
    if not given:
        raise invalid("messages: at least one message is required")
    if not all(isinstance(message, dict) and message.get("role") in ("user", "assistant") for message in given):
        raise invalid("messages.0.role: Input should be 'user' or 'assistant'")
    said = [text_of(message.get("content")) for message in given if message["role"] == "user"]
    tools = [Tool(t["name"], t.get("input_schema") or {}) for t in body.get("tools") or [] if "name" in t]
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "none":
        tools = []
    if choice.get("type") == "tool":
        tools = [tool for tool in tools if tool.name == choice.get("name")]
    wanted = ((body.get("output_config") or {}).get("format") or body.get("output_format") or {}).get("schema")
    return Question(
        model=ask.model,
        text=next((text for text in reversed(said) if text), ""),
        input_tokens=count_input(given, body.get("system"), tools=body.get("tools")),
        limit=limit,
        tools=tuple(tools),
        forced=choice.get("type") in ("any", "tool"),
        result=_result(given[-1].get("content")),
        schema=wanted,
    )


def _result(content: object) -> str | None:
    """What a tool returned, if the last message holds that."""
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            return text_of(block.get("content"))
    return None


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _block(answer: Answer, *, complete: bool) -> Json:
    if answer.call is None:
        return {"type": "text", "text": answer.text if complete else ""}
    arguments = parsed(answer.call.arguments) if complete else None
    return {
        "type": "tool_use",
        "id": f"toolu_{secrets.token_hex(12)}",
        "name": answer.call.name,
        "input": arguments or {},
    }


def _events(message: Json, question: Question, answer: Answer) -> Iterator[tuple[bytes, int]]:
    events = Events(named=True)
    yield events.write({"type": "message_start", "message": message}), 0
    block = _block(answer, complete=False)
    yield events.write({"type": "content_block_start", "index": 0, "content_block": block}), answer.extra_tokens
    yield events.write({"type": "ping"}), 0
    for piece in answer.pieces:
        text, arguments = {"type": "text_delta", "text": piece}, {"type": "input_json_delta", "partial_json": piece}
        delta = arguments if answer.call else text
        yield events.write({"type": "content_block_delta", "index": 0, "delta": delta}), 1
    yield events.write({"type": "content_block_stop", "index": 0}), 0
    used = {
        "input_tokens": question.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": answer.output_tokens,
    }
    stop = {"stop_reason": _FINISH[answer.finish], "stop_sequence": None}
    yield events.write({"type": "message_delta", "delta": stop, "usage": used}), 0
    yield events.write({"type": "message_stop"}), 0
