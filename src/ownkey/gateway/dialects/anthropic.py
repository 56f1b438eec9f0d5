"""Anthropic's wire format: Messages, and the older text completions.

Usage in a stream is split: ``message_start`` has the input, every ``message_delta`` a cumulative output (and
sometimes the input again). So reports are merged by field, the last of each winning, and never added. Cached and
cache-write tokens stand beside ``input_tokens``, not inside. So do the steps that are no part of the answer: the
summary of a conversation that grew too long, and the advice of another model, are in ``iterations`` only
(https://platform.claude.com/docs/en/build-with-claude/compaction).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway import sse
from ownkey.gateway.dialects.anthropic_documents import Counts, Document, Event, Iteration
from ownkey.gateway.dialects.counts import count
from ownkey.gateway.dialects.dialect import Headers, Message
from ownkey.gateway.dialects.error_shapes import extra_members, words_for
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.json_scan import UNREADABLE, text_bytes
from ownkey.metering.usage import NOTHING_USED, Usage

_TAKEN = frozenset({"type", "message", "code"})
_MARKER = b'"usage"'

# What the assistant page allows an answer; the format has no default.
CHAT_MAX_TOKENS = 8_192


_documents = msgspec.json.Decoder(Document)
_events = msgspec.json.Decoder(Event)
_iterations = msgspec.json.Decoder(list[Iteration] | None)
# Of all iterations, those that the other figures leave out.
_BESIDE = ("compaction", "advisor_message")


def _counted(
    usage: Counts, *, final: bool = False, provisional: bool = False, beside: Usage = NOTHING_USED
) -> Reported:
    written = count(usage.cache_creation_input_tokens)
    if written is None and usage.cache_creation is not None:
        parts = usage.cache_creation
        short, long = count(parts.ephemeral_5m_input_tokens), count(parts.ephemeral_1h_input_tokens)
        written = None if short is None and long is None else (short or 0) + (long or 0)
    details = usage.output_tokens_details
    return Reported(
        count(usage.input_tokens),
        count(usage.output_tokens),
        count(usage.cache_read_input_tokens),
        written,
        count(details.thinking_tokens) if details is not None else None,
        cache_outside=True,
        final=final,
        provisional=provisional,
        beside=beside,
    )


def _beside(iterations: msgspec.Raw) -> Usage:
    """What the steps used that the other figures leave out; those that cannot be read are left out, too."""
    used = NOTHING_USED
    try:
        for step in _iterations.decode(iterations) or ():
            if step.type in _BESIDE:
                used = used.plus(_counted(step).usage())
    except UNREADABLE:
        pass
    return used


def _read(payload: bytes) -> Reported | None:
    """What one reply, or one event, reports."""
    try:
        found = _documents.decode(payload)
    except UNREADABLE:
        return None
    usage = found.usage or (found.message.usage if found.message is not None else None)
    if usage is None:
        return None
    reported = _counted(
        usage,
        # message_start counts only the first tokens; a plain message and the last message_delta count all.
        final=found.message is None and (found.delta is None or found.delta.stop_reason is not None),
        provisional=found.message is not None,
        beside=_beside(usage.iterations) if usage.iterations else NOTHING_USED,
    )
    return reported if reported.input_tokens is not None or reported.output_tokens is not None else None


class AnthropicDialect:
    """Anthropic's format; also the Anthropic-compatible endpoints of other providers."""

    name = "anthropic"
    usage_paths: tuple[tuple[str, ...], ...] = (("usage",), ("message", "usage"))
    event_gap = b"\n\n"

    def reported_in_headers(self, _headers: Headers) -> Reported | None:
        """Nothing: usage is in the body."""
        return None

    def reported_in_body(self, body: bytes) -> Reported | None:
        """What a message reports."""
        return _read(body)

    def reported_in_events(self, data: bytes) -> Reported | None:
        """``message_start`` and every ``message_delta``, merged by field."""
        reported: Reported | None = None
        for payload in sse.payloads_with(data, _MARKER):
            reported = self.merged(reported, _read(payload))
        return reported

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the data has a ``usage``."""
        return _MARKER in payload

    def merged(self, earlier: Reported | None, later: Reported | None) -> Reported | None:
        """By field: what the later report says wins, what it leaves out stays."""
        if earlier is None or later is None:
            return later or earlier
        return earlier.updated_by(later)

    def usage_in_body(self, body: bytes) -> Usage | None:
        """The usage a message reports, None if it reports none."""
        reported = self.reported_in_body(body)
        return reported.usage() if reported else None

    def usage_in_events(self, data: bytes) -> Usage | None:
        """The usage that whole server-sent events report, None if none."""
        reported = self.reported_in_events(sse.with_line_feeds(data))
        return reported.usage() if reported else None

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, thinking and tool input in a ``content_block_delta``; a tool's name where it begins."""
        try:
            event = _events.decode(payload)
        except (msgspec.ValidationError, UnicodeDecodeError):
            return text_bytes(payload)
        except UNREADABLE:
            return 0
        if event.delta is not None:
            text = event.delta.text or event.delta.partial_json or event.delta.thinking or ""
        else:
            text = event.completion or (event.content_block.name if event.content_block is not None else "") or ""
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def is_error(self, payload: bytes) -> bool:
        """Whether the data is an ``error`` event."""
        try:
            return _events.decode(payload).type == "error"
        except UNREADABLE:
            return False

    def end_markers(self, _kind: str) -> tuple[bytes, ...]:
        """The last event of every message."""
        return (b"message_stop",)

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"type": "error", "error": {"type", "message", "code"}, "request_id"}``, details beside the code."""
        return msgspec.json.encode(
            {
                "type": "error",
                "error": {
                    "type": words_for(error).anthropic,
                    "message": error.message,
                    "code": error.code,
                    **extra_members(error, _TAKEN),
                },
                "request_id": request_id,
            }
        )

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as an ``error`` event."""
        return b"event: error\ndata: " + self.error_body(error, request_id) + b"\n\n"

    def chat(self, model: str, messages: Sequence[Message], api_root: str | None = None) -> tuple[str, bytes]:
        """A streamed message; system messages become the ``system`` member."""
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        body: dict[str, object] = {
            "model": model,
            "max_tokens": CHAT_MAX_TOKENS,
            "messages": [
                {"role": message.role, "content": message.content} for message in messages if message.role != "system"
            ],
            "stream": True,
        }
        if system:
            body["system"] = system
        return ("/v1" if api_root is None else api_root) + "/messages", msgspec.json.encode(body)

    def text_of(self, payload: bytes) -> str:
        """The text of a ``text_delta``."""
        try:
            event = _events.decode(payload)
        except UNREADABLE:
            return ""
        return event.delta.text or "" if event.delta is not None and event.delta.type == "text_delta" else ""


ANTHROPIC = AnthropicDialect()
