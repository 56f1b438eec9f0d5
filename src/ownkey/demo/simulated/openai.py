"""OpenAI's endpoints but ``/responses``, and what other companies say about a key.

Written after the reference at https://platform.openai.com/docs/api-reference. Streams carry usage only when
``stream_options.include_usage`` asks for it, then every other chunk says ``usage: null``; Groq's ``x_groq.usage``
and Mistral's usage in the last chunk come unasked, as with them.
"""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import Iterator
from typing import Any

from ownkey.demo.simulated import model as brain
from ownkey.demo.simulated.companies import Company
from ownkey.demo.simulated.keys import openai_error
from ownkey.demo.simulated.model import Answer, Question, Tool, count_input
from ownkey.demo.simulated.pictures import TOKENS as PICTURE_TOKENS
from ownkey.demo.simulated.pictures import picture
from ownkey.demo.simulated.wire import EVENT_STREAM, Ask, Document, Events, Json, Refusal, Reply, Stream

_DIMENSIONS = 256
_FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls"}


def invalid(message: str, param: str | None, code: str | None = None) -> Refusal:
    """A 400 that names the parameter."""
    return openai_error(400, message, "invalid_request_error", code, param)


def required(body: Json, name: str, kinds: type | tuple[type, ...]) -> Any:
    """A field that must be there and not empty; raise the provider's own 400 otherwise."""
    if body.get(name) is None:
        raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if not isinstance(body[name], kinds):
        raise invalid(f"Invalid type for '{name}'.", name, "invalid_type")
    if not body[name]:
        raise invalid(f"Invalid '{name}': empty. Expected at least one element.", name, "empty_array")
    return body[name]


def whole_number(body: Json, name: str, most: int | None = None) -> int | None:
    """A field that is a whole number of at least one, or absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"Invalid type for '{name}': expected an integer.", name, "invalid_type")
    if value < 1:
        raise invalid(f"Invalid '{name}': expected at least 1, but got {value}.", name, "integer_below_min_value")
    if most is not None and value > most:
        raise invalid(f"Invalid '{name}': expected at most {most}, but got {value}.", name, "integer_above_max_value")
    return value


def check_model(company: Company, body: Json) -> str:
    """The model of a request; raise 404 if there is no such one."""
    model = str(required(body, "model", str))
    if not company.has_model(model):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise openai_error(404, message, "invalid_request_error", "model_not_found")
    return model


def text_of(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("text"))


def usage(input_tokens: int, output_tokens: int) -> Json:
    """Chat's usage object."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(ask: Ask) -> Reply:
    """``POST /chat/completions``."""
    question = _chat_question(ask)
    answer = brain.answer(question)
    choices = whole_number(ask.body, "n", 128) or 1
    used = usage(question.input_tokens, answer.output_tokens * choices)
    chunk: Json = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": ask.model}
    options = ask.body.get("stream_options")
    if not ask.body.get("stream"):
        if options is not None:
            raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
        content = {
            **chunk,
            "object": "chat.completion",
            "choices": [_chat_choice(index, answer) for index in range(choices)],
            "usage": used,
            "system_fingerprint": "fp_simulated",
        }
        return Document(content, answer.output_tokens * choices)
    asked = bool((options or {}).get("include_usage"))
    return Stream(EVENT_STREAM, _chat_chunks(ask.company, chunk, answer, choices, used, asked))


def _chat_question(ask: Ask) -> Question:
    body = ask.body
    messages = required(body, "messages", list)
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise invalid("Missing required parameter: 'messages[0].role'.", "messages[0].role")
    said = [text_of(message.get("content")) for message in messages if message["role"] == "user"]
    last = messages[-1]
    functions = [tool["function"] for tool in body.get("tools") or [] if tool["type"] == "function"]
    choice = body.get("tool_choice", "auto")
    limits = [whole_number(body, "max_completion_tokens"), whole_number(body, "max_tokens")]
    return Question(
        model=ask.model,
        text=said[-1] if said else "",
        input_tokens=count_input(messages, tools=body.get("tools")),
        limit=min((limit for limit in limits if limit is not None), default=None),
        tools=chosen([Tool(each["name"], each.get("parameters") or {}) for each in functions], choice),
        forced=choice == "required" or isinstance(choice, dict),
        result=text_of(last.get("content")) if last["role"] == "tool" else None,
        schema=_schema(body.get("response_format")),
    )


def chosen(tools: list[Tool], choice: object) -> tuple[Tool, ...]:
    """The tools to choose from: the one that ``tool_choice`` names, none, or all."""
    if choice == "none":
        return ()
    if not isinstance(choice, dict):
        return tuple(tools)
    name = (choice.get("function") or choice).get("name")
    return tuple(tool for tool in tools if tool.name == name) or tuple(tools)


def _schema(response_format: object) -> Json | None:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema = (response_format.get("json_schema") or {}).get("schema")
    return schema if isinstance(schema, dict) else None


def _chat_choice(index: int, answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.call:
        function = {"name": answer.call.name, "arguments": answer.call.arguments}
        message |= {"content": None, "tool_calls": [{"id": _call_id(), "type": "function", "function": function}]}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH[answer.finish]}


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _chat_chunks(
    company: str, head: Json, answer: Answer, choices: int, used: Json, asked: bool
) -> Iterator[tuple[bytes, int]]:
    head = {**head, "object": "chat.completion.chunk", "system_fingerprint": "fp_simulated"}
    quiet: Json = {"usage": None} if asked else {}
    events = Events()

    def chunk(index: int, delta: Json, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return events.write({**head, "choices": [choice], **quiet, **more})

    for index in range(choices):
        yield chunk(index, {"role": "assistant", "content": None if answer.call else "", "refusal": None}), 0
        if answer.call:
            function = {"name": answer.call.name, "arguments": ""}
            call = {"index": 0, "id": _call_id(), "type": "function", "function": function}
            yield chunk(index, {"tool_calls": [call]}), answer.extra_tokens
        for piece in answer.pieces:
            more = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            yield chunk(index, more if answer.call else {"content": piece}), 1
        last: Json = {}
        if index == choices - 1:
            last = {"groq": {"x_groq": {"id": head["id"], "usage": used}}, "mistral": {"usage": used}}.get(company, {})
        yield chunk(index, {}, _FINISH[answer.finish], **last), 0
    if asked:
        yield events.write({**head, "choices": [], "usage": used}), 0
    yield b"data: [DONE]\n\n", 0


def completions(ask: Ask) -> Reply:
    """``POST /completions``, the older endpoint without messages."""
    prompt = required(ask.body, "prompt", (str, list))
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    limit = whole_number(ask.body, "max_tokens") or 16  # OpenAI's own default here
    question = Question(ask.model, text, count_input(text), limit)
    answer = brain.answer(question)
    used = usage(question.input_tokens, answer.output_tokens)
    head: Json = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": ask.model,
    }
    if not ask.body.get("stream"):
        choice = {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": _FINISH[answer.finish]}
        return Document({**head, "choices": [choice], "usage": used}, answer.output_tokens)
    asked = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    return Stream(EVENT_STREAM, _completion_chunks(head, answer, used, asked))


def _completion_chunks(head: Json, answer: Answer, used: Json, asked: bool) -> Iterator[tuple[bytes, int]]:
    events, quiet = Events(), ({"usage": None} if asked else {})
    for number, piece in enumerate(answer.pieces, start=1):
        finish = _FINISH[answer.finish] if number == len(answer.pieces) else None
        choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": finish}
        yield events.write({**head, "choices": [choice], **quiet}), 1
    if asked:
        yield events.write({**head, "choices": [], "usage": used}), 0
    yield b"data: [DONE]\n\n", 0


def embeddings(ask: Ask) -> Reply:
    """``POST /embeddings``; base64 holds little-endian 32-bit floats, as the SDK asks by default."""
    given = required(ask.body, "input", (str, list))
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise invalid("'input' must be a string or a list of strings here.", "input")
    dimensions = whole_number(ask.body, "dimensions", 3072) or _DIMENSIONS
    in_base64 = ask.body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = brain.embedding(text, dimensions)
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if in_base64 else vector})
    total = count_input(texts)
    counts = {"prompt_tokens": total, "total_tokens": total}
    return Document({"object": "list", "data": data, "model": ask.model, "usage": counts})


def images(ask: Ask) -> Reply:
    """``POST /images/generations``: a small PNG in base64, with usage as GPT Image reports it."""
    prompt = required(ask.body, "prompt", str)
    if ask.body.get("stream"):
        raise invalid("Streaming is not supported by this simulated model.", "stream")
    number = whole_number(ask.body, "n", 10) or 1
    encoded = base64.b64encode(picture(prompt)).decode()
    read, made = count_input(prompt), PICTURE_TOKENS * number
    used = {
        "input_tokens": read,
        "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"image_tokens": made, "text_tokens": 0},
        "total_tokens": read + made,
    }
    content = {"created": int(time.time()), "data": [{"b64_json": encoded}] * number, "usage": used}
    return Document(content, made)


def models(company: Company, name: str | None) -> Document:
    """``GET /models`` and ``GET /models/{id}``."""
    made = {"object": "model", "created": 1_767_225_600, "owned_by": company.slug}
    if name is None:
        return Document({"object": "list", "data": [{"id": model, **made} for model in company.models]})
    check_model(company, {"model": name})
    return Document({"id": name, **made})


ACCOUNT: dict[str, Json] = {
    "/me": {"object": "user", "id": "user-demo", "name": "Simulated account"},
    "/key": {"data": {"label": "sk-or-demo", "limit": None, "usage": 0, "limit_remaining": None}},
    "/api-key": {"name": "Simulated key", "acls": ["api-key:model:*", "api-key:endpoint:*"], "api_key_blocked": False},
    "/openai/deployments": {"object": "list", "data": []},
    "/async-invoke": {"asyncInvokeSummaries": []},
    "/api/tags": {"models": []},
    "/user/balance": {
        "is_available": True,
        "balance_infos": [
            {"currency": "USD", "total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00"}
        ],
    },
}
"""What companies say about a good key beside their list of models, by path after the root."""
