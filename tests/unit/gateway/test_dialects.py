"""What else a format has to offer: deltas, errors, end marks, and the assistant page's chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownkey import errors
from ownkey.errors import AllowanceExhausted, InvalidRequest, OwnkeyError, ProviderKeyRejected
from ownkey.gateway import sse
from ownkey.gateway.call import read_call
from ownkey.gateway.dialects.anthropic import ANTHROPIC
from ownkey.gateway.dialects.bedrock import BEDROCK
from ownkey.gateway.dialects.cohere import COHERE
from ownkey.gateway.dialects.dialect import Dialect, Message
from ownkey.gateway.dialects.error_shapes import ERROR_WORDS
from ownkey.gateway.dialects.gemini import GEMINI
from ownkey.gateway.dialects.ollama import OLLAMA
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.gateway.dialects.table import DIALECTS
from ownkey.gateway.readers import FrameReader
from ownkey.providers.registry import PROVIDERS, find
from tests.unit.gateway.samples import ANTHROPIC_STREAM, GEMINI_STREAM, OPENAI_STREAM, gemini_chunk, openai_chunk

EXHAUSTED = AllowanceExhausted(detail={"resets_at": "2026-12-01T00:00:00Z", "tokens_left": 12, "code": "never"})

# Code, then how OpenAI, Anthropic and Gemini call it.
WORDS = {
    "invalid_request": ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
    "not_authenticated": ("authentication_error", "authentication_error", "UNAUTHENTICATED"),
    "forbidden": ("permission_error", "permission_error", "PERMISSION_DENIED"),
    "provider_not_available": ("permission_error", "permission_error", "PERMISSION_DENIED"),
    "provider_key_rejected": ("permission_error", "permission_error", "PERMISSION_DENIED"),
    "not_found": ("invalid_request_error", "not_found_error", "NOT_FOUND"),
    "model_not_found": ("invalid_request_error", "not_found_error", "NOT_FOUND"),
    "request_too_large": ("invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
    "request_limit_reached": ("rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "allowance_exhausted": ("insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "cap_reached": ("insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "provider_failed": ("server_error", "api_error", "UNAVAILABLE"),
    "unavailable": ("server_error", "overloaded_error", "UNAVAILABLE"),
    "provider_timed_out": ("server_error", "timeout_error", "DEADLINE_EXCEEDED"),
    "internal": ("server_error", "api_error", "INTERNAL"),
}
# Code, then how AWS calls it.
AWS_WORDS = {
    "invalid_request": "ValidationException",
    "not_authenticated": "UnrecognizedClientException",
    "forbidden": "AccessDeniedException",
    "provider_not_available": "AccessDeniedException",
    "provider_key_rejected": "AccessDeniedException",
    "not_found": "ResourceNotFoundException",
    "model_not_found": "ResourceNotFoundException",
    "request_too_large": "ValidationException",
    "request_limit_reached": "ServiceQuotaExceededException",
    "allowance_exhausted": "ServiceQuotaExceededException",
    "cap_reached": "ServiceQuotaExceededException",
    "provider_failed": "InternalServerException",
    "unavailable": "ServiceUnavailableException",
    "provider_timed_out": "InternalServerException",
    "internal": "InternalServerException",
}


def test_the_words_are_the_documented_ones() -> None:
    """Every code has the type or status that makes each official SDK raise the fitting exception."""
    assert {code: (words.openai, words.anthropic, words.gemini) for code, words in ERROR_WORDS.items()} == WORDS
    assert {code: words.bedrock for code, words in ERROR_WORDS.items()} == AWS_WORDS


def test_an_allowance_error_in_the_three_shapes() -> None:
    """Each SDK finds its own members, our code, and the details that say when and how much."""
    assert json.loads(OPENAI.error_body(EXHAUSTED, "req_1")) == {
        "error": {
            "message": EXHAUSTED.message,
            "type": "insufficient_quota",
            "param": None,
            "code": "allowance_exhausted",
            "resets_at": "2026-12-01T00:00:00Z",
            "tokens_left": 12,
            "request_id": "req_1",
        }
    }
    assert json.loads(ANTHROPIC.error_body(EXHAUSTED, "req_1")) == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": EXHAUSTED.message,
            "code": "allowance_exhausted",
            "resets_at": "2026-12-01T00:00:00Z",
            "tokens_left": 12,
        },
        "request_id": "req_1",
    }
    error = json.loads(GEMINI.error_body(EXHAUSTED, "req_1"))["error"]
    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", EXHAUSTED.message)
    assert error["details"][0]["reason"] == "allowance_exhausted"
    assert error["details"][0]["metadata"]["tokens_left"] == "12"


def test_the_field_at_fault_is_openais_param() -> None:
    """A refusal that names a member puts it where OpenAI's SDK looks for it."""
    error = InvalidRequest("no", detail={"param": "max_tokens"})
    assert json.loads(OPENAI.error_body(error, "r"))["error"]["param"] == "max_tokens"


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC, GEMINI, COHERE, OLLAMA, BEDROCK], ids=lambda one: one.name)
@pytest.mark.parametrize("name", [name for name in dir(errors) if isinstance(getattr(errors, name), type)])
def test_every_error_has_every_shape(dialect: Dialect, name: str) -> None:
    """No error of ours is without a body, and its event is one that the same format takes for an error."""
    kind = getattr(errors, name)
    if not issubclass(kind, OwnkeyError):
        return
    error = kind()
    assert kind.code in dialect.error_body(error, "req_1").decode()
    event = dialect.error_event(error, "req_1")
    if dialect is BEDROCK:
        reader = FrameReader(dialect)
        reader.take(event)
        assert reader.failed
        assert reader.between_events
        return
    if dialect is OLLAMA:
        assert event.endswith(b"}\n")
        event = b"data: " + event
    payload = sse.payload(sse.with_line_feeds(event).strip(b"\n"))
    assert json.loads(payload) == json.loads(dialect.error_body(error, "req_1"))
    assert dialect.is_error(payload)
    assert not any(marker in event for marker in dialect.end_markers("responses"))


def test_error_events_are_framed_as_each_sdk_wants_them() -> None:
    """OpenAI: bare data; Anthropic: an event called error; Gemini: data that begins with the member ``error``."""
    error = ProviderKeyRejected()
    assert OPENAI.error_event(error, "r").startswith(b'data: {"error":')
    assert ANTHROPIC.error_event(error, "r").startswith(b"event: error\ndata: {")
    assert GEMINI.error_event(error, "r").startswith(b'data: {"error":')


def test_what_cohere_ollama_and_aws_raise_on() -> None:
    """Each finds its sentence where its clients look for it, our code beside it, and AWS's the exception's name."""
    error = AllowanceExhausted()
    assert json.loads(COHERE.error_body(error, "r"))["message"] == error.message
    assert json.loads(OLLAMA.error_body(error, "r"))["error"] == error.message
    said = json.loads(BEDROCK.error_body(error, "r"))
    assert (said["message"], said["code"]) == (error.message, "allowance_exhausted")
    assert error.headers["x-amzn-errortype"] == said["__type"] == "ServiceQuotaExceededException"


@pytest.mark.parametrize(
    ("dialect", "payload"),
    [
        (OPENAI, {"error": {"code": 502, "message": "x"}, "choices": [{"finish_reason": "error"}]}),
        (OPENAI, {"type": "error", "code": "x"}),
        (OPENAI, {"type": "response.failed", "response": {"error": {}}}),
        (ANTHROPIC, {"type": "error", "error": {"type": "overloaded_error"}}),
        (GEMINI, {"error": {"code": 503}}),
    ],
)
def test_a_providers_error_inside_a_stream_is_seen(dialect: Dialect, payload: Any) -> None:
    """An error under status 200 is told from an answer."""
    assert dialect.is_error(json.dumps(payload).encode())


@pytest.mark.parametrize(
    ("dialect", "stream", "text"),
    [
        (OPENAI, OPENAI_STREAM, "Grüße 世界 🎈"),
        (ANTHROPIC, ANTHROPIC_STREAM, "Grüße aus 北京"),
        (GEMINI, GEMINI_STREAM, "Zwölf Möwen 🐦"),
    ],
)
def test_the_text_of_a_stream(dialect: Dialect, stream: bytes, text: str) -> None:
    """The assistant page shows the visible text of each event; what is emitted is at least that text."""
    payloads = list(sse.payloads(sse.with_line_feeds(stream)))
    assert "".join(dialect.text_of(payload) for payload in payloads) == text
    assert sum(dialect.emitted(payload) for payload in payloads) == len(text.encode())
    assert not any(dialect.is_error(payload) for payload in payloads)


DELTAS = [
    (OPENAI, openai_chunk("abc"), "abc", 3),
    (OPENAI, {"choices": [{"delta": {"reasoning_content": "hmm"}}]}, "", 3),
    (OPENAI, {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}, "", 3),
    (OPENAI, {"choices": [{"delta": {"tool_calls": [{"index": 0}, {"function": {"arguments": "abc"}}]}}]}, "", 3),
    (OPENAI, {"choices": [{"delta": {"function_call": {"name": "f", "arguments": "{}"}}}]}, "", 3),
    (OPENAI, {"choices": [{"text": "abc"}]}, "abc", 3),
    (OPENAI, {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "bb"}}]}, "a", 3),
    (OPENAI, {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"text": "hmm"}]}]}}]}, "", 3),
    (OPENAI, {"type": "response.output_text.delta", "delta": "abc"}, "abc", 3),
    (OPENAI, {"type": "response.function_call_arguments.delta", "delta": "{}1"}, "", 3),
    (OPENAI, {"type": "response.output_text.done", "text": "abc"}, "", 0),
    (OPENAI, {"type": "response.audio.delta", "delta": "A" * 4_000}, "", 12),
    (OPENAI, {"type": "response.output_audio.delta", "delta": "A" * 4_000}, "", 12),
    (OPENAI, {"type": "speech.audio.delta", "audio": "A" * 4_001}, "", 13),
    (OPENAI, {"choices": [{"delta": {"audio": {"data": "A" * 4_000, "transcript": "abc"}}}]}, "", 15),
    (OPENAI, {"choices": [{"delta": {"audio": {"id": "a", "expires_at": 5}}}]}, "", 0),
    (OPENAI, {"choices": [{"delta": {"content": "abc", "images": [{}, {}]}}]}, "abc", 3 + 2 * 4_224),
    (OPENAI, {"type": "response.image_generation_call.generating"}, "", 4_224),
    (OPENAI, {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"}, "", 0),
    (OPENAI, {"type": "content-delta", "delta": {"message": {"content": {"text": "abc"}}}}, "", 3),
    (ANTHROPIC, {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hmm"}}, "", 3),
    (ANTHROPIC, {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}1"}}, "", 3),
    (ANTHROPIC, {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "get"}}, "", 3),
    (ANTHROPIC, {"type": "completion", "completion": "abc"}, "", 3),
    (ANTHROPIC, {"type": "ping"}, "", 0),
    (GEMINI, gemini_chunk("abc", 1), "abc", 3),
    (GEMINI, {"candidates": [{"content": {"parts": [{"text": "hmm", "thought": True}]}}]}, "", 3),
    (GEMINI, {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}}]}, "", 3),
    (GEMINI, {"candidates": [{"content": {"parts": [{"inlineData": {"data": "AA"}}]}}]}, "", 5_160),
    (GEMINI, {"candidates": [{"finishReason": "STOP"}]}, "", 0),
    (GEMINI, {"event_type": "step.delta", "delta": {"type": "text", "text": "abc"}}, "abc", 3),
]


@pytest.mark.parametrize(("dialect", "payload", "text", "emitted"), DELTAS)
def test_deltas(dialect: Dialect, payload: Any, text: str, emitted: int) -> None:
    """Thinking and tool arguments are written by the model but not shown; repetitions of the whole count nothing.

    Sound and pictures are not shown either, and count as the text to which they compare.
    """
    data = json.dumps(payload).encode()
    assert (dialect.text_of(data), dialect.emitted(data)) == (text, emitted)


@pytest.mark.parametrize(
    ("dialect", "stream"), [(OPENAI, OPENAI_STREAM), (ANTHROPIC, ANTHROPIC_STREAM), (GEMINI, GEMINI_STREAM)]
)
def test_the_end_of_a_stream_is_marked(dialect: Dialect, stream: bytes) -> None:
    """A marker stands in the last event of a whole stream and nowhere before."""
    where = [stream.index(marker) for marker in dialect.end_markers("chat") if marker in stream]
    assert where
    assert min(where) > len(stream) - 300


CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "Hello"),
    Message("assistant", "Hi"),
    Message("user", "Zwölf?"),
]


@pytest.mark.parametrize("slug", [slug for slug, provider in PROVIDERS.items() if provider.assistant_model])
def test_the_assistants_chat_is_a_call_like_any_other(slug: str) -> None:
    """The page's chat goes to a known chat endpoint of its provider, streamed, with the model it was given."""
    provider = find(slug)
    dialect = DIALECTS[provider.dialect]
    target, body = dialect.chat("the-model", CONVERSATION, provider.api_roots[0])
    path, _, query = target.partition("?")
    read = read_call(provider, "POST", path, query, [(b"content-type", b"application/json")], body)
    assert read.endpoint.kind in ("chat", "messages", "generate")
    assert (read.model, read.stream) == ("the-model", True)
    said = json.loads(body)
    assert "Be brief." in json.dumps(said)
    assert "Zwölf?" in json.dumps(said, ensure_ascii=False)


def test_the_system_prompt_is_where_each_format_has_it() -> None:
    """OpenAI: the first message; Anthropic: ``system``; Gemini: ``systemInstruction``, and roles of its own."""
    path, body = OPENAI.chat("m", CONVERSATION)
    assert path == "/v1/chat/completions"
    assert json.loads(body)["messages"][0] == {"role": "system", "content": "Be brief."}
    path, body = ANTHROPIC.chat("m", CONVERSATION)
    assert path == "/v1/messages"
    assert json.loads(body)["system"] == "Be brief."
    assert [message["role"] for message in json.loads(body)["messages"]] == ["user", "assistant", "user"]
    path, body = GEMINI.chat("m", CONVERSATION)
    assert path == "/v1beta/models/m:streamGenerateContent?alt=sse"
    assert json.loads(body)["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [message["role"] for message in json.loads(body)["contents"]] == ["user", "model", "user"]
    for dialect in (ANTHROPIC, GEMINI):
        assert b"ystem" not in dialect.chat("m", CONVERSATION[1:])[1]
