"""Google's Gemini API: content plain and streamed, token counts, embeddings, models.

Written after https://ai.google.dev/api. A stream is server-sent events with CRLF line ends when the query says
``alt=sse`` and a JSON array otherwise; every chunk carries usage, and the last one counts.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from typing import Any

from ownkey.demo.simulated import model as brain
from ownkey.demo.simulated.companies import Company
from ownkey.demo.simulated.keys import gemini_error
from ownkey.demo.simulated.model import Answer, Question, Tool, count_input, parsed
from ownkey.demo.simulated.pictures import picture
from ownkey.demo.simulated.wire import Ask, Document, Json, Refusal, Reply, Stream, encoded

_DIMENSIONS = 256
_PICTURE_TOKENS = 1290
"""Output tokens of a picture from a ``…-image`` model: Google's figure."""
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP"}


def invalid(message: str) -> Refusal:
    """A 400 in Google's shape."""
    return gemini_error(400, "INVALID_ARGUMENT", message)


def check_model(company: Company, model: str, method: str, version: str) -> str:
    """The model named in the path; raise 404 if there is no such one."""
    if not company.has_model(model):
        message = f"models/{model} is not found for API version {version}, or is not supported for {method}."
        raise gemini_error(404, "NOT_FOUND", message)
    return model


def generate(ask: Ask) -> Reply:
    """``:generateContent``."""
    question = _question(ask)
    answer = brain.answer(question)
    number, drawn = _candidates(ask), _pictures(question, answer)
    made = (answer.output_tokens + len(drawn) * _PICTURE_TOKENS) * number
    content = _chunk(ask, [_parts(answer) + drawn] * number, _FINISH[answer.finish], question.input_tokens, made)
    return Document({**content, "responseId": _response_id()}, made)


def stream_generate(ask: Ask) -> Reply:
    """``:streamGenerateContent``."""
    chunks = _chunks(ask, _question(ask), _candidates(ask))
    if ask.query.get("alt") == "sse":
        return Stream("text/event-stream", ((f"data: {encoded(c)}\r\n\r\n".encode(), n) for c, n in chunks))
    return Stream("application/json; charset=UTF-8", _array(chunks))


def count_tokens(ask: Ask) -> Reply:
    """``:countTokens``."""
    body = _field(ask.body, "generateContentRequest") or ask.body
    contents = _contents(body)
    total = count_input(contents, _field(body, "systemInstruction"), tools=body.get("tools"))
    details = [{"modality": "TEXT", "tokenCount": total}]
    return Document({"totalTokens": total, "promptTokensDetails": details})


def embed(ask: Ask) -> Reply:
    """``:embedContent``."""
    values, used = _embedded(ask.body)
    return Document({"embedding": values, "usageMetadata": {"promptTokenCount": used, "totalTokenCount": used}})


def batch_embed(ask: Ask) -> Reply:
    """``:batchEmbedContents``, which the SDK uses for one text as well."""
    requests = ask.body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise invalid("* BatchEmbedContentsRequest.requests: is not specified")
    embedded = [_embedded(request) for request in requests]
    used = sum(tokens for _, tokens in embedded)
    counts = {"promptTokenCount": used, "totalTokenCount": used}
    return Document({"embeddings": [values for values, _ in embedded], "usageMetadata": counts})


def models(company: Company, name: str | None) -> Document:
    """``GET /models`` and ``GET /models/{id}``."""
    methods = ["generateContent", "countTokens", "embedContent"]
    rows = [
        {
            "name": f"models/{model}",
            "version": "001",
            "displayName": model,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": methods,
        }
        for model in ((name,) if name else company.models)
    ]
    if name is None:
        return Document({"models": rows})
    check_model(company, name, "GetModel", "v1beta")
    return Document(rows[0])


METHODS = {
    "generateContent": generate,
    "streamGenerateContent": stream_generate,
    "countTokens": count_tokens,
    "embedContent": embed,
    "batchEmbedContents": batch_embed,
}


def _field(holder: Json, name: str) -> Any:
    """A field, in camel case or in snake case: Google takes both, and its own SDK mixes them."""
    value = holder.get(name)
    return value if value is not None else holder.get(re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name))


def _contents(body: Json) -> list[Json]:
    contents = body.get("contents")
    contents = [contents] if isinstance(contents, dict) else contents
    if not isinstance(contents, list) or not contents or not all(isinstance(one, dict) for one in contents):
        raise invalid("* GenerateContentRequest.contents: contents is not specified")
    return contents


def _config(ask: Ask) -> Json:
    config = _field(ask.body, "generationConfig") or {}
    if not isinstance(config, dict):
        raise invalid("Invalid value at 'generation_config'")
    return config


def _number(config: Json, name: str) -> int | None:
    value = _field(config, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid(f"* GenerateContentRequest.generation_config.{name}: must be a positive integer.")
    return value


def _candidates(ask: Ask) -> int:
    return _number(_config(ask), "candidateCount") or 1


def _question(ask: Ask) -> Question:
    contents = _contents(ask.body)
    said = [_text(one) for one in contents if one.get("role", "user") == "user"]
    config = _config(ask)
    tools = [tool for one in ask.body.get("tools") or [] for tool in _field(one, "functionDeclarations") or []]
    calling = _field(_field(ask.body, "toolConfig") or {}, "functionCallingConfig") or {}
    named = _field(calling, "allowedFunctionNames")
    usable = [tool for tool in tools if named is None or tool.get("name") in named]
    schema = _field(config, "responseJsonSchema") or _field(config, "responseSchema")
    if schema is None and _field(config, "responseMimeType") == "application/json":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return Question(
        model=ask.model,
        text=next((text for text in reversed(said) if text), ""),
        input_tokens=count_input(contents, _field(ask.body, "systemInstruction"), tools=ask.body.get("tools")),
        limit=_number(config, "maxOutputTokens"),
        tools=() if calling.get("mode") == "NONE" else tuple(_tool(tool) for tool in usable),
        forced=calling.get("mode") == "ANY",
        result=_result(contents[-1]),
        schema=schema,
    )


def _tool(declaration: Json) -> Tool:
    schema = _field(declaration, "parametersJsonSchema") or declaration.get("parameters")
    return Tool(declaration["name"], schema or {})


def _text(content: Json) -> str:
    return " ".join(part["text"] for part in content.get("parts") or [] if isinstance(part.get("text"), str))


def _result(content: Json) -> str | None:
    for part in content.get("parts") or []:
        if returned := _field(part, "functionResponse"):
            return encoded(returned.get("response"))
    return None


def _pictures(question: Question, answer: Answer) -> list[Json]:
    """A picture from a model made for them, if the output limit has room for it beside the text."""
    room = question.limit is None or question.limit >= answer.output_tokens + _PICTURE_TOKENS
    if "image" not in question.model or not room:
        return []
    data = base64.b64encode(picture(question.text)).decode()
    return [{"inlineData": {"mimeType": "image/png", "data": data}}]


def _parts(answer: Answer) -> list[Json]:
    if answer.call is None:
        return [{"text": answer.text}]
    arguments = parsed(answer.call.arguments)
    return [] if arguments is None else [{"functionCall": {"name": answer.call.name, "args": arguments}}]


def _chunk(ask: Ask, candidates: list[list[Json]], finish: str | None, read: int, made: int) -> Json:
    rows: list[Json] = []
    for index, parts in enumerate(candidates):
        row: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
        rows.append({**row, "finishReason": finish} if finish else row)
    return {
        "candidates": rows,
        "usageMetadata": {
            "promptTokenCount": read,
            "candidatesTokenCount": made,
            "totalTokenCount": read + made,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": read}],
        },
        "modelVersion": ask.model,
    }


def _chunks(ask: Ask, question: Question, number: int) -> Iterator[tuple[Json, int]]:
    """Chunks of a stream with the tokens each carries; all candidates say the same."""
    answer, name = brain.answer(question), _response_id()
    made = 0
    for piece in [] if answer.call else answer.pieces:
        made += number
        chunk = _chunk(ask, [[{"text": piece}]] * number, None, question.input_tokens, made)
        yield {**chunk, "responseId": name}, number
    drawn = _pictures(question, answer)
    rest = (_parts(answer) if answer.call else [{"text": ""}]) + drawn
    total = (answer.output_tokens + len(drawn) * _PICTURE_TOKENS) * number
    chunk = _chunk(ask, [rest] * number, _FINISH[answer.finish], question.input_tokens, total)
    yield {**chunk, "responseId": name}, total - made


def _array(chunks: Iterator[tuple[Json, int]]) -> Iterator[tuple[bytes, int]]:
    opening = "["
    for chunk, tokens in chunks:
        yield f"{opening}{encoded(chunk)}\n".encode(), tokens
        opening = ",\r\n"
    yield b"]", 0


def _embedded(request: Json) -> tuple[Json, int]:
    content = request.get("content")
    if not isinstance(content, dict):
        raise invalid("* EmbedContentRequest.content: is not specified")
    config = _field(request, "embedContentConfig") or {}
    dimensions = _number({**config, **request}, "outputDimensionality") or _DIMENSIONS
    return {"values": brain.embedding(_text(content), min(dimensions, 3072))}, count_input(content)


def _response_id() -> str:
    return secrets.token_urlsafe(16)
