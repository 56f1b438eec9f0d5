"""Upper bounds of what a call can cost, known before it runs; and the estimate when a provider says nothing.

A tokenizer over bytes never makes more tokens than there are bytes, so the bytes of a request bound its input. Images,
sounds and videos in it are counted by the tables below instead. What it only names (a file at an address, an earlier
response, a cache) nobody can measure beforehand: all of that together is counted as the most that the model can read
(``model_limits``). What tools that the provider runs bring in has no bound, but a generous figure.
"""

from __future__ import annotations

import msgspec

from ownkey.gateway.json_scan import UNREADABLE
from ownkey.gateway.media import Media
from ownkey.gateway.model_limits import UNKNOWN, Limits, limits_of
from ownkey.gateway.multipart_fields import Part
from ownkey.gateway.request_body import Body, Item, OtherBody, SectionedBody, ToolConfig

DOCUMENT_TOKENS = 65_536
"""The least for a document in the request: its pages may be read as images, and its bytes do not tell how many."""
HOSTED_TOKENS = 65_536
"""What tools that the provider runs bring in."""
TOOL_TOKENS = 1_024
"""Instructions that a provider adds to a request with tools or an output schema, and xAI to every one."""
BYTES_PER_AUDIO_TOKEN = 16
SOUND_ELSEWHERE = 131_072
"""Sound to transcribe that is only named: more than three hours of it, at ten tokens a second."""
BYTES_PER_VIDEO_TOKEN = 4

OUTPUT_WITHOUT_BODY = 8_192
"""The most for a path we do not know, asked without a body."""
IMAGE_OUTPUT = 8_192
"""One generated image; the largest of ``gpt-image-1`` has 6,240 tokens."""
IMAGE_OUTPUT_4K = 16_384
"""One of ``gpt-image-2``, which has 13,342 tokens at 3840 x 2160 in high quality."""
SPEECH_OUTPUT = 8_192
TRANSCRIPT_OUTPUT = 16_384

_OUTPUT_BY_KIND = {
    "embeddings": 0,
    "images": IMAGE_OUTPUT,
    "predict": IMAGE_OUTPUT,
    "bedrock_images": IMAGE_OUTPUT,
    "speech": SPEECH_OUTPUT,
    "transcription": TRANSCRIPT_OUTPUT,
    "free": 0,
}


_items = msgspec.json.Decoder(list[Item])
_tools = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)
_tool_configs = msgspec.json.Decoder(ToolConfig | None)
_RESPONSES = ("responses", "compact")
_NULL = msgspec.Raw(b"null")
_OWN_TYPES = (b'"function"', b'"custom"', b'"namespace"')
_OWN_MEMBERS = frozenset({"functionDeclarations", "function_declarations", "toolSpec", "cachePoint"})
_SEARCHING = ("groq/compound", "compound-beta")


def output_maximum(kind: str, model: str, has_body: bool) -> int:
    """The most output tokens one choice can have when the caller sets no limit."""
    known = _OUTPUT_BY_KIND.get(kind)
    if known is not None:
        return IMAGE_OUTPUT_4K if kind == "images" and "gpt-image-2" in model else known
    if kind == "unknown" and not has_body:
        return OUTPUT_WITHOUT_BODY
    return limits_of(model).writes


def input_ceiling(kind: str, model: str, body: bytes, fields: Body, media: Media) -> int:
    """Never fewer than the input tokens of a JSON request, by the tables of this module."""
    ceiling = len(body)
    if _brings_instructions(model, fields):
        ceiling += TOOL_TOKENS
    if fields.prediction:
        ceiling += len(fields.prediction)  # what is rejected of it is billed as output
    if _runs_tools(model, fields):
        # After each step of a tool that the provider runs, the conversation is read again.
        ceiling += HOSTED_TOKENS + len(body)
    unseen = reads_what_is_kept(kind, model, fields)
    if media or unseen:
        limits = UNKNOWN if fields.models else limits_of(model)  # of a list we do not know which one answers
        ceiling += _media_tokens(limits, media, unseen)
    return ceiling


def _brings_instructions(model: str, fields: Body) -> bool:
    """Whether the provider adds instructions of its own: for tools, for an output schema, or to any request."""
    return bool(
        fields.tools
        or fields.functions
        or fields.response_format
        or fields.output_format
        or fields.output_config
        or fields.text
        or fields.models
        or "grok-4" in model
        or (isinstance(fields, SectionedBody) and _section_brings_instructions(fields))
    )


def _section_brings_instructions(fields: SectionedBody) -> bool:
    if isinstance(fields, OtherBody):
        return bool(fields.toolConfig or fields.model)  # a model of Ollama's or Cohere's may have a prompt of its own
    section = fields.generationConfig or fields.generation_config
    return section is not None and bool(section.responseSchema or section.responseJsonSchema)


def reads_what_is_kept(kind: str, model: str, fields: Body) -> bool:
    """Whether the request names content that the provider keeps: an earlier response, a cache, a stored prompt."""
    return bool(
        fields.previous_response_id
        or fields.previous_interaction_id
        or fields.conversation
        or fields.cachedContent
        or fields.cached_content
        or fields.agent_id
        or ((fields.google or fields.extra_body) and _names_a_cache(fields))
        or (kind in _RESPONSES and (_begins(fields.prompt, b"{") or _names_items(fields.input)))
        or (kind == "chat" and fields.inputs and not model)  # a conversation of Mistral's that goes on
        or (type(fields) is OtherBody and (fields.conversation_id or ":prompt/" in model))
    )


def _begins(value: msgspec.Raw, sign: bytes) -> bool:
    return bytes(memoryview(value)[:1]) == sign


def _names_a_cache(fields: Body) -> bool:
    """Whether Gemini's own members in a request of OpenAI's form name a cache."""
    for holder in (fields.extra_body, {"google": fields.google}):
        google = holder.get("google") if isinstance(holder, dict) else None
        if isinstance(google, dict) and (google.get("cached_content") or google.get("cachedContent")):
            return True
    return False


def _names_items(items: msgspec.Raw) -> bool:
    """Whether there are items of earlier responses in the input by their ids alone."""
    if not _begins(items, b"["):
        return False
    try:
        found = _items.decode(items)
    except UNREADABLE:
        return True
    return any(item.id is not None and item.type is None and item.role is None for item in found)


def _runs_tools(model: str, fields: Body) -> bool:
    """Whether the provider runs tools for this request, a search among them."""
    return bool(
        fields.container
        or fields.mcp_servers
        or fields.plugins
        or fields.search_parameters
        or fields.web_search_options is not None
        or fields.enable_search
        or model.startswith(_SEARCHING)
        or ":online" in model
        or (fields.models and b":online" in bytes(fields.models))
        or (type(fields) is OtherBody and (fields.connectors or _configures_hosted_tool(fields.toolConfig)))
        or (fields.tools and _has_hosted_tool(fields.tools))
    )


def _configures_hosted_tool(config: msgspec.Raw) -> bool:
    """The same for Bedrock's object that the tools stand in."""
    if not config:
        return False
    try:
        found = _tool_configs.decode(config)
    except UNREADABLE:
        return True
    return found is not None and bool(found.tools) and _has_hosted_tool(found.tools)


def _has_hosted_tool(tools: msgspec.Raw) -> bool:
    try:
        found = _tools.decode(tools)
    except UNREADABLE:
        return True
    return any(_is_hosted(tool) for tool in found or ())


def _is_hosted(tool: dict[str, msgspec.Raw]) -> bool:
    """Whether the provider runs a tool: its type says so, or a member that a tool of the caller's does not have."""
    kind = tool.get("type", _NULL)
    if kind != _NULL:
        return bytes(kind) not in _OWN_TYPES
    if "name" in tool or "function" in tool:
        return False
    members = {name for name, value in tool.items() if value != _NULL}
    return not members or not members <= _OWN_MEMBERS


def _media_tokens(limits: Limits, media: Media, unseen: bool) -> int:
    """What media count, less their bytes where they stand in the request; ``unseen``: so does what is not in it."""
    tokens = documents = 0
    for medium, inline in media:
        tokens -= inline
        if medium == "image":
            tokens += limits.image
        elif medium == "file":
            documents += max(inline, DOCUMENT_TOKENS)
        elif medium == "unseen":
            unseen = True
        else:
            tokens += inline // (BYTES_PER_AUDIO_TOKEN if medium == "audio" else BYTES_PER_VIDEO_TOKEN)
    return tokens + (limits.reads if unseen else min(documents, limits.reads))


def form_ceiling(parts: list[Part], total: int) -> int:
    """Never fewer than the input tokens of a multipart form of ``total`` bytes."""
    ceiling = total
    for part in parts:
        if part.is_file:
            ceiling -= part.length
            if part.content_type.startswith("image/"):
                ceiling += UNKNOWN.image
            else:
                ceiling += part.length // BYTES_PER_AUDIO_TOKEN + 1
        elif part.names_a_file:
            ceiling += SOUND_ELSEWHERE
    return ceiling
