"""New ids: a prefix naming the noun, then a ULID, so that ids sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


class _Sequence:
    """Monotonic ULIDs. Within one millisecond the random part counts up, so order is kept; a clock that is set back
    does not matter either.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._block = 0  # the ULID without its last ten bits
        self._prefix = ""
        self._last = 1023

    def next(self) -> str:
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._millisecond:
                self._millisecond = now
                # A clear top bit of the random part leaves room to count.
                self._begin((now << 70) | (int.from_bytes(os.urandom(9)) >> 3))
            elif self._last == 1023:
                self._begin(self._block + 1)
            else:
                self._last += 1
            return self._prefix + _PAIRS[self._last]

    def _begin(self, block: int) -> None:
        self._block = block
        self._prefix = "".join([_PAIRS[(block >> shift) & 1023] for shift in range(110, -1, -10)])
        self._last = 0


_sequence = _Sequence()


def new_id(prefix: str) -> str:
    """Return an id such as ``org_01J9Z3K7X2R5T8W1Y4B6D0F3HQ``; ids of one process are strictly increasing."""
    return f"{prefix}_{_sequence.next()}"
