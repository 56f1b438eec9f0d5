"""Readers of paced streams: ``python -m scripts.bench.paced_client``, told what to do by JSON on its standard input.

Opens the streams evenly within a second, looks every 20 milliseconds at each of them, and prints how long each took,
in seconds from its request to its last byte. Looking seldom makes it cheap: the kernel gathers chunks meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Sequence

LOOK_SECONDS = 0.02
_OPENING_SECONDS = 1.0
_END = b"\r\n0\r\n\r\n"


class Reader:
    """One stream."""

    __slots__ = ("seconds", "socket", "started", "tail")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setblocking(False)
        self.started = self.seconds = 0.0
        self.tail = b""

    def start(self, request: bytes, now: float) -> None:
        """Send the request, which is small enough for the socket."""
        self.started = now
        self.socket.send(request)

    def look(self) -> bool:
        """Read what is there; whether the stream has ended. Raises ``RuntimeError`` for anything but a whole one."""
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return False
        if not data or (not self.tail and not data.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"a stream was broken off or refused: {data[:300]!r}")
        self.tail = (self.tail + data)[-len(_END) :]
        if self.tail != _END:
            return False
        self.seconds = time.monotonic() - self.started
        return True


def read_all(port: int, request: bytes, count: int, limit: float) -> Sequence[float]:
    """How long each stream took; those that have not ended after ``limit`` seconds are left out."""
    waiting = [Reader(port) for _ in range(count)]
    waiting.reverse()
    opened: list[Reader] = []
    ended: list[Reader] = []
    start = now = time.monotonic()
    look = 0
    while (waiting or opened) and now - start < limit:
        while waiting and (now - start) * count / _OPENING_SECONDS >= count - len(waiting):
            opened.append(waiting.pop())
            opened[-1].start(request, now)
        over = [reader for reader in opened if reader.look()]
        if over:
            ended += over
            opened = [reader for reader in opened if not reader.seconds]
        look += 1
        with contextlib.suppress(ValueError):  # late: look at once
            time.sleep(start + look * LOOK_SECONDS - time.monotonic())
        now = time.monotonic()
    return [reader.seconds for reader in ended]


if __name__ == "__main__":
    told = json.load(sys.stdin)
    print(json.dumps(read_all(told["port"], told["request"].encode(), told["count"], told["limit"])))
