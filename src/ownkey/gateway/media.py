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

Medium = Literal["image", "audio", "video", "file"]
Media = Sequence[tuple[Medium, int]]
"""What each medium of a request is, and how many bytes of it stand in the request; 0: it is kept elsewhere."""

MOST_PARTS = 50_000
"""Messages and their parts, of all messages together; nobody waits long for these to be looked at."""
_DEEPEST = 6
_DATA_URL = re.compile(r"data:(image|audio|video)/")


class _Messages(msgspec.Struct):
    """Where messages are, in every format."""

    messages: Any = None
    contents: Any = None
    input: Any = None
    images: Any = None  # Ollama's prompts


_messages = msgspec.json.Decoder(_Messages, float_hook=len)  # no number says anything here, and fractions take long


def media_in(body: bytes) -> Media:
    """The media of a request that ``decode_body`` has taken, in order; of one nested too deeply, a file.

    Raises ``InvalidRequest`` for more parts than anybody sends, and for what only looks like JSON where nobody had to
    read it before: half a character, an integer of thousands of digits.
    """
    try:
        found = _messages.decode(body)
    except RecursionError:
        return [("file", 0)]
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    media: list[tuple[Medium, int]] = []
    parts = 0
    for messages in (found.messages, found.contents, found.input):
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
    """Ollama has a message's pictures in a list beside its text."""
    if not isinstance(images, list):
        return []
    return [("image", len(image)) for image in images if isinstance(image, str)]


def _parts(value: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The parts of all messages: in their content, in results of tools, nowhere else."""
    if depth > _DEEPEST or not isinstance(value, list):
        return
    for item in value:
        if isinstance(item, dict):
            yield item
            for name in ("content", "parts", "output"):
                yield from _parts(item.get(name), depth + 1)
            response = item.get("functionResponse") or item.get("function_response")
            if isinstance(response, dict):
                yield from _parts(response.get("parts"), depth + 1)
            result = item.get("toolResult")
            if isinstance(result, dict):
                yield from _parts(result.get("content"), depth + 1)


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _medium(part: dict[str, Any]) -> tuple[Medium, int] | None:
    """What one part is, and how many bytes of it stand in the request; None if it is text."""
    kind = part.get("type")
    if kind in ("image_url", "input_image", "video_url"):
        url = part.get("image_url") or part.get("video_url")
        url = url.get("url") if isinstance(url, dict) else url
        inline = _length(url) if isinstance(url, str) and _DATA_URL.match(url) else 0
        return ("video" if kind == "video_url" else "image"), inline
    if kind == "input_audio":
        sound = part.get("input_audio")
        return "audio", _length(sound.get("data")) if isinstance(sound, dict) else _length(sound)
    if kind in ("file", "input_file", "item_reference"):
        return "file", 0
    if kind in ("image", "document", "audio", "video"):
        source = part.get("source")
        source = source if isinstance(source, dict) else part
        inline = _length(source.get("data")) if source.get("type") not in ("text", "content") else 0
        return ("file" if kind == "document" else kind), inline
    if kind is None and (found := _block(part)) is not None:
        return found
    blob = part.get("inlineData") or part.get("inline_data") or part.get("fileData") or part.get("file_data")
    return _blob(blob) if isinstance(blob, dict) else None


def _block(part: dict[str, Any]) -> tuple[Medium, int] | None:
    """Amazon's blocks are named after what they hold: ``{"image": {"source": {"bytes": …}}}``."""
    names: tuple[tuple[str, Medium], ...] = (
        ("image", "image"), ("document", "file"), ("video", "video"), ("audio", "audio"),
    )  # fmt: skip
    for name, medium in names:
        block = part.get(name)
        source = block.get("source") if isinstance(block, dict) else None
        if isinstance(source, dict):
            return medium, _length(source.get("bytes"))
    return None


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
