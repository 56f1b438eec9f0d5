"""A provider whose streams come at a pace: ``python -m scripts.bench.paced_provider PORT CHUNKS``.

Each stream gets a chunk every 10 milliseconds. The streams of one millisecond are written together, on a schedule that
never skips: when this process falls behind, every stream gets longer, direct ones too, and is seen to.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sys
import time

from scripts.bench.nginx import stream_events

PERIOD = 0.01
_SLOTS = 10
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def pieces(count: int) -> list[bytes]:
    """What a stream sends: head and first event, then an event each, at last the chunk that ends the body."""
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in stream_events(count - 2)]
    chunks[0] = _HEAD + chunks[0]
    chunks[-1] += b"0\r\n\r\n"
    return chunks


class Connection:
    """A connection: reads a request, then is sent a reply, and so on."""

    __slots__ = ("received", "sent", "socket")

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.received = b""
        self.sent = 0

    def has_request(self) -> bool:
        """Read what is there. Raises ``OSError`` when the other side has gone."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or len(body) < int(length[1] if length else 0):
            return False
        self.received, self.sent = b"", 0
        return True


class Provider:
    """All connections, and the schedule of those that are being answered."""

    def __init__(self, port: int, chunks: int) -> None:
        self._pieces = pieces(chunks)
        self._poll = select.epoll()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listening.setblocking(False)
        self._poll.register(self._listening, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._slots: list[list[Connection]] = [[] for _ in range(_SLOTS)]

    def run(self) -> None:
        """Serve until somebody ends the process."""
        start, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start) / PERIOD * _SLOTS)
            while done < due:
                done += 1
                self._write(done % _SLOTS)
                if done % 4 == 0:
                    self._read(0, done % _SLOTS)
            self._read(start + (done + 1) * PERIOD / _SLOTS - time.monotonic(), done % _SLOTS)

    def _read(self, seconds: float, slot: int) -> None:
        for number, _ in self._poll.poll(max(0, seconds)):
            if number == self._listening.fileno():
                self._accept()
                continue
            connection = self._connections[number]
            try:
                if connection.has_request():
                    self._slots[slot].append(connection)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection = Connection(self._listening.accept()[0])
                self._connections[connection.socket.fileno()] = connection
                self._poll.register(connection.socket, select.EPOLLIN)

    def _write(self, slot: int) -> None:
        whole = self._pieces
        ended = False
        for connection in self._slots[slot]:
            piece = whole[connection.sent]
            connection.sent += 1
            try:
                if connection.socket.send(piece) < len(piece):
                    raise OSError("the reader has fallen behind by more than the socket holds")
            except OSError:
                self._drop(connection)
            ended = ended or connection.sent == len(whole) or connection.socket.fileno() < 0
        if ended:
            self._slots[slot] = [one for one in self._slots[slot] if one.sent < len(whole) and one.socket.fileno() >= 0]

    def _drop(self, connection: Connection) -> None:
        if connection.socket.fileno() >= 0:
            del self._connections[connection.socket.fileno()]
            connection.socket.close()


if __name__ == "__main__":
    Provider(int(sys.argv[1]), int(sys.argv[2])).run()
