"""Pooled connections to providers: plain asyncio protocols, one request at a time on each.

Bytes of a reply's body are handed on as they arrive. Redirects are never followed, proxies from the environment
are ignored, and TLS certificates are verified.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

import httptools

from ownkey.gateway.origin import Origin
from ownkey.gateway.sockets import has_news
from ownkey.providers.addresses import Guard
from ownkey.providers.outbound import tls_context

_MOST_IDLE = 512
# Seconds after which an unused connection is not trusted any more.
_LONGEST_IDLE = 30.0
# Seconds after which one is looked at before it is used: the other side may have closed it just now.
_TRUSTED_IDLE = 0.25
# The most bytes of a reply that are neither its body nor its end: its head, trailers, framing. Reads that bring some of
# the body, or the end, are not counted: what they have besides is bounded by their size.
_LARGEST_HEAD = 65_536
# What a connection that is lost has in place of its parser, which refers back to it.
_NO_PARSER = httptools.HttpResponseParser(None)


class Receiver(Protocol):
    """What a connection tells of the reply to the request it was given."""

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        """Status, header fields (names in lower case), and the body's length if it was announced."""

    def on_data(self, pieces: list[bytes], complete: bool) -> None:
        """Body bytes of one read, and whether the reply ends with them."""

    def on_broken(self, reason: str) -> None:
        """The connection was lost, or the reply is no HTTP, before the reply was complete."""


class Connection(asyncio.Protocol):
    """One connection to a provider. Reads replies strictly; anything that is no HTTP breaks it."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.transport: asyncio.Transport
        self.receiver: Receiver | None = None
        self.closed = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._length: int | None = None
        self._headless = False
        self._until_end = False
        self._begun = False
        self._complete = False
        self._keep = False
        self._stray = 0

    def request(self, data: bytes, receiver: Receiver, headless: bool) -> None:
        """Send a whole request; ``headless`` is for HEAD, whose reply has no body whatever its head says."""
        self.receiver = receiver
        self._headless = headless
        self._keep = False
        self._stray = 0
        self.transport.write(data)

    def is_usable(self, now: float) -> bool:
        """Whether an idle connection is still open, as far as this machine knows.

        What is sent into a connection that the provider closes at that moment fails the call: it is never sent twice,
        because a provider may have worked on it, and bill it.
        """
        if self.transport.is_closing():
            return False
        return now - self.idle_since < _TRUSTED_IDLE or not has_news(self.transport)

    def close(self) -> None:
        """Drop the connection now, with whatever reply is under way."""
        self.receiver = None
        self.closed = True
        self.transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Some of a reply: parse it and hand its body on, in one go."""
        receiver = self.receiver
        if receiver is None:  # a provider that talks without being asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep = False
            if not self._complete:  # else the reply is whole, and what follows it is nobody's
                self._break(receiver, "the reply is not valid HTTP")
                return
        if self.receiver is not receiver:  # the exchange gave up on something in this read
            return
        pieces, self._pieces = self._pieces, []
        if self._complete:
            self._finish(receiver, pieces)
        elif pieces:
            self._stray = 0
            receiver.on_data(pieces, False)
        else:
            self._stray += len(data)
            if self._stray > _LARGEST_HEAD:
                self._break(receiver, "the head of the reply is too large")

    def connection_lost(self, error: Exception | None) -> None:
        """Closed: the end of a reply that is framed by it, and the breaking of any other."""
        self.closed = True
        self._parser = _NO_PARSER
        receiver = self.receiver
        if receiver is None:
            if self in self.origin.idle:
                self.origin.idle.remove(self)
            return
        self.receiver = None
        if self._until_end and error is None:
            receiver.on_data([], True)
        else:
            receiver.on_broken("the connection was closed" if error is None else str(error) or type(error).__name__)

    # The parser's side

    def on_message_begin(self) -> None:
        """The first byte of a reply; one that nobody asked for ends the parsing."""
        if self._complete:
            raise ValueError("bytes after the reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; what comes after a body is none, least of all of the next reply."""
        if not self._begun:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: tell it, unless it is an interim one."""
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if not 100 <= status <= 599:
            raise ValueError("no status of HTTP")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ValueError("no version of HTTP that we speak")
        if status < 200 or self.receiver is None:
            return
        length, chunked = None, False
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or version == "1.0":
                    raise ValueError("not a framing that we asked for")
                chunked = True
        bodiless = self._headless or status in (204, 304)
        self._until_end = not chunked and length is None and not bodiless
        self._begun = True
        self.receiver.on_head(status, headers, None if chunked else length)
        if self._headless:
            self._complete = True

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if not self._headless:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The reply has ended, by its own framing."""
        if self._begun:
            self._complete = True
            self._keep = self._parser.should_keep_alive() and not self._headless

    def _finish(self, receiver: Receiver, pieces: list[bytes]) -> None:
        unread = self.transport.get_write_buffer_size()  # it answered before it had our whole request
        reusable = self._keep and not unread and not self.transport.is_closing()
        self.receiver = None
        self._begun = self._complete = self._until_end = False
        if reusable and len(self.origin.idle) < _MOST_IDLE:
            self.transport.resume_reading()
            self.idle_since = time.monotonic()
            self.origin.idle.append(self)
        else:
            self.close()
        receiver.on_data(pieces, True)

    def _break(self, receiver: Receiver, reason: str) -> None:
        """End a reply that went wrong; what came of its body before that still counts."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            receiver.on_data(pieces, False)
        if self.receiver is receiver:  # else it gave up over these pieces
            self.close()
            receiver.on_broken(reason)


class Pool:
    """Connections to all providers of this process."""

    def __init__(self, connect_timeout: float) -> None:
        self._timeout = connect_timeout
        # An organization's is forgotten with the last route and connection to it.
        self._origins: WeakValueDictionary[tuple[str, Guard | None], Origin] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    def origin(self, url: str, guard: Guard | None = None) -> Origin:
        """The origin of an address, the same one each time. Raises ``ValueError`` for what is no http address.

        With and without a guard are two: no call takes a connection that was made by weaker rules.
        """
        origin = self._origins.get((url, guard))
        if origin is None:
            origin = self._origins[url, guard] = Origin(url, guard)
        return origin

    def idle(self, origin: Origin) -> Connection | None:
        """A connection ready to use at once, or None."""
        idle = origin.idle
        if not idle:
            return None
        now = time.monotonic()
        while idle:
            connection = idle.pop()
            if connection.idle_since > now - _LONGEST_IDLE and connection.is_usable(now):
                return connection
            connection.close()
        return None

    def close_idle(self) -> None:
        """Close the connections that were idle for long: whoever stands between may have forgotten them."""
        oldest = time.monotonic() - _LONGEST_IDLE
        for origin in self._origins.values():
            while origin.idle and origin.idle[0].idle_since <= oldest:
                origin.idle.pop(0).close()

    def connect(self, origin: Origin, done: Callable[[Connection | Exception], None]) -> asyncio.Task[None]:
        """Open a connection; ``done`` gets it, or ``TimeoutError`` or ``OSError`` (``HostForbidden`` among them).

        It gets nothing if the task is cancelled.
        """
        task = asyncio.get_running_loop().create_task(self._connect(origin, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def give_back(self, connection: Connection) -> None:
        """Keep a connection that was opened and not used."""
        if connection.closed or connection.transport.is_closing() or len(connection.origin.idle) >= _MOST_IDLE:
            connection.close()
        else:
            connection.idle_since = time.monotonic()
            connection.origin.idle.append(connection)

    def close(self) -> None:
        """Drop all idle connections."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()

    async def _connect(self, origin: Origin, done: Callable[[Connection | Exception], None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await (self._open(origin, origin.host) if origin.guard is None else self._guarded(origin))
        except Exception as error:  # also a host name that cannot be one
            done(error)
        else:
            done(connection)

    async def _guarded(self, origin: Origin) -> Connection:
        """Resolve the name once, and connect to what was found and judged."""
        assert origin.guard is not None
        failure: OSError = OSError(f"{origin.host} has no address")
        for address in await origin.guard.resolve(origin.host, origin.port):
            try:
                return await self._open(origin, address)
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        raise failure

    def _context(self) -> ssl.SSLContext:
        """Made with the first connection that needs it: reading the machine's certificates takes a while."""
        if self._tls is None:
            self._tls = tls_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _open(self, origin: Origin, address: str) -> Connection:
        """Connect to an address; the certificate must be that of the origin's host."""
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(origin),
            address,
            origin.port,
            ssl=self._context() if origin.tls else None,
            server_hostname=origin.host if origin.tls else None,
        )
        return connection
