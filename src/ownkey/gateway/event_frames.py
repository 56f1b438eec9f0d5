"""AWS event streams (``application/vnd.amazon.eventstream``): frames with a length, headers and a payload.

A frame is its whole length and that of its headers (four bytes each, big-endian), a CRC of the two, the headers, the
payload, and a CRC of all that. A header is its name's length and name, a type (7: text) and a value with its length in
two bytes (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html). Nothing here changes a byte
that passes, and checksums are the client's business.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

CONTENT_TYPE = "vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">II")
_BEFORE_HEADERS = 12
_AROUND = 16
_TEXT = 7
_LARGEST_FRAME = 25_165_824
"""AWS states 24 MiB; a length beyond it is no frame."""


def begins_frames(data: bytes) -> bool:
    """Whether data begins with the head of a frame; its checksum makes a mistake all but impossible."""
    return len(data) >= _BEFORE_HEADERS and zlib.crc32(data[:8]) == int.from_bytes(data[8:12], "big")


class FramesBroken(ValueError):
    """What comes is not a frame; nothing after it can be read."""


class FrameCutter:
    """Cuts a stream that comes in pieces into frames; of a large one only its beginning is held."""

    def __init__(self, most_held: int) -> None:
        self._most_held = most_held
        self._held = b""
        self._to_skip = 0

    @property
    def between_frames(self) -> bool:
        """Whether the last byte so far was the last one of a frame."""
        return not self._held and not self._to_skip

    def take(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Headers and payload of each frame that ``data`` completes; of one too large to hold nothing.

        Raises ``FramesBroken`` at what cannot be one.
        """
        if self._to_skip:
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        data, at = self._held + data, 0
        self._held = b""
        while len(data) - at >= _BEFORE_HEADERS:
            length, headers = _PRELUDE.unpack_from(data, at)
            if not _AROUND <= length <= _LARGEST_FRAME or headers > length - _AROUND:
                raise FramesBroken
            if len(data) - at < length:
                if length > self._most_held:
                    self._to_skip = length - (len(data) - at)
                    return
                break
            begin = at + _BEFORE_HEADERS
            yield data[begin : begin + headers], data[begin + headers : at + length - 4]
            at += length
        self._held = data[at:]


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame, with its checksums."""
    block = b"".join(
        b"%c%b%c%b%b" % (len(name), name.encode(), _TEXT, struct.pack(">H", len(value.encode())), value.encode())
        for name, value in headers.items()
    )
    prelude = _PRELUDE.pack(len(block) + len(payload) + _AROUND, len(block))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack(">I", zlib.crc32(message))
