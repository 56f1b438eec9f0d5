"""Google's Gemini API: ``generateContent``, its stream, embeddings, and the newer interactions.

``usageMetadata`` is in every chunk and cumulative: the last one counts. Thoughts stand beside the candidates and
tool-use prompts beside the prompt, cached input inside the prompt. A stream is server-sent events with
``alt=sse``, else one JSON array that grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway import sse
from ownkey.gateway.dialects.dialect import Headers, Message
from ownkey.gateway.dialects.error_shapes import extra_members, words_for
from ownkey.gateway.dialects.gemini_documents import Chunk, Event, Part
from ownkey.gateway.dialects.gemini_usage import read_chunk
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.json_scan import UNREADABLE, JsonScan, text_bytes
from ownkey.metering.usage import Usage

# Text to which the shortest generated image compares in tokens (1,290 tokens at four bytes each).
_IMAGE_AS_TEXT_BYTES = 1_290 * 4
_MARKER = b'"usage'  # "usageMetadata", and an interaction's "usage"


_bodies = msgspec.json.Decoder(Chunk | list[Chunk])
_chunks = msgspec.json.Decoder(Chunk)
_events = msgspec.json.Decoder(Event)


def _length(value: str | msgspec.Raw | None) -> int:
    if not value:
        return 0
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)


def _written(part: Part) -> int:
    written = _length(part.text) + _length(part.executable_code)
    if part.function_call is not None:
        call = part.function_call
        written += _length(call.name) + _length(call.args) + _length(call.partial_args)
    return written + (_IMAGE_AS_TEXT_BYTES if part.inline_data else 0)


class GeminiDialect:
    """Google's own format."""

    name = "gemini"
    usage_paths: tuple[tuple[str, ...], ...] = (("usageMetadata",), ("usage",), ("interaction", "usage"))
    event_gap = b"\n\n"

    def reported_in_headers(self, _headers: Headers) -> Reported | None:
        """Nothing: usage is in the body."""
        return None

    def reported_in_body(self, body: bytes) -> Reported | None:
        """What a reply reports; of a JSON array of chunks, also one that is cut off, the last that reports."""
        try:
            found = _bodies.decode(body)
        except msgspec.ValidationError:
            return None
        except UNREADABLE:
            return self._reported_in_part(body)
        chunks = found if isinstance(found, list) else [found]
        return next((reported for chunk in reversed(chunks) if (reported := read_chunk(chunk)) is not None), None)

    def _reported_in_part(self, body: bytes) -> Reported | None:
        """What the beginning of a document reports, as far as it goes."""
        scan = JsonScan(self.usage_paths)
        scan.take(body)
        reported: Reported | None = None
        for member in scan.members():
            with suppress(*UNREADABLE):
                reported = self.merged(reported, read_chunk(_chunks.decode(member)))
        return reported

    def reported_in_events(self, data: bytes) -> Reported | None:
        """The last report of all chunks."""
        for payload in sse.last_payloads_with(data, _MARKER):
            try:
                found = _chunks.decode(payload)
            except UNREADABLE:
                continue
            if (reported := read_chunk(found)) is not None:
                return reported
        return None

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the data has ``usageMetadata``, or an interaction's ``usage``."""
        return _MARKER in payload

    def merged(self, earlier: Reported | None, later: Reported | None) -> Reported | None:
        """The later report: every report is of the whole reply so far."""
        return later or earlier

    def usage_in_body(self, body: bytes) -> Usage | None:
        """The usage a JSON reply reports, None if it reports none."""
        reported = self.reported_in_body(body)
        return reported.usage() if reported else None

    def usage_in_events(self, data: bytes) -> Usage | None:
        """The usage that whole server-sent events report, None if none."""
        reported = self.reported_in_events(sse.with_line_feeds(data))
        return reported.usage() if reported else None

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, thoughts, function arguments and code in one chunk; images as their equivalent."""
        try:
            event = _events.decode(payload)
        except (msgspec.ValidationError, UnicodeDecodeError):
            return text_bytes(payload)
        except UNREADABLE:
            return 0
        written = 0
        for candidate in event.candidates or ():
            for part in (candidate.content.parts if candidate.content is not None else None) or ():
                written += _written(part)
        if event.delta is not None:
            written += _length(event.delta.text) + _length(event.delta.arguments)
        return written

    def is_error(self, payload: bytes) -> bool:
        """Whether the data has an ``error`` member."""
        try:
            return bool(_events.decode(payload).error)
        except UNREADABLE:
            return False

    def end_markers(self, _kind: str) -> tuple[bytes, ...]:
        """The reason a candidate ended; the end of an interaction."""
        return (b'"finishReason"', b'"interaction.completed"')

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"error": {"code", "message", "status", "details": [ErrorInfo]}}``; the SDK shows ``details`` whole."""
        about = {name: str(value) for name, value in extra_members(error, frozenset()).items()}
        return msgspec.json.encode(
            {
                "error": {
                    "code": error.status,
                    "message": error.message,
                    "status": words_for(error).gemini,
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                            "reason": error.code,
                            "domain": "ownkey",
                            "metadata": {**about, "request_id": request_id},
                        }
                    ],
                }
            }
        )

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as the data of an event: Google's SDK raises when a chunk begins with ``{"error":``."""
        return b"data: " + self.error_body(error, request_id) + b"\r\n\r\n"

    def chat(self, model: str, messages: Sequence[Message], api_root: str | None = None) -> tuple[str, bytes]:
        """A streamed ``generateContent``; system messages become ``systemInstruction``."""
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        body: dict[str, object] = {
            "contents": [
                {"role": "model" if message.role == "assistant" else "user", "parts": [{"text": message.content}]}
                for message in messages
                if message.role != "system"
            ]
        }
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        root = "/v1beta" if api_root is None else api_root
        return f"{root}/models/{model}:streamGenerateContent?alt=sse", msgspec.json.encode(body)

    def text_of(self, payload: bytes) -> str:
        """The text of the first candidate, without its thoughts."""
        try:
            event = _events.decode(payload)
        except UNREADABLE:
            return ""
        if event.candidates and event.candidates[0].content is not None:
            parts = event.candidates[0].content.parts or []
            return "".join(part.text or "" for part in parts if not part.thought)
        return event.delta.text or "" if event.delta is not None and event.delta.type == "text" else ""


GEMINI = GeminiDialect()
