"""Ollama's own format (``/api/chat``, ``/api/generate``, ``/api/embed``): one JSON object a line.

The last object of a reply has ``prompt_eval_count`` and ``eval_count``; Ollama leaves the first out when the whole
prompt was cached (https://github.com/ollama/ollama/blob/main/docs/api.md).
"""

from __future__ import annotations

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway.dialects.error_shapes import extra_members
from ownkey.gateway.dialects.openai import OpenAIDialect
from ownkey.gateway.dialects.openai_documents import ErrorEvent
from ownkey.gateway.json_scan import UNREADABLE, text_bytes

_TAKEN = frozenset({"error", "code"})


_errors = msgspec.json.Decoder(ErrorEvent)


class OllamaDialect(OpenAIDialect):
    """Ollama's format: usage is found where OpenAI's reader looks, errors and ends are its own."""

    name = "ollama"
    event_gap = b""

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the line has counts."""
        return b'"eval_count"' in payload or b'"prompt_eval_count"' in payload

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, thinking and tool arguments in one line; the last one repeats nothing."""
        return text_bytes(payload)

    def is_error(self, payload: bytes) -> bool:
        """Whether the line is an error."""
        try:
            return isinstance(_errors.decode(payload).error, str)
        except UNREADABLE:
            return False

    def end_markers(self, _kind: str) -> tuple[bytes, ...]:
        """The last line."""
        return (b'"done":true', b'"done": true')

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"error": message, "code"}``, details beside them."""
        return msgspec.json.encode(
            {"error": error.message, "code": error.code, **extra_members(error, _TAKEN), "request_id": request_id}
        )

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as one line more, on which Ollama's clients raise. Only possible between two lines."""
        return self.error_body(error, request_id) + b"\n"


OLLAMA = OllamaDialect()
