"""Find the images, files, sounds and videos of a request, in any of the formats.

Only parts of messages are looked at, and results of tools: what stands elsewhere, in text or in free JSON, is text to
the model however it is dressed up, and counts by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from ownkey.errors import InvalidRequest

Medium = Literal["image", "audio", "video", "file", "unseen"]
Media = Sequence[tuple[Medium, int]]
"""What each medium of a request is, and how many bytes of it stand in the request.

``unseen``: it is kept elsewhere, or its bytes do not bound how much of it is read.
"""

MOST_PARTS = 50_000
"""Messages and their parts, of all messages together; nobody waits long for these to be looked at."""
_DEEPEST = 6
_WITHIN = (
    ("functionResponse", "parts"), ("function_response", "parts"), ("toolResult", "content"), ("source", "content"),
)  # fmt: skip
_DATA_URL = re.compile(r"data:(image|audio|video)/")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]{1,16}://")
_TEXT_TYPES = frozenset({
    # A part of any other type may be a file by a new name.
    "text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "message", "reference",
    "reasoning", "thinking", "redacted_thinking", "thought", "compaction", "tool_reference", "custom_tool_call_output",
    "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "user_input", "model_output",
    "message.input", "message.output", "function.call", "function.result", "tool.execution", "agent.handoff",
    "tool_addition", "tool_removal", "container_upload",  # the last is for a tool of the provider's, not for the model
})  # fmt: skip
_TEXT_SUFFIXES = ("_call", "_call_output", "_use", "_result")
"""Of tools, the caller's and the provider's: what was called, and what came of it, as it stands there."""


class _Messages(msgspec.Struct):
    """Where messages are, in every format."""

    messages: Any = None
    contents: Any = None
    input: Any = None
    inputs: Any = None
    images: Any = None  # of Ollama's prompts, and of OpenAI's to edit


_messages = msgspec.json.Decoder(_Messages, float_hook=len)  # no number says anything here, and fractions take long


def media_in(body: bytes) -> Media:
    """The media of a request that ``decode_body`` has taken, in order; of one nested too deeply, something unseen.

    Raises ``InvalidRequest`` for more parts than anybody sends, and for what only looks like JSON where nobody had to
    read it before: half a character, an integer of thousands of digits.
    """
    try:
        found = _messages.decode(body)
    except RecursionError:
        return [("unseen", 0)]
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    media: list[tuple[Medium, int]] = []
    parts = 0
    for messages in (found.messages, found.contents, found.input, found.inputs):
        for part in _parts(messages):
            parts += 1
            if parts > MOST_PARTS:
                raise InvalidRequest(f"The request has more than {MOST_PARTS:,} messages and parts of messages.")
            medium = _medium(part)
            if medium is not None:
                media.append(medium)
            media += _pictures(part.get("images"))
    return media + _pictures(found.images)


def _pictures(images: object) -> list[tuple[Medium, int]]:
    """Ollama has a message's pictures in a list beside its text, OpenAI has those to edit by their addresses or ids."""
    if not isinstance(images, list):
        return []
    media: list[tuple[Medium, int]] = []
    for image in images:
        if isinstance(image, dict):
            media.append(("image", _length(image.get("image_url"))))
        elif isinstance(image, str):
            media.append(("image", len(image)))
    return media


def _parts(value: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The parts of all messages: in their content, in results of tools, nowhere else."""
    if depth > _DEEPEST or not isinstance(value, list):
        return
    for item in value:
        if isinstance(item, dict):
            yield item
            for name in ("content", "parts", "output"):
                yield from _parts(item.get(name), depth + 1)
            for name, inside in _WITHIN:
                holder = item.get(name)
                if isinstance(holder, dict):
                    yield from _parts(holder.get(inside), depth + 1)


def _length(value: object) -> int:
    """How many bytes of content a string is; none if it is an address of it."""
    return len(value) if isinstance(value, str) and not _SCHEME.match(value) else 0


def _medium(part: dict[str, Any]) -> tuple[Medium, int] | None:
    """What one part is, and how many bytes of it stand in the request; None if it is text."""
    found = _found(part)
    if found is None or found[0] == "image":
        return found
    medium, inline = found
    return ("unseen", inline) if not inline or (medium == "video" and _sets_frames(part)) else found


def _found(part: dict[str, Any]) -> tuple[Medium, int] | None:
    kind = part.get("type")
    if kind is None:
        return _untyped(part)
    if kind in ("image_url", "input_image", "video_url"):
        url = part.get("image_url") or part.get("video_url")
        url = url.get("url") if isinstance(url, dict) else url
        inline = _length(url) if isinstance(url, str) and _DATA_URL.match(url) else 0
        return ("video" if kind == "video_url" else "image"), inline
    if kind == "input_audio":
        sound = part.get("input_audio")
        return "audio", _length(sound.get("data") if isinstance(sound, dict) else sound)
    if kind in ("document_url", "file_url"):
        url = part.get(kind)
        url = url.get("url") if isinstance(url, dict) else url
        return "file", _length(url) if isinstance(url, str) and url.startswith("data:") else 0
    if kind in ("file", "input_file"):
        file = part.get("file")
        return "file", _length((file if isinstance(file, dict) else part).get("file_data"))
    if kind in ("image", "document", "audio", "video"):
        source = part.get("source")
        source = source if isinstance(source, dict) else part
        if source.get("type") in ("text", "content") or "document" in part:
            return None  # Anthropic's documents of text, or of parts; Cohere's
        return ("file" if kind == "document" else kind), _length(source.get("data"))
    if kind == "image_generation_call":
        return "image", _length(part.get("result"))
    if kind == "computer_call_output":
        return "image", 0
    if isinstance(kind, str) and (kind in _TEXT_TYPES or kind.endswith(_TEXT_SUFFIXES)):
        return None
    return _untyped(part) or ("unseen", 0)


def _untyped(part: dict[str, Any]) -> tuple[Medium, int] | None:
    """Gemini's and Amazon's parts are named after what they hold; OpenAI's spoken answers are remembered by an id."""
    blob = part.get("inlineData") or part.get("inline_data") or part.get("fileData") or part.get("file_data")
    if isinstance(blob, dict):
        return _blob(blob)
    names: tuple[tuple[str, Medium], ...] = (
        ("image", "image"), ("document", "file"), ("video", "video"), ("audio", "audio"),
    )  # fmt: skip
    for name, medium in names:
        block = part.get(name)
        source = block.get("source") if isinstance(block, dict) else None
        if isinstance(source, dict):  # {"image": {"source": {"bytes": …}}}
            return None if "text" in source or "content" in source else (medium, _length(source.get("bytes")))
    sound = part.get("audio")
    return ("unseen", 0) if isinstance(sound, dict) and sound.get("id") else None


def _sets_frames(part: dict[str, Any]) -> bool:
    """Whether a video is read at a rate of its own: at up to 24 images a second its bytes bound nothing."""
    metadata = part.get("videoMetadata") or part.get("video_metadata") or part
    return isinstance(metadata, dict) and metadata.get("fps") is not None


def _blob(blob: dict[str, Any]) -> tuple[Medium, int]:
    """Gemini's parts say what they are by their media type; what is no picture or sound is a file."""
    media_type = blob.get("mimeType") or blob.get("mime_type")
    kind = media_type.partition("/")[0] if isinstance(media_type, str) else ""
    inline = _length(blob.get("data"))
    if kind == "image":
        return "image", inline
    if kind == "audio":
        return "audio", inline
    return ("video" if kind == "video" else "file"), inline
