"""Undo gzip, deflate, brotli or zstd, to read what passes; the bytes that pass stay as they are."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import brotli

from ownkey.gateway.headers import read_reply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Headers = list[tuple[bytes, bytes]]

MOST_INFLATED = 8_388_608
"""Decoded bytes that are looked at, in all. A reply is rarely a megabyte; a bomb would cost us seconds."""
_STEP = 65_536
# The largest window that a sender may suppose here (RFC 9659); a frame can ask for two gigabytes.
_ZSTD: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


class _Stream(Protocol):
    """One compressed stream."""

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        """At most about 64 KiB of what ``data`` decodes to, and what of ``data`` is left to be given again."""

    def is_over(self) -> bool:
        """Whether another stream may follow."""

    def has_more(self) -> bool:
        """Whether there is more to be had without more data."""


class _Deflate:
    """gzip, zlib, and the bare deflate that some servers send under its name."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        if self._stream is None:
            named = data[0] == 0x1F or data[0] & 0x0F == 8  # gzip and zlib say what they are
            self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32 if named else -zlib.MAX_WBITS)
        piece = self._stream.decompress(data, _STEP)
        return piece, self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def is_over(self) -> bool:
        return self._stream is not None and self._stream.eof

    def has_more(self) -> bool:
        return False


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        return self._stream.process(data, output_buffer_limit=_STEP), b""

    def is_over(self) -> bool:
        return False

    def has_more(self) -> bool:
        return not self._stream.is_finished() and not self._stream.can_accept_more_data()


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options=_ZSTD)

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._stream.decompress(data, _STEP)
        return piece, self._stream.unused_data if self._stream.eof else b""

    def is_over(self) -> bool:
        return self._stream.eof

    def has_more(self) -> bool:
        return not self._stream.eof and not self._stream.needs_input


_STREAMS: dict[str, Callable[[], _Stream]] = {
    "gzip": _Deflate,
    "x-gzip": _Deflate,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
_FAULTS = (zlib.error, brotli.error, zstd.ZstdError, EOFError)


class Inflater:
    """Decodes a compressed reply piece by piece, up to 8 MiB in all; what comes after is not looked at."""

    def __init__(self, encoding: str, most: int = MOST_INFLATED) -> None:
        self._open = _STREAMS[encoding]
        self._stream: _Stream | None = None
        self.room = most

    def read(self, data: bytes) -> list[bytes]:
        """The decoded bytes, in pieces of about 64 KiB. After a fault, and beyond the limit: none."""
        pieces: list[bytes] = []
        try:
            while data and self.room > 0:
                stream = self._stream = self._stream or self._open()
                piece, data = stream.read(data)
                self._keep(piece, pieces)
                while not data and self.room > 0 and stream.has_more():
                    self._keep(stream.read(b"")[0], pieces)
                if stream.is_over():
                    self._stream = None
        except _FAULTS:
            self.room = 0
        return pieces

    def _keep(self, piece: bytes, pieces: list[bytes]) -> None:
        self.room -= len(piece)
        pieces.append(piece)


def knows(encoding: str) -> bool:
    """Whether a reply in this content coding, in lower case, can be read."""
    return encoding in _STREAMS


def readable(body: bytes, headers: Headers, most: int) -> tuple[bytes, Headers]:
    """A whole reply without its compression, and its head to fit: what is to be searched has to be plain.

    Nothing is left of a body that is not what its head says, or that has ``most`` bytes or more when it is decoded.
    """
    coding = read_reply(headers).coding
    if coding in ("", "identity"):
        return body, headers
    plain = b""
    if knows(coding):
        inflater = Inflater(coding, most)
        plain = b"".join(inflater.read(body))
        plain = plain if inflater.room > 0 else b""
    return plain, [field for field in headers if field[0] != b"content-encoding"]
