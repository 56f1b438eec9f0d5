"""Hide the usage chunk from a caller who did not ask for it.

Usage of a chat stream is reported only on request, so we request it (``Call.with_usage_reported``). The provider
then sends one chunk more, with empty ``choices``; an SDK that did not ask for it may stumble over that.
"""

from __future__ import annotations

import re

import msgspec

from ownkey.gateway import sse
from ownkey.gateway.dialects.openai_documents import UsageChunk
from ownkey.gateway.json_scan import UNREADABLE

# Two line ends in a row, whatever their kind. A lone CR at the end of the data may become CRLF, so it is no end yet;
# a second CR there is one, and a line feed after it still belongs to it.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_BLANK_LINES = re.compile(rb"[\r\n]+")
# An event beyond this is not the usage chunk: it is passed on as it comes, so that nothing large is ever held.
_LARGEST_EVENT = 65_536


_chunks = msgspec.json.Decoder(UsageChunk)


def _mentions_usage(data: bytes) -> bool:
    """Whether there is a usage anywhere in the data that is not null."""
    said = data.count(b'"usage"')
    return said > 0 and said > data.count(b'"usage":null') + data.count(b'"usage": null')


def _is_usage_chunk(event: bytes) -> bool:
    if not _mentions_usage(event) or len(event) > _LARGEST_EVENT:
        return False
    try:
        chunk = _chunks.decode(sse.payload(sse.with_line_feeds(event).strip(b"\n")))
    except UNREADABLE:
        return False
    return chunk.choices == [] and chunk.usage is not None


def _blank_lines(data: bytes, start: int, passed: list[bytes]) -> int:
    """Pass blank lines before an event: they belong to none. Returns where the event starts."""
    match = _BLANK_LINES.match(data, start)
    if match is None:
        return start
    passed.append(match[0])
    return match.end()


class UsageChunkFilter:
    """Drops the usage chunk from a stream of server-sent events; every other byte passes as it is, in order.

    What passes does not depend on how the stream is cut into pieces. An event is held until its end is there, up to
    64 KiB; a client can do nothing with half an event anyway.
    """

    __slots__ = ("_after_cr", "_dropped", "_held", "_passing")

    def __init__(self) -> None:
        self._held = b""
        self._passing = False  # inside an event that is too large to be held
        self._after_cr = False  # the last event ended with CR: a line feed now is the rest of that line end
        self._dropped = False  # and that event was dropped

    def feed(self, data: bytes) -> bytes:
        """The next piece; returns what may be passed on."""
        between_events = not (self._held or self._passing or self._after_cr)
        if between_events and data.endswith(b"\n\n") and not _mentions_usage(data):
            return data  # whole events, and none of them the one
        passed: list[bytes] = []
        if self._after_cr and data:
            if data.startswith(b"\n"):
                if not self._dropped:
                    passed.append(b"\n")
                data = data[1:]
            self._after_cr = False
        searched = max(len(self._held) - 3, 0)
        data = self._held + data
        start = 0 if self._held or self._passing else _blank_lines(data, 0, passed)
        while match := _EVENT_END.search(data, max(start, searched)):
            start = _blank_lines(data, self._end_event(data, start, match.end(), passed), passed)
        self._hold(data[start:], passed)
        return b"".join(passed)

    def _end_event(self, data: bytes, start: int, end: int, passed: list[bytes]) -> int:
        """One event is whole: pass or drop it; return where the next one starts."""
        event = data[start:end]
        self._dropped = not self._passing and _is_usage_chunk(event)
        self._passing = False
        self._after_cr = data[end - 1] == 0x0D and end == len(data)
        if not self._dropped:
            passed.append(event)
        return end

    def _hold(self, rest: bytes, passed: list[bytes]) -> None:
        """Keep the beginning of an event, unless it has become too large, or its beginning has passed already."""
        if not self._passing and len(rest) <= _LARGEST_EVENT:
            self._held = rest
            return
        # The last bytes may be half of the event's end, so they stay.
        self._passing = True
        passed.append(rest[:-3])
        self._held = rest[-3:]

    def flush(self) -> bytes:
        """What is still held, at the end of the stream."""
        held, self._held = self._held, b""
        return held
