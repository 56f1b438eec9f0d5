"""OpenAI's wire format, spoken by most providers: chat, completions, Responses, embeddings, images, audio.

Its streams end with ``data: [DONE]`` (chat) or a terminal ``response.*`` event (Responses). An error in the
middle is a ``data:`` object with an ``error`` member: OpenAI's SDK raises on it whatever the event is called.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway import sse
from ownkey.gateway.dialects.dialect import Headers, Message
from ownkey.gateway.dialects.error_shapes import extra_members, words_for
from ownkey.gateway.dialects.openai_documents import Delta, Document, ErrorEvent, Event
from ownkey.gateway.dialects.openai_usage import decode, read_document
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.estimates import BYTES_PER_AUDIO_TOKEN, BYTES_PER_TOKEN, IMAGE_WRITTEN
from ownkey.gateway.json_scan import UNREADABLE, text_bytes
from ownkey.metering.usage import Usage

_TAKEN = frozenset({"message", "type", "param", "code"})
_CHAT_ENDS = (b"[DONE]",)
_PICTURE_BEGUN = "response.image_generation_call.generating"  # once for each; parts of it may follow, or the whole
_IMAGE_AS_TEXT_BYTES = IMAGE_WRITTEN * BYTES_PER_TOKEN
_RESPONSE_ENDS = (b"[DONE]", b'"response.completed"', b'"response.incomplete"', b'"response.failed"')


_events = msgspec.json.Decoder(Event)
_errors = msgspec.json.Decoder(ErrorEvent)


def _length(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _sound_as_text(encoded: str | None) -> int:
    """Bytes of the text to which sound in base64 compares in tokens."""
    return -(-len(encoded or "") * 3 * BYTES_PER_TOKEN // (4 * BYTES_PER_AUDIO_TOKEN))


def _delta_length(delta: Delta) -> int:
    length = 0
    if delta.audio is not None:
        length = _sound_as_text(delta.audio.data) + _length(delta.audio.transcript)
    if delta.images:
        length += len(delta.images) * _IMAGE_AS_TEXT_BYTES
    if delta.content:
        return length + _length(delta.content)
    length += (_length(delta.reasoning_content) or _length(delta.reasoning)) + _length(delta.refusal)
    for call in delta.tool_calls or ():
        if call.function is not None:
            length += _length(call.function.name) + _length(call.function.arguments)
    if delta.function_call is not None:
        length += _length(delta.function_call.name) + _length(delta.function_call.arguments)
    return length


class OpenAIDialect:
    """OpenAI's format; also Azure's, Groq's, Mistral's and every other that took it over."""

    name = "openai"
    usage_paths: tuple[tuple[str, ...], ...] = (
        ("usage",),
        ("response", "usage"),
        ("x_groq", "usage"),
        ("meta",),
        ("tool_usage",),
        ("response", "tool_usage"),
    )
    event_gap = b"\n\n"

    def reported_in_headers(self, _headers: Headers) -> Reported | None:
        """Nothing: usage is in the body."""
        return None

    def reported_in_body(self, body: bytes) -> Reported | None:
        """What a JSON reply reports, or the last line of a reply with one object a line."""
        found = decode(body)
        if found is not None:
            return read_document(found)
        for line in reversed(body.split(b"\n")):
            if line.strip() and (chunk := decode(line)) is not None and (reported := read_document(chunk)) is not None:
                return reported
        return None

    def reported_in_events(self, data: bytes) -> Reported | None:
        """The last report of all events: figures are cumulative, and most streams have only one."""
        for payload in sse.last_payloads_with(data, b'"usage"'):
            if self.mentions_usage(payload):
                found: Document | None = decode(payload)
                if found is not None and (reported := read_document(found)) is not None:
                    return reported
        return None

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the data has a ``usage`` other than null, which most chunks of some providers have."""
        said = payload.count(b'"usage"')
        return said > 0 and said > payload.count(b'"usage":null') + payload.count(b'"usage": null')

    def merged(self, earlier: Reported | None, later: Reported | None) -> Reported | None:
        """The later report: every report is of the whole reply so far, but for what tools used, if it comes alone."""
        if earlier is None or later is None:
            return later or earlier
        if later.input_tokens is None and later.output_tokens is None:
            earlier, later = later, earlier
        if later.beside.total_tokens or not earlier.beside.total_tokens:
            return later
        return msgspec.structs.replace(later, beside=earlier.beside)

    def usage_in_body(self, body: bytes) -> Usage | None:
        """The usage a JSON reply reports, None if it reports none."""
        reported = self.reported_in_body(body)
        return reported.usage() if reported else None

    def usage_in_events(self, data: bytes) -> Usage | None:
        """The usage that whole server-sent events report, None if none."""
        reported = self.reported_in_events(sse.with_line_feeds(data))
        return reported.usage() if reported else None

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, reasoning and tool arguments in one chunk or ``*.delta`` event; sound and pictures as
        the text to which they compare.
        """
        try:
            event = _events.decode(payload)
        except (msgspec.ValidationError, UnicodeDecodeError):
            return text_bytes(payload)  # content in parts (Mistral's thinking), a delta object (Cohere), bad UTF-8
        except UNREADABLE:
            return 0
        if event.choices:
            written = 0
            for choice in event.choices:
                written += _length(choice.text) + (0 if choice.delta is None else _delta_length(choice.delta))
            return written
        kind = event.type or ""
        if kind.endswith("audio.delta"):
            return _sound_as_text(event.delta or event.audio)
        if kind == _PICTURE_BEGUN:
            return _IMAGE_AS_TEXT_BYTES
        return _length(event.delta) if kind.endswith(".delta") else 0

    def is_error(self, payload: bytes) -> bool:
        """Whether the data has an ``error`` member, or is a Responses ``error`` event."""
        try:
            event = _errors.decode(payload)
        except UNREADABLE:
            return False
        return bool(event.error) or event.type in ("error", "response.failed")

    def end_markers(self, kind: str) -> tuple[bytes, ...]:
        """``[DONE]``, or the terminal event of a Responses stream."""
        return _CHAT_ENDS if kind in ("chat", "completions") else _RESPONSE_ENDS

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"error": {"message", "type", "param", "code"}}``, details beside them."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": error.message,
                    "type": words_for(error).openai,
                    "param": error.detail.get("param"),
                    "code": error.code,
                    **extra_members(error, _TAKEN),
                    "request_id": request_id,
                }
            }
        )

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as the data of an unnamed event."""
        return b"data: " + self.error_body(error, request_id) + b"\n\n"

    def chat(self, model: str, messages: Sequence[Message], api_root: str | None = None) -> tuple[str, bytes]:
        """A streamed chat completion; the system prompt is the first message."""
        body = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
        }
        return ("/v1" if api_root is None else api_root) + "/chat/completions", msgspec.json.encode(body)

    def text_of(self, payload: bytes) -> str:
        """The visible text of a chat or completion chunk, or of an ``output_text.delta`` event."""
        try:
            event = _events.decode(payload)
        except UNREADABLE:
            return ""
        if event.choices:
            choice = event.choices[0]
            return (choice.delta.content if choice.delta is not None else choice.text) or ""
        return event.delta or "" if event.type == "response.output_text.delta" else ""


OPENAI = OpenAIDialect()
