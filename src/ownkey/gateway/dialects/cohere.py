"""Cohere's own format (``/v1/chat``, ``/v2/chat``, ``/v2/embed``, ``/v2/rerank``).

Usage is in ``usage.billed_units`` or ``meta.billed_units`` of a reply, and in the last event of a stream: v2 sends
server-sent events, v1 one JSON object a line. ``billed_units`` is what is charged, ``tokens`` what the model saw. A
rerank reports ``search_units`` only; it is charged by its text (https://docs.cohere.com/reference/chat).
"""

from __future__ import annotations

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway.dialects.error_shapes import extra_members
from ownkey.gateway.dialects.openai import OpenAIDialect

_TAKEN = frozenset({"type", "message", "code", "id"})


class CohereDialect(OpenAIDialect):
    """Cohere's format: usage is found where OpenAI's reader looks, errors and ends are its own."""

    name = "cohere"

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the data has the units that are billed."""
        return b'"billed_units"' in payload

    def end_markers(self, _kind: str) -> tuple[bytes, ...]:
        """The last event of either version, and ``[DONE]``."""
        return (b'"message-end"', b'"stream-end"', b"[DONE]")

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"type": "error", "message", "code"}``, details beside them; the SDK goes by the status."""
        about = {"type": "error", "message": error.message, "code": error.code}
        return msgspec.json.encode({**about, **extra_members(error, _TAKEN), "id": request_id})

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as an ``error`` event."""
        return b"event: error\ndata: " + self.error_body(error, request_id) + b"\n\n"


COHERE = CohereDialect()
