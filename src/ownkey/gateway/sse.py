"""Server-sent events, as far as reading them goes: where events end, and what data they carry.

Lines end in LF, CRLF or CR; an event ends with a blank line; its ``data`` lines are joined by a line feed
(https://html.spec.whatwg.org/multipage/server-sent-events.html). Nothing here changes a byte that passes.
"""

from __future__ import annotations

from collections.abc import Iterator


def with_line_feeds(data: bytes) -> bytes:
    """The same events with every line ended by a line feed. Data of our providers is JSON: no bare CR in it."""
    if b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def payload(event: bytes) -> bytes:
    """The data of one event whose lines end in LF; empty if it has none (a comment, a keep-alive)."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:]
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def payloads(data: bytes) -> Iterator[bytes]:
    """The data of every event, in order, a last one without its blank line included; lines end in LF."""
    for event in data.split(b"\n\n"):
        found = payload(event)
        if found:
            yield found


def payloads_with(data: bytes, marker: bytes) -> Iterator[bytes]:
    """The data of the events that hold ``marker`` somewhere, first to last; lines end in LF."""
    at = data.find(marker)
    while at >= 0:
        start = data.rfind(b"\n\n", 0, at)
        end = data.find(b"\n\n", at)
        yield payload(data[0 if start < 0 else start + 2 : len(data) if end < 0 else end])
        at = data.find(marker, end) if end >= 0 else -1


def last_payloads_with(data: bytes, marker: bytes) -> Iterator[bytes]:
    """The data of the events that hold ``marker`` somewhere, last to first; lines end in LF."""
    at = data.rfind(marker)
    while at >= 0:
        start = data.rfind(b"\n\n", 0, at)
        end = data.find(b"\n\n", at)
        yield payload(data[0 if start < 0 else start + 2 : len(data) if end < 0 else end])
        at = data.rfind(marker, 0, start) if start >= 0 else -1
