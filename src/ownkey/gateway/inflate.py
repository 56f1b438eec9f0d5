"""Undo gzip or deflate, to read what passes; the bytes that pass stay as they are."""

from __future__ import annotations

import zlib

MOST_INFLATED = 67_108_864
_STEP = 65_536


class Inflater:
    """Decodes a compressed reply piece by piece, up to 64 MiB in all; what comes after is not looked at."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._room = MOST_INFLATED

    def read(self, data: bytes) -> list[bytes]:
        """The decoded bytes, in pieces of at most 64 KiB. After a fault, and beyond the limit: none."""
        pieces: list[bytes] = []
        while data and self._room > 0:
            if self._stream is None:
                # gzip and zlib say what they are; some servers send bare deflate under the same name.
                named = data[0] == 0x1F or data[0] & 0x0F == 8
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32 if named else -zlib.MAX_WBITS)
            try:
                piece = self._stream.decompress(data, _STEP)
            except zlib.error:
                self._room = 0
                break
            self._room -= len(piece)
            pieces.append(piece)
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, None
        return pieces
