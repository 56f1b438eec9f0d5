"""The fake provider's server: HTTP/1.1 on plain asyncio, so that a test controls every byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Protocol, cast

import httptools

from tests.fakes.behaviour import Behaviour, marked
from tests.fakes.composing import DIALECTS, at_once, compose, error, rejected
from tests.fakes.framing import framed, head, headers_of, malformed
from tests.fakes.plan import Headers, Piece, Plan
from tests.fakes.record import Connection, Received

CONTROL = "/_fake/"
_BETWEEN_YIELDS = 32
"""Pieces sent before other connections get their turn."""


class Oracle(Protocol):
    """What the server asks the provider."""

    keep_bodies: bool
    live: set[Server]

    def opened(self) -> Connection: ...
    def begun(self, connection: Connection, method: str, target: str, headers: Headers) -> Received: ...
    def chosen(self, received: Received) -> Behaviour: ...
    def refused(self, received: Received) -> bool: ...
    def replayed(self, received: Received) -> Plan | None: ...
    async def admitted(self, received: Received) -> None: ...
    def control(self, method: str, path: str, body: bytes) -> object: ...


class Broken(Exception):
    """The connection is to be broken: ``fin`` or ``rst``."""


class Server(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._waiting: deque[tuple[Received, asyncio.Event]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._oracle.live.add(self)
        self._connection = self._oracle.opened()
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, UnicodeDecodeError, ValueError):
            self._connection.bad_requests.append(data)
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.close("fin")
        except httptools.HttpParserUpgrade:
            self.close("fin")

    def on_message_begin(self) -> None:
        self._target, self._body = b"", bytearray()
        self._headers: Headers = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._target.decode("latin-1")
        if ("expect", "100-continue") in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._received = self._oracle.begun(self._connection, method, target, self._headers)
        self._complete = asyncio.Event()
        self._connection.requests += 1
        self._waiting.append((self._received, self._complete))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer_waiting())

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._received.completed(bytes(self._body))
        self._complete.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._oracle.live.discard(self)
        self._connection.closed_at = time.time()
        self._connection.closed_by = self._connection.closed_by or "client"
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    # Answering

    async def _answer_waiting(self) -> None:
        while self._waiting and not self._lost:
            received, complete = self._waiting.popleft()
            try:
                await self._answer(received, complete)
            except Broken as broken:
                return self.close(str(broken))
            except Exception as mistake:  # a mistake of the test, or ours, must be seen and not hang
                received.note = repr(mistake)
                with contextlib.suppress(Broken):
                    await self._send(received, Behaviour(), error(received, 599, received.note))
                return self.close("fin")
        return None

    async def _answer(self, received: Received, complete: asyncio.Event) -> None:
        if received.target.startswith(CONTROL):
            await complete.wait()
            return await self._control(received)
        chosen = self._oracle.chosen(received)
        if not marked(chosen, received.target, b"").early:
            await complete.wait()
        behaviour = marked(chosen, received.target, received.body)
        plan = self._plan(received, behaviour)
        received.accepted = plan.status < 300 and not behaviour.no_reply
        await self._oracle.admitted(received)
        await _sleep(behaviour.delay)
        if behaviour.no_reply:
            raise Broken(behaviour.cut_how)
        if behaviour.malformed:
            await self._malformed(received, behaviour, plan)
        await self._send(received, behaviour, plan)
        if behaviour.hang_up:
            self.close("fin")
        return None

    def _plan(self, received: Received, behaviour: Behaviour) -> Plan:
        if self._oracle.refused(received):
            return rejected(received)
        return self._oracle.replayed(received) or compose(received, behaviour)

    async def _send(self, received: Received, behaviour: Behaviour, plan: Plan) -> None:
        """Send head and body; every token of a stream is counted when its bytes are handed over."""
        framing = behaviour.framing
        if framing == "auto":
            framing = "chunked" if plan.streaming else "length"
        pieces = iter(plan.pieces)
        if plan.length is None and (framing == "length" or not plan.streaming):
            pieces = iter(at_once(received, behaviour, plan))
        encoder = zlib.compressobj(wbits=31) if behaviour.gzip and plan.length is None else None
        received.status, received.first_byte_at = plan.status, time.time()
        await self._write(head(plan.status, headers_of(plan, behaviour, framing)), behaviour)
        number = length = 0
        # The record comes before the bytes: whoever has read a reply finds it remembered.
        async for piece in _timed(received, behaviour, pieces):
            data = piece.data if encoder is None else encoder.compress(piece.data) + encoder.flush(zlib.Z_SYNC_FLUSH)
            number, length = number + 1, length + len(data)
            self._sent(received, piece)
            received.ends(framing == "length" and length == plan.length)
            await self._write(framed(data, framing), behaviour)
            if plan.length is not None or number % _BETWEEN_YIELDS == 0:
                await asyncio.sleep(plan.gap)
        if plan.broken:
            raise Broken(plan.broken)
        end = b"" if encoder is None else framed(encoder.flush(), framing)
        self._still_there()
        received.ends(framing != "length")
        await self._write(end + b"0\r\n\r\n" if framing == "chunked" else end, behaviour)
        if framing == "close":
            self.close("fin")

    def _sent(self, received: Received, piece: Piece) -> None:
        self._still_there()
        received.tokens_out += piece.tokens
        received.sent_bytes += len(piece.data)
        if piece.reports is not None:
            received.reported = piece.reports
        if self._oracle.keep_bodies:
            received.sent += piece.data

    async def _write(self, data: bytes, behaviour: Behaviour) -> None:
        if behaviour.drip is not None:
            for byte in data:
                self._transport.write(bytes((byte,)))
                await asyncio.sleep(behaviour.drip)
                await self._drained()
            return
        self._transport.write(data)
        await self._drained()

    async def _drained(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        self._still_there()

    def _still_there(self) -> None:
        if self._lost:
            raise Broken("fin")

    def close(self, how: str) -> None:
        """Close the connection: ``fin`` sends what is waiting first, ``rst`` resets."""
        if self._lost:
            return
        self._connection.closed_by = self._connection.closed_by or "provider"
        if how == "rst":
            sock = self._transport.get_extra_info("socket")
            if sock is not None:  # it is gone when the other side's end was read in this turn of the loop
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    async def _control(self, received: Received) -> None:
        answer = self._oracle.control(received.method, received.path.removeprefix(CONTROL), received.body)
        await self._send(received, Behaviour(), Plan([Piece(json.dumps(answer).encode())]))

    async def _malformed(self, received: Received, behaviour: Behaviour, plan: Plan) -> None:
        """A reply that breaks a rule of HTTP or JSON. Its tokens count: the provider did the work."""
        pieces = list(plan.pieces)
        body = b"".join(piece.data for piece in pieces)
        received.status, received.first_byte_at = plan.status, time.time()
        for piece in pieces:
            self._sent(received, piece)
        await self._write(malformed(behaviour.malformed, plan, body), behaviour)
        await asyncio.sleep(0.02)  # so that the bytes are seen before the end
        raise Broken("fin")


async def _timed(received: Received, behaviour: Behaviour, pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
    """The pieces, with the pauses, the stall and the break the behaviour asks for."""
    said, first, stall = 0, True, behaviour.stall
    for piece in pieces:
        if stall is not None and said >= behaviour.stall_after:
            await _sleep(stall)
            stall = None
        if behaviour.cut is not None and said >= behaviour.cut:
            raise Broken(behaviour.cut_how)
        if behaviour.error_after is not None and said >= behaviour.error_after:
            yield Piece(DIALECTS[received.dialect].error_event(received))
            return
        if behaviour.pause and not first:
            await _sleep(behaviour.pause)
        first = False
        yield piece
        said += piece.tokens
    if behaviour.cut is not None:
        raise Broken(behaviour.cut_how)


async def _sleep(seconds: float) -> None:
    if seconds == math.inf:
        await asyncio.Event().wait()
    if seconds:
        await asyncio.sleep(seconds)
