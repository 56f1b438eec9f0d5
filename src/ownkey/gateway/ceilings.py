"""Upper bounds of what a call can cost, known before it runs; and the estimate when a provider says nothing.

A tokenizer over bytes never makes more tokens than there are bytes, so the bytes of a request bound its input. What
is not text is counted by the tables below instead, and what the bytes do not show (files kept elsewhere, tools that
the provider runs) is added. The figures are generous roundings of the providers' documented maxima.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from ownkey.gateway.json_scan import UNREADABLE
from ownkey.gateway.media import Media
from ownkey.gateway.multipart_fields import Part
from ownkey.gateway.request_body import Body, OtherBody, SectionedBody, Tool

IMAGE_TOKENS = 8_192
"""One image read, whatever its size: above every provider's maximum but gpt-4o-mini's."""
IMAGE_TOKENS_BY_MODEL = {"gpt-4o-mini": 49_152}
FILE_TOKENS = 65_536
"""One document, or content kept with the provider: a cache, an earlier response, a stored prompt."""
TOOL_TOKENS = 1_024
"""Instructions that a provider adds to a request with tools or an output schema, and xAI to every one."""
BYTES_PER_AUDIO_TOKEN = 16
BYTES_PER_VIDEO_TOKEN = 4

DEFAULT_OUTPUT = 131_072
"""The most a model writes in one answer where the table below does not know better."""
OUTPUT_WITHOUT_BODY = 8_192
"""The same for a path we do not know, asked without a body."""
IMAGE_OUTPUT = 8_192
"""One generated image; OpenAI's largest has 6,240 tokens."""
SPEECH_OUTPUT = 8_192
TRANSCRIPT_OUTPUT = 16_384

OUTPUT_BY_MODEL: tuple[tuple[str, int], ...] = (
    # The longest prefix that fits decides. Sources: the providers' model pages.
    ("gpt-3.5", 4_096),
    ("gpt-4", 8_192),
    ("gpt-4-turbo", 4_096),
    ("gpt-4o", 16_384),
    ("gpt-4.1", 32_768),
    ("gpt-5", 128_000),
    ("chatgpt-4o", 16_384),
    ("o1", 100_000),
    ("o3", 100_000),
    ("o4", 100_000),
    ("claude-3-haiku", 4_096),
    ("claude-3-opus", 4_096),
    ("claude-3-5", 8_192),
    ("gemini-1.5", 8_192),
    ("gemini-2.0", 8_192),
    ("gemini-2.5", 65_536),
    ("gemini-3", 65_536),
)
# Bedrock's ids begin with a region and the model's maker: us.anthropic.claude-…
_MAKERS = re.compile(r"^(?:[a-z0-9-]+\.)+(?=[a-z])")
_OUTPUT_BY_KIND = {
    "embeddings": 0,
    "images": IMAGE_OUTPUT,
    "predict": IMAGE_OUTPUT,
    "bedrock_images": IMAGE_OUTPUT,
    "speech": SPEECH_OUTPUT,
    "transcription": TRANSCRIPT_OUTPUT,
    "free": 0,
}


_tools = msgspec.json.Decoder(list[Tool] | None)
_OWN_TOOLS = ("function", "custom", "namespace")


@lru_cache(1_024)
def output_maximum(kind: str, model: str, has_body: bool) -> int:
    """The most output tokens one choice can have when the caller sets no limit."""
    known = _OUTPUT_BY_KIND.get(kind)
    if known is not None:
        return known
    if kind == "unknown" and not has_body:
        return OUTPUT_WITHOUT_BODY
    name = _MAKERS.sub("", model.rsplit("/", 1)[-1])
    fitting = [(len(prefix), tokens) for prefix, tokens in OUTPUT_BY_MODEL if name.startswith(prefix)]
    return max(fitting)[1] if fitting else DEFAULT_OUTPUT


def input_ceiling(kind: str, model: str, body: bytes, fields: Body, media: Media) -> int:
    """Never fewer than the input tokens of a JSON request, by the tables of this module."""
    ceiling = len(body)
    if _brings_instructions(model, fields):
        ceiling += TOOL_TOKENS
    if fields.prediction:
        ceiling += len(fields.prediction)  # what is rejected of it is billed as output
    if _reads_more_than_it_shows(kind, model, fields):
        # After each step of a tool that the provider runs, the conversation is read again.
        ceiling += FILE_TOKENS + len(body)
    return ceiling + _media_tokens(model, media) if media else ceiling


def _brings_instructions(model: str, fields: Body) -> bool:
    """Whether the provider adds instructions of its own: for tools, for an output schema, or to any request."""
    return bool(
        fields.tools
        or fields.functions
        or fields.response_format
        or fields.output_format
        or fields.output_config
        or fields.text
        or fields.models  # a list to choose from: we do not know which model answers
        or "grok-4" in model
        or (isinstance(fields, SectionedBody) and _section_brings_instructions(fields))
    )


def _section_brings_instructions(fields: SectionedBody) -> bool:
    if isinstance(fields, OtherBody):
        return bool(fields.toolConfig or fields.model)  # a model of Ollama's or Cohere's may have a prompt of its own
    section = fields.generationConfig or fields.generation_config
    return section is not None and bool(section.responseSchema or section.responseJsonSchema)


def _reads_more_than_it_shows(kind: str, model: str, fields: Body) -> bool:
    """Whether the provider runs tools for this request, or adds content that it keeps."""
    return bool(
        fields.previous_response_id
        or fields.previous_interaction_id
        or fields.conversation
        or fields.container
        or fields.cachedContent
        or fields.cached_content
        or fields.mcp_servers
        or fields.plugins
        or fields.search_parameters
        or fields.web_search_options is not None
        or (kind == "responses" and bytes(memoryview(fields.prompt)[:1]) == b"{")
        or (type(fields) is OtherBody and (fields.conversation_id or fields.connectors or ":prompt/" in model))
        or (fields.tools and _has_hosted_tool(fields.tools))
    )


def _has_hosted_tool(tools: msgspec.Raw) -> bool:
    try:
        found = _tools.decode(tools)
    except UNREADABLE:
        return True
    for tool in found or ():
        if tool.type is not None:
            if tool.type not in _OWN_TOOLS:
                return True
        elif not (tool.name or tool.function or tool.functionDeclarations or tool.function_declarations):
            return True
    return False


def _media_tokens(model: str, media: Media) -> int:
    """What images, files, sounds and videos count by table, less their bytes where they stand in the request."""
    name = model.rsplit("/", 1)[-1]
    image = max((tokens for prefix, tokens in IMAGE_TOKENS_BY_MODEL.items() if name.startswith(prefix)), default=0)
    tokens = 0
    for medium, inline in media:
        if medium == "image":
            tokens += (image or IMAGE_TOKENS) - inline
        elif medium == "file" or not inline:
            tokens += max(FILE_TOKENS - inline, 0)
        else:
            tokens += inline // (BYTES_PER_AUDIO_TOKEN if medium == "audio" else BYTES_PER_VIDEO_TOKEN) - inline
    return tokens


def form_ceiling(parts: list[Part], total: int) -> int:
    """Never fewer than the input tokens of a multipart form of ``total`` bytes."""
    ceiling = total
    for part in parts:
        if part.is_file:
            ceiling -= part.length
            if part.content_type.startswith("image/"):
                ceiling += IMAGE_TOKENS
            else:
                ceiling += part.length // BYTES_PER_AUDIO_TOKEN + 1
    return ceiling
