"""A client that speaks HTTP byte by byte, for what no SDK would send."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """A whole reply as it came off the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire:
    """One connection; ``most_unread`` bytes or so are taken in before they are read."""

    def __init__(self, url: str, timeout: float = 10.0, most_unread: int | None = None) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.socket()
        self._socket.settimeout(timeout)
        if most_unread is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, most_unread)
        try:
            self._socket.connect((host, int(port)))
        except OSError:
            self._socket.close()
            raise
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def finish_sending(self) -> None:
        """Close our half of the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes | str) -> None:
        """Send bytes as they are; text with its line feeds as CRLF."""
        self._socket.sendall(data.replace("\n", "\r\n").encode() if isinstance(data, str) else data)

    def send_now(self, data: bytes) -> None:
        """Send what fits; ``BlockingIOError`` if nothing does, for a second."""
        try:
            self._socket.settimeout(1)
            self._socket.sendall(data)
        except TimeoutError:
            raise BlockingIOError from None

    def has_news(self) -> bool:
        """Whether something waits to be read."""
        return bool(self._read) or bool(select.select([self._socket], [], [], 0)[0])

    def line(self) -> bytes:
        """The next line, without its end; ``ConnectionError`` if there is none."""
        return self._until(b"\r\n")

    def head(self) -> Reply:
        """The head of the next reply, as a reply without a body; ``ConnectionError`` if there is none."""
        head = self._until(b"\r\n\r\n").split(b"\r\n")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return Reply(int(head[0].split()[1]), headers, b"")

    def reply(self, *, headless: bool = False) -> Reply:
        """The next reply, framed by its own head; ``headless`` for HEAD."""
        return self.body_of(self.head(), headless=headless)

    def body_of(self, head: Reply, *, headless: bool = False) -> Reply:
        """The reply whose head has been read, with its body."""
        status, headers = head.status, head.headers
        if headless or status in (204, 304):
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Reply(status, headers, self._chunks())
        if "content-length" in headers:
            return Reply(status, headers, self._exactly(int(headers["content-length"])))
        return Reply(status, headers, self.rest())

    def some(self, seconds: float = 0.3) -> bytes:
        """What there is until the other side hangs up or is silent for so long."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self.rest()
        data = bytes(self._read)
        self._read.clear()
        return data

    def rest(self) -> bytes:
        """Everything until the other side hangs up."""
        while self._more():
            pass
        data = bytes(self._read)
        self._read.clear()
        return data

    def _chunks(self) -> bytes:
        body = []
        while size := int(self.line(), 16):
            body.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n"
        assert self.line() == b""
        return b"".join(body)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            if not self._more():
                raise ConnectionError(f"the connection ended after {self._read!r}")
        end = self._read.index(mark)
        data = self._exactly(end)
        del self._read[: len(mark)]
        return data

    def _exactly(self, number: int) -> bytes:
        while len(self._read) < number:
            if not self._more():
                raise ConnectionError(f"the connection ended {number - len(self._read)} bytes too early")
        data = bytes(self._read[:number])
        del self._read[:number]
        return data

    def read(self, most: int) -> None:
        """Take in so many bytes, or what there is; ``ConnectionError`` if there are none any more."""
        if not self._more(most):
            raise ConnectionError(f"the connection ended after {len(self._read)} bytes")

    def _more(self, most: int = 65_536) -> bool:
        try:
            data = self._socket.recv(most)
        except (ConnectionResetError, BrokenPipeError):
            return False
        self._read += data
        return bool(data)


def post(path: str, token: str, body: object = None, *, extra: str = "", raw: bytes | None = None) -> bytes:
    """A whole POST request; ``extra`` are more header lines, each ending with a line feed."""
    data = json.dumps(body).encode() if raw is None else raw
    head = (
        f"POST {path} HTTP/1.1\nHost: here\nAuthorization: Bearer {token}\nContent-Type: application/json\n"
        f"{extra}Content-Length: {len(data)}\n\n"
    )
    return head.replace("\n", "\r\n").encode() + data


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """The body of a small chat."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
