"""A small picture for a prompt: a PNG written by hand, whose colours come from the words."""

from __future__ import annotations

import hashlib
import struct
import zlib

SIZE = 128
"""Width and height in pixels."""
TOKENS = 272
"""Output tokens a picture counts, whatever its size: OpenAI's figure for a low-quality square one."""


def picture(prompt: str) -> bytes:
    """A PNG in which one colour fades into another; the same prompt gives the same picture."""
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).digest()
    start, end = digest[:3], digest[3:6]
    rows = bytearray()
    for y in range(SIZE):
        rows.append(0)  # the row's filter: none
        for x in range(SIZE):
            share = (x + y) / (2 * SIZE - 2)
            rows += bytes(round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"tEXt", b"Comment\x00simulated picture")
        + _chunk(b"IDAT", zlib.compress(bytes(rows)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
