"""Upper bounds: never fewer than the tokens, and no more than the tables say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.ceilings import (
    DOCUMENT_TOKENS,
    HOSTED_TOKENS,
    IMAGE_OUTPUT,
    IMAGE_OUTPUT_4K,
    OUTPUT_WITHOUT_BODY,
    SPEECH_OUTPUT,
    TOOL_TOKENS,
)
from ownkey.gateway.media import MOST_PARTS
from ownkey.gateway.model_limits import UNKNOWN, limits_of
from tests.unit.gateway.samples import call

IMAGE_TOKENS = UNKNOWN.image
PICTURE = base64.b64encode(b"\x89PNG" + b"p" * 300_000).decode()


def ask(slug: str, content: Any, **more: Any) -> Any:
    """A request with one message whose content this is."""
    if slug == "gemini":
        return {"contents": [{"role": "user", "parts": content}], **more}
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize("text", ["hello", "世界" * 50, "🎈" * 40, "a" * 5_000, 'quotes " and \\ slashes'])
def test_plain_text_is_bounded_by_its_bytes(text: str) -> None:
    """A tokenizer over bytes never makes more tokens than bytes; nothing is added to plain text."""
    body = json.dumps(ask("openai", text), ensure_ascii=False).encode()
    assert call(body=body).input_ceiling() == len(body)


@pytest.mark.parametrize(
    ("slug", "part"),
    [
        ("openai", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}),
        ("anthropic", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}),
        ("gemini", {"inlineData": {"mimeType": "image/png", "data": PICTURE}}),
        ("gemini", {"inline_data": {"mime_type": "image/png", "data": PICTURE}}),
    ],
)
def test_an_image_counts_by_table_not_by_its_bytes(slug: str, part: dict[str, Any]) -> None:
    """A photograph inside the request has a few thousand tokens, not a few hundred thousand."""
    read = call(slug, ask(slug, [part]))
    image = limits_of(read.model).image
    assert image < read.input_ceiling() < image + 500


@pytest.mark.parametrize(
    ("slug", "part"),
    [
        ("openai", {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
        ("openai", {"type": "image_url", "image_url": "https://example.com/a.png"}),
        ("anthropic", {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}),
        ("gemini", {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}}),
    ],
)
def test_an_image_kept_elsewhere_counts_too(slug: str, part: dict[str, Any]) -> None:
    """A reference of a few bytes may be an image of thousands of tokens."""
    read = call(slug, ask(slug, [part]))
    assert read.input_ceiling() == len(read.body) + limits_of(read.model).image


def test_images_add_up_wherever_messages_have_them() -> None:
    """In several messages, in results of tools, in input of Responses: each one counts."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image, image]}
    read = call("anthropic", ask("anthropic", [image, result]))
    assert read.input_ceiling() == len(read.body) + 3 * IMAGE_TOKENS
    item = {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}
    output = {"type": "function_call_output", "output": [{"type": "input_image", "file_id": "f"}]}
    read = call("openai", {"input": [item, output]}, "/v1/responses")
    assert read.input_ceiling() == len(read.body) + 2 * IMAGE_TOKENS
    reply = {"functionResponse": {"name": "f", "parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}}
    assert call("gemini", ask("gemini", [reply])).input_ceiling() < IMAGE_TOKENS + 500


@pytest.mark.parametrize(
    ("slug", "content"),
    [
        ("openai", f"data:image/png;base64,{PICTURE}"),
        ("openai", [{"type": "text", "text": f'"image_url": data:image/png;base64,{PICTURE}'}]),
        (
            "anthropic",
            [{"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": PICTURE}}}],
        ),
        ("anthropic", [{"type": "image", "source": {"type": "text", "data": PICTURE}}]),
        ("gemini", [{"functionCall": {"args": {"inlineData": {"mimeType": "image/png", "data": PICTURE}}}}]),
        ("gemini", [{"functionResponse": {"response": {"inlineData": {"mimeType": "image/png", "data": PICTURE}}}}]),
        ("gemini", [{"inlineData": {"mimeType": "text/plain", "data": PICTURE}}]),
    ],
)
def test_text_that_looks_like_an_image_counts_as_text(slug: str, content: Any) -> None:
    """What a model reads as text is bounded by its bytes, however it is dressed up."""
    read = call(slug, ask(slug, content))
    assert read.input_ceiling() >= len(read.body)


def test_a_document_counts_its_bytes_and_at_least_the_table() -> None:
    """A PDF's pages are not known from its size, so it has the larger of both."""
    small, large = "JVBERi0x", "JVBERi0x" * 20_000
    for data in (small, large):
        part = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
        read = call("anthropic", ask("anthropic", [part]))
        assert read.input_ceiling() >= max(len(data), DOCUMENT_TOKENS)


def test_sound_and_video_count_by_table() -> None:
    """A second of sound has a few tokens and thousands of bytes."""
    sound = {"type": "input_audio", "input_audio": {"format": "mp3", "data": PICTURE}}
    read = call(body=ask("openai", [sound]))
    assert len(PICTURE) // 16 <= read.input_ceiling() < len(PICTURE) // 10
    video = {"inlineData": {"mimeType": "video/mp4", "data": PICTURE}}
    assert len(PICTURE) // 4 <= call("gemini", ask("gemini", [video])).input_ceiling() < len(PICTURE) // 3


@pytest.mark.parametrize(
    ("slug", "path", "more"),
    [
        ("openai", "/v1/responses", {"tools": [{"type": "web_search"}]}),
        ("openai", "/v1/responses", {"tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}),
        ("openai", "", {"web_search_options": {}}),
        ("anthropic", "", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("anthropic", "", {"container": "c"}),
        ("anthropic", "", {"mcp_servers": [{"url": "https://example.com"}]}),
        ("gemini", "", {"tools": [{"googleSearch": {}}]}),
        ("gemini", "", {"tools": [{"functionDeclarations": [], "urlContext": {}}]}),
        ("gemini", "", {"tools": [{"functionDeclarations": [{"name": "f"}]}, {"codeExecution": {}}]}),
        ("openrouter", "/api/v1/chat/completions", {"plugins": [{"id": "web"}]}),
        ("openrouter", "/api/v1/chat/completions", {"model": "openai/gpt-4o:online"}),
        ("openrouter", "/api/v1/chat/completions", {"model": "m", "models": ["m", "openai/gpt-4o:online"]}),
        ("groq", "", {"model": "groq/compound"}),
        ("groq", "", {"model": "groq/compound-mini"}),
        ("qwen", "/compatible-mode/v1/chat/completions", {"model": "qwen-plus", "enable_search": True}),
        ("bedrock", "/model/us.amazon.nova-premier-v1:0/converse", {"toolConfig": {"tools": [{"systemTool": {}}]}}),
        ("bedrock", "/model/us.amazon.nova-premier-v1:0/converse", {"toolConfig": {"tools": "unreadable"}}),
    ],
)
def test_what_tools_of_the_provider_bring_in_is_added(slug: str, path: str, more: dict[str, Any]) -> None:
    """Tools that the provider runs bring in what no byte of the request shows, and the model reads all of it again."""
    read = call(slug, more, path)
    assert read.input_ceiling() >= 2 * len(read.body) + HOSTED_TOKENS


@pytest.mark.parametrize(
    ("slug", "path", "more"),
    [
        ("openai", "/v1/responses", {"previous_response_id": "resp_1"}),
        ("openai", "/v1/responses", {"conversation": "conv_1"}),
        ("openai", "/v1/responses", {"prompt": {"id": "pmpt_1"}}),
        ("openai", "/v1/responses", {"input": [{"id": "msg_1"}, {"role": "user", "content": "and?"}]}),
        ("openai", "/v1/responses", {"input": [{"type": "message", "role": "user", "content": "x"}, {"\\id": "m"}]}),
        ("openai", "/v1/responses", {"input": [{"id": "msg_1"}, "what nobody can read"]}),
        ("openai", "/v1/responses/compact", {"previous_response_id": "resp_1"}),
        ("openai", "", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}] * 20}),
        ("gemini", "", {"cachedContent": "cachedContents/c"}),
        ("gemini", "/v1beta/openai/chat/completions", {"extra_body": {"google": {"cached_content": "c"}}}),
        ("gemini", "/v1beta/openai/chat/completions", {"google": {"cachedContent": "c"}}),
        ("mistral", "/v1/conversations/conv_1", {"inputs": "and?"}),
        ("mistral", "/v1/agents/completions", {"agent_id": "ag_1", "messages": []}),
        ("mistral", "/v1/conversations", {"model": "m", "inputs": [{"content": [{"type": "document_url"}]}]}),
    ],
)
def test_what_the_provider_keeps_counts_as_what_the_model_can_read(slug: str, path: str, more: dict[str, Any]) -> None:
    """However much is kept, no more of it is read than the model's context window holds, and nobody knows how much."""
    body = json.dumps(more).replace("\\\\id", "\\u0069d").encode()
    read = call(slug, body, path)
    assert (
        limits_of(read.model).reads
        <= read.input_ceiling() - len(read.body)
        <= limits_of(read.model).reads + TOOL_TOKENS
    )


@pytest.mark.parametrize(
    ("slug", "path", "more"),
    [
        ("openai", "/v1/responses", {"input": [{"type": "function_call", "id": "fc_1", "arguments": "{}"}]}),
        ("openai", "/v1/responses", {"input": [{"role": "assistant", "id": "msg_1", "content": "yes"}]}),
        ("openai", "/v1/responses", {"input": 'an "id"'}),
        ("gemini", "/v1beta/openai/chat/completions", {"extra_body": {"google": {"thinking_config": {}}}}),
        ("gemini", "/v1beta/openai/chat/completions", {"extra_body": "x", "google": 5}),
        ("mistral", "/v1/conversations", {"model": "m", "inputs": "hello"}),
    ],
)
def test_what_stands_in_the_request_is_not_counted_as_kept(slug: str, path: str, more: dict[str, Any]) -> None:
    """An id beside the content itself, or members of the provider's own, bring in nothing."""
    read = call(slug, more, path)
    assert read.input_ceiling() == len(read.body)


@pytest.mark.parametrize(
    ("slug", "path", "more"),
    [
        ("openai", "", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("openai", "/v1/responses", {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]}),
        ("openai", "", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ("anthropic", "", {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
        ("gemini", "", {"tools": [{"functionDeclarations": [{"name": "f"}]}]}),
        ("gemini", "", {"tools": [{"function_declarations": [], "googleSearch": None}]}),
        ("bedrock", "/model/m/converse", {"toolConfig": {"tools": [{"toolSpec": {"name": "f"}}, {"cachePoint": {}}]}}),
        ("gemini", "", {"generationConfig": {"responseSchema": {"type": "OBJECT"}}}),
        ("xai", "/v1/chat/completions", {"model": "grok-4"}),
    ],
)
def test_tools_of_the_caller_add_the_providers_instructions(slug: str, path: str, more: dict[str, Any]) -> None:
    """A provider tells the model how to use tools or a schema; that is a constant, and no more."""
    read = call(slug, more, path)
    assert read.input_ceiling() == len(read.body) + TOOL_TOKENS


def test_stored_content_that_is_null_adds_nothing() -> None:
    """SDKs send empty members; they mean nothing."""
    body = {"previous_response_id": None, "conversation": None, "tools": None, "input": "hello"}
    read = call("openai", body, "/v1/responses")
    assert read.input_ceiling() == len(read.body) + TOOL_TOKENS


def test_a_prediction_counts_twice() -> None:
    """What is rejected of a predicted output is billed as output, beside the input that it is."""
    prediction = {"type": "content", "content": "x" * 1000}
    read = call(body={"prediction": prediction})
    assert read.input_ceiling() >= len(read.body) + 1000


@pytest.mark.parametrize(
    ("slug", "path", "model", "most"),
    [
        ("openai", "", "gpt-3.5-turbo", 4_096),
        ("openai", "", "gpt-4o-mini-2024-07-18", 16_384),
        ("openai", "", "gpt-4.1-nano", 32_768),
        ("openai", "", "gpt-4", 8_192),
        ("openai", "", "gpt-5-mini", 128_000),
        ("openai", "/v1/responses", "gpt-5-pro-2025-10-06", 272_000),
        ("deepseek", "/chat/completions", "deepseek-v4-pro", 393_216),
        ("bedrock", "/model/us.anthropic.claude-3-haiku-20240307-v1:0/converse", "", 4_096),
        ("openai", "", "a-model-nobody-knows", UNKNOWN.writes),
        ("openrouter", "/api/v1/chat/completions", "openai/gpt-4o", 16_384),
        ("openai", "/v1/embeddings", "text-embedding-3-small", 0),
        ("openai", "/v1/images/generations", "gpt-image-1", IMAGE_OUTPUT),
        ("openai", "/v1/images/generations", "gpt-image-2", IMAGE_OUTPUT_4K),
        ("openai", "/v1/audio/speech", "gpt-4o-mini-tts", SPEECH_OUTPUT),
        ("openai", "/v1/unknown", "x", UNKNOWN.writes),
    ],
)
def test_the_most_a_model_writes_is_a_table(slug: str, path: str, model: str, most: int) -> None:
    """Without a limit of the caller's, the longest prefix of the model's name decides, and the kind of call."""
    assert call(slug, {"model": model}, path).output_maximum() == most


def test_an_unknown_path_without_a_body_has_a_small_bound() -> None:
    """A request that says nothing is not given the largest answer there is."""
    assert call(body=b"", path="/v1/unknown", method="GET").output_maximum() == OUTPUT_WITHOUT_BODY


@pytest.mark.parametrize(
    "content", ["hello world, how are you today?", "世界" * 100, [{"type": "text", "text": "x" * 400}]]
)
def test_the_estimate_is_about_a_quarter_of_the_bytes(content: Any) -> None:
    """For a reply that reports nothing the input is about a token for four bytes, and never above the bound."""
    read = call(body=ask("openai", content))
    assert read.input_estimate() == -(-len(read.body) // 4)
    assert 0 < read.input_estimate() <= read.input_ceiling()


def test_the_estimate_of_an_image_is_not_its_bytes() -> None:
    """A picture in the request is estimated as a picture."""
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    assert call(body=ask("openai", [part])).input_estimate() < 1_200


@pytest.mark.parametrize(
    ("medium", "least", "most"),
    [
        ({"type": "input_audio", "input_audio": {"data": PICTURE}}, 300, 700),
        ({"type": "document", "source": {"type": "base64", "data": PICTURE}}, 90_000, 110_000),
    ],
)
def test_other_media_are_estimated_as_what_they_are(medium: dict[str, Any], least: int, most: int) -> None:
    """Sound by its length; a document, which may hold that much text, by its bytes."""
    assert least <= call(body=ask("openai", [medium])).input_estimate() <= most


def test_base64_in_a_text_is_text() -> None:
    """A long run of letters that the model reads is not taken for a picture."""
    read = call(body=ask("openai", PICTURE))
    assert read.input_estimate() >= len(PICTURE) // 4


def test_a_model_that_reads_images_dearly_has_a_figure_of_its_own() -> None:
    """gpt-4o-mini counts an image more than thirty times as high as its siblings."""
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert call(body={**ask("openai", [part]), "model": "gpt-4o-mini"}).input_ceiling() > 48_000
    assert call(body={**ask("openai", [part]), "model": "gpt-4o"}).input_ceiling() < 9_000


@pytest.mark.parametrize("tools", ["web", [[]], {"type": "web_search"}, [{"type": 5}]])
def test_tools_of_an_unknown_form_count_as_the_providers(tools: Any) -> None:
    """What we cannot read might run there."""
    read = call("openai", {"tools": tools}, "/v1/responses")
    assert read.input_ceiling() >= HOSTED_TOKENS


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "item_reference", "id": "x"},
        {"type": "input_audio", "input_audio": {}},
        {"type": "video_url", "video_url": {"url": "https://example.com/v.mp4"}},
        {"fileData": {"fileUri": "https://example.com/v", "mimeType": "video/mp4"}},
        {"fileData": {"fileUri": "https://example.com/v", "mimeType": 5}},
        {"inlineData": {"mimeType": "audio/wav"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document_url", "document_url": "https://example.com/a.pdf"},
        {"type": "file_url", "file_url": {"url": "https://example.com/a.pdf"}},
        {"type": "input_audio", "input_audio": "https://example.com/a.mp3"},
        {"type": "input_audio", "input_audio": {"data": "https://example.com/a.wav", "format": "wav"}},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "a_file_by_a_new_name", "file": "f"},
        {"document": {"format": "pdf", "source": {"s3Location": {"uri": "s3://bucket/a.pdf"}}}},
    ],
)
def test_what_is_kept_elsewhere_counts_as_what_the_model_can_read(part: dict[str, Any]) -> None:
    """Files, videos and sounds that are only named have no size; all of them together fill the context window."""
    read = call(body=ask("openai", ["text", part, part]))
    assert read.input_ceiling() == len(read.body) + UNKNOWN.reads
    read = call(body={**ask("openai", [part]), "model": "openai/gpt-4.1-mini"})
    assert read.input_ceiling() == len(read.body) + 1_048_576
    read = call(body={**ask("openai", [part]), "model": "gpt-4o", "models": ["gpt-4o", "gpt-5"]})
    assert read.input_ceiling() == len(read.body) + UNKNOWN.reads + TOOL_TOKENS


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "the input_audio"},
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "input_image"}},
        {"type": "tool_result", "content": [{"type": "search_result", "content": [{"type": "text", "text": "x"}]}]},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
        {"type": "document", "document": {"id": "d", "data": {"snippet": "words"}}},
        {"document": {"format": "txt", "source": {"text": "words"}}},
        {"type": "container_upload", "file_id": "file_1"},
    ],
)
def test_text_of_any_type_counts_by_its_bytes(part: dict[str, Any]) -> None:
    """What a tool was asked and said, and documents of text, stand there in full."""
    read = call(body=ask("openai", [part]))
    assert read.input_ceiling() == len(read.body)


def test_images_in_a_document_of_parts_count() -> None:
    """Anthropic's documents may be lists of texts and images."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    part = {"type": "document", "source": {"type": "content", "content": [image, image]}}
    read = call("anthropic", ask("anthropic", [part]))
    assert read.input_ceiling() == len(read.body) + 2 * IMAGE_TOKENS


def test_images_to_edit_count_each() -> None:
    """Images to edit may be named by their ids or addresses, or stand in the request."""
    images = [{"file_id": "f"}] * 15 + [{"image_url": f"data:image/png;base64,{PICTURE}"}]
    read = call("openai", {"model": "gpt-image-1", "prompt": "x", "images": images}, "/v1/images/edits")
    assert 16 * IMAGE_TOKENS < read.input_ceiling() < 16 * IMAGE_TOKENS + 1_000


def test_a_video_at_a_rate_of_its_own_is_not_bounded_by_its_bytes() -> None:
    """The caller may have 24 images of each second read instead of one."""
    video = {"inlineData": {"mimeType": "video/mp4", "data": PICTURE}, "videoMetadata": {"fps": 24}}
    assert 1_048_576 < call("gemini", ask("gemini", [video])).input_ceiling() < 1_048_576 + 1_000


def test_a_document_counts_no_more_than_the_model_can_read() -> None:
    """Its bytes may be many more than the tokens that fit."""
    part = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PICTURE}"}}
    read = call(body={**ask("openai", [part]), "model": "gpt-4o"})
    assert 128_000 < read.input_ceiling() < 128_000 + 500


def test_deeply_nested_parts_are_not_followed_for_ever() -> None:
    """Parts within parts are text beyond a depth that no real request has."""
    part: dict[str, Any] = {"type": "image_url", "image_url": "https://example.com/a.png"}
    for _ in range(40):
        part = {"content": [part]}
    read = call(body=ask("openai", [part]))
    assert read.input_ceiling() == len(read.body)


@pytest.mark.parametrize("path", ["", "/v1/new/things"])
def test_every_image_of_very_many_counts_or_the_request_is_refused(path: str) -> None:
    """There are as many parts as anybody sends, each counted; one more is refused, on a path we do not know, too."""
    image = b'{"type":"image_url","image_url":"https://example.com/a.png"},'
    body = b'{"model":"m","messages":[{"content":[%b]}]}'
    read = call(path=path, body=body % (image * (MOST_PARTS - 1))[:-1])
    assert read.input_ceiling() == len(read.body) + (MOST_PARTS - 1) * IMAGE_TOKENS
    with pytest.raises(InvalidRequest, match=f"more than {MOST_PARTS:,} messages and parts"):
        call(path=path, body=body % (image * MOST_PARTS)[:-1])
