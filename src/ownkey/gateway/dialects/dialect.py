"""What a wire format has to offer so that a call can be relayed, metered and refused in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ownkey.errors import OwnkeyError
from ownkey.gateway.dialects.reported import Reported
from ownkey.metering.usage import Usage

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation of the assistant page."""

    role: Literal["system", "user", "assistant"]
    content: str


class Dialect(Protocol):
    """One wire format. Nothing here raises for what a provider sent: what cannot be read was not reported."""

    name: str

    usage_paths: tuple[tuple[str, ...], ...]
    """Where in a JSON document usage stands, as member names from the top; for documents too large to decode."""

    event_gap: bytes
    """What ends an event that was cut off, before one of ours can follow."""

    def reported_in_headers(self, headers: Headers) -> Reported | None:
        """What the head of a reply reports; None in most formats."""

    def reported_in_body(self, body: bytes) -> Reported | None:
        """What a JSON reply reports; also for a JSON array of chunks, or one chunk a line."""

    def reported_in_events(self, data: bytes) -> Reported | None:
        """What whole server-sent events report, line ends LF, merged by this format's rule."""

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether one event's data is worth reading for usage; cheap."""

    def merged(self, earlier: Reported | None, later: Reported | None) -> Reported | None:
        """Two reports of one reply, in order, as one."""

    def usage_in_body(self, body: bytes) -> Usage | None:
        """The usage a JSON reply reports, None if it reports none; an explicit zero is a zero."""

    def usage_in_events(self, data: bytes) -> Usage | None:
        """The usage that whole server-sent events report, whatever their line ends; None if none."""

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, thinking and tool arguments that one event's data carries; 0 if it is no delta."""

    def is_error(self, payload: bytes) -> bool:
        """Whether one event's data is an error in the middle of a stream."""

    def end_markers(self, kind: str) -> tuple[bytes, ...]:
        """Bytes whose presence in a piece of such a call's streamed reply means that it is about to be complete."""

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """An error of ours as this format's SDKs expect it."""

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The same inside a stream of events that has begun; the stream must end broken after it."""

    def chat(self, model: str, messages: Sequence[Message], api_root: str | None = None) -> tuple[str, bytes]:
        """Path (after the provider's prefix) and body of a streamed chat, for the assistant page.

        ``api_root`` is the provider's (``Provider.api_roots[0]``), None the one of this format's inventor. A
        ``system`` message is put where the format has it; usage is asked for where it must be.
        """

    def text_of(self, payload: bytes) -> str:
        """The visible text that one event's data adds to the answer; empty if it adds none."""
