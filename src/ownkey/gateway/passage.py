"""What of a reply's body reaches the client: every byte, but for what ``usage_filter`` and ``redacting`` keep out."""

from __future__ import annotations

from ownkey.gateway.call import Call
from ownkey.gateway.event_frames import CONTENT_TYPE as FRAMES
from ownkey.gateway.headers import ReplyHead
from ownkey.gateway.redacting import Needles, Redactor
from ownkey.gateway.usage_filter import UsageChunkFilter


class Passage:
    """One body on its way. Nearly all pass as they are, and cost a search."""

    __slots__ = ("_filter", "_needles", "_redactor", "keeps_length")

    def __init__(self, call: Call, reply: ReplyHead, needles: Needles) -> None:
        """``keeps_length`` says that the client gets as many bytes as the provider sends, whatever happens.

        A stream may not: an event may be kept out, and if it breaks off an error of ours takes the place of the rest.
        """
        is_plain = reply.coding in ("", "identity")
        is_filtered = call.stream and not call.reports_usage and is_plain and "event-stream" in reply.content_type
        self._needles = needles
        self._filter = UsageChunkFilter() if is_filtered else None
        self._redactor = None if is_plain else Redactor(needles, reply.coding)
        if FRAMES in reply.content_type:
            self._redactor = Redactor(needles, reply.coding, overwrites=False)
        self.keeps_length = not call.stream

    @property
    def stuck(self) -> bool:
        """Whether a key stands where it cannot be overwritten; nothing passes from there on."""
        return self._redactor is not None and self._redactor.stuck

    def feed(self, pieces: list[bytes], complete: bool) -> list[bytes]:
        """The next pieces, and whether they are the last; returns what the client gets."""
        if self._filter is not None:
            pieces = [self._filter.feed(piece) for piece in pieces]
            if complete:
                pieces.append(self._filter.flush())
        if self._redactor is None:
            if self._needles.absent(pieces):
                return pieces
            self._redactor = Redactor(self._needles)
        return self._redactor.feed(pieces, complete)

    def rest(self) -> list[bytes]:
        """What is held, of a reply that breaks off here."""
        return self.feed([], True)
