"""The asyncio protocol on our port: reads requests, keeps gateway paths, hands every other path to the pages.

A connection may carry both kinds, one after the other. Parsing is httptools', strict; the pages' side is uvicorn's.
After bytes that are no request nothing more is read: what was asked before them is answered, then they are, and the
connection ends. So nothing that one reader takes for a body is ever taken for a request by another.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ownkey.errors import HeadTooLarge, InvalidRequest, OwnkeyError, RequestTimedOut, RequestTooLarge, Unavailable
from ownkey.gateway import headers as header_rules
from ownkey.gateway.inbound import Inbound
from ownkey.gateway.relay import Relay
from ownkey.gateway.request_head import RequestHead, read_request_head, verbatim
from ownkey.gateway.sockets import has_hung_up, unsent
from ownkey.ids import new_id

_LARGEST_HEAD = 65_536
"""Bytes of a head, of trailers, or of framing without any content; also the most that is parsed in one go."""
_LARGEST_PAGE_BODY = 1_048_576
_TOO_LARGE = f"The request body is larger than {_LARGEST_PAGE_BODY:,} bytes."
_NOT_HTTP = "The request is not valid HTTP."
_OFFERS = (b"connection", b"proxy-connection")  # where the parser looks for the offer of another protocol


class Listener(HttpToolsProtocol):
    """A connection of a client."""

    parser: httptools.HttpRequestParser

    def __init__(
        self,
        relay: Relay,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self.relay = relay
        self.in_flight: Inbound | None = None
        self._head: RequestHead | None = None  # the last one
        self._first = b""  # this read, while the request that it begins with is not whole
        self._length: int | None = None  # of the body, as announced
        self._open = False  # a request has begun and is not whole
        self._in_head = False
        self._read_again = False  # without the other protocol that it offers
        self._moved = False  # this read brought some of a body, or the end of a request
        self._stray = 0  # bytes since then
        self._page_body = 0
        self._deaf = False  # whatever still comes is not looked at
        self._lingering = False  # all is said; the other side may read it before we close
        self._last_words: OwnkeyError | None = None  # for when the replies before it are out
        self._held_up = False  # the next turn waits for the client to read
        self._phase: tuple[str, object, int] = ("", None, 0)
        self._since = 0.0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here; one too many is told so."""
        super().connection_made(transport)
        self.relay.clients.add(self)
        if len(self.relay.clients) > self.relay.most_clients:
            self._answer(Unavailable("There are too many connections. Try again shortly."))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is the call it was waiting for."""
        self.relay.clients.discard(self)
        super().connection_lost(exc)
        newest: Any = self.cycle
        if isinstance(newest, Inbound):
            newest.gathered()
        inbound, self.in_flight = self.in_flight, None
        if inbound is not None:
            inbound.response_complete = True
            exchange, inbound.exchange = inbound.exchange, None
            if exchange is not None:
                exchange.client_gone()
        # Requests refer to their connection. It gives them up: the collector of such circles hardly ever runs.
        self.cycle = None  # type: ignore[assignment]
        self._phase = ("", None, 0)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Some bytes of requests."""
        if self._deaf:
            return
        head, cycle = self._head, self.cycle
        if head is not None and head.verbatim is not None and not self._open and cycle.response_complete:
            body = head.verbatim.body_in(data)
            if body is not None:
                inbound = Inbound(self, head, len(body))
                self.cycle = inbound  # type: ignore[assignment]
                inbound.receive(body)
                inbound.has_turn = inbound.complete = True
                inbound.start_if_ready()
                return
        if len(data) <= _LARGEST_HEAD:
            self._parse(data)
            return
        whole = memoryview(data)
        for start in range(0, len(data), _LARGEST_HEAD):
            if not self._deaf:
                self._parse(whole[start : start + _LARGEST_HEAD])

    def _parse(self, data: bytes | memoryview) -> None:
        if not self._open:
            self._first = bytes(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay_in_http(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._reject(cause if isinstance(cause, OwnkeyError) else InvalidRequest(_NOT_HTTP))
        else:
            if self._open and not self._deaf:
                self._not_whole_yet(len(data))
        self._first = b""

    def _stay_in_http(self, rest: bytes) -> None:
        """Serve a request that offers another protocol in this one, as its connection's last (RFC 9110, 7.8).

        The parser leaves the body of such a request aside, so it reads the request again, without the offer; once.
        """
        if self._read_again:
            return self._reject(InvalidRequest(_NOT_HTTP))
        self._read_again = True
        lines = [b"%b: %b\r\n" % field for field in self.headers if field[0] not in _OFFERS]
        if self._length is not None:
            lines.append(b"content-length: %d\r\n" % self._length)
        version = self.parser.get_http_version().encode()
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"".join((line, *lines, b"connection: close\r\n\r\n", rest)))

    def _not_whole_yet(self, size: int) -> None:
        """A read ended within a request."""
        if self._moved:
            self._moved = False
            self._stray = 0
        else:
            self._stray += size
            if self._stray >= _LARGEST_HEAD:
                self._reject(HeadTooLarge())
                return
        cycle: Any = self.cycle
        if not self._in_head and isinstance(cycle, Inbound) and cycle.has_turn:
            cycle.await_body()

    # The parser's side

    def set(self) -> None:
        """uvicorn signals a request's cycle through an event; a gateway request needs no signal."""

    def on_message_begin(self) -> None:
        """A request begins; what only the pages need of it is made when it turns out to be theirs."""
        if self._deaf:
            raise ValueError("nothing is read any more")
        self.url = b""
        self.headers = []
        self._length = None
        self._open = self._in_head = True
        self._moved = False
        self._stray = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field. Those that come after a chunked body are dropped: they are no headers."""
        if self._in_head:
            name = name.lower()
            if name == b"content-length":
                self._length = int(value)
            else:
                self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: is it for the gateway?"""
        head, parser = self._head, self.parser
        if (
            head is None
            or head.target != self.url
            or head.fields != self.headers
            or head.method != parser.get_method()
            or head.version != parser.get_http_version()
        ):
            head = self._head = read_request_head(parser, self.url, self.headers, self.relay.by_segment)
            if self._length is not None:
                head.verbatim = verbatim(head, self._first)
        if head.upgrade:
            return
        if head.provider is None:
            self._begin_page(head)
            return
        self._in_head = False
        existing = self.cycle
        inbound = Inbound(self, head, self._length)
        self.cycle = inbound  # type: ignore[assignment]
        if existing is not None and not existing.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((inbound, self.app))  # type: ignore[arg-type]
        else:
            inbound.has_turn = True

    def _begin_page(self, head: RequestHead) -> None:
        """A request for a page or the management API: uvicorn's from here on."""
        length = self._length
        if length is not None and length > _LARGEST_PAGE_BODY:
            raise RequestTooLarge(_TOO_LARGE)
        super().on_message_begin()
        self.url, self.expect_100_continue = head.target, head.expects_continue
        self.headers.extend(head.headers)  # the scope holds this very list
        if length is not None:
            self.headers.append((b"content-length", b"%d" % length))
        self._page_body = 0
        super().on_headers_complete()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Some of a body, for whichever kind of request it belongs to."""
        self._moved = True
        if isinstance(self.cycle, Inbound):
            self.cycle.receive(body)
            return
        self._page_body += len(body)
        if self._page_body > _LARGEST_PAGE_BODY:
            raise RequestTooLarge(_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; a gateway request starts only now."""
        if self._in_head:  # it offers another protocol, and is read again
            return
        self._open = False
        self._moved = True
        self._first = b""  # the next request of this read does not begin with it
        inbound = self.cycle
        if not inbound.keep_alive:
            self._deaf = True
        if not isinstance(inbound, Inbound):
            super().on_message_complete()
            return
        inbound.complete = True
        inbound.start_if_ready()

    # Turns

    def on_response_complete(self) -> None:
        """A reply is out: the turn of the next request, or of what is to be said about bytes that were none."""
        self.server_state.total_requests += 1
        if self._lingering or self.transport.is_closing():
            return
        if self.flow.write_paused:  # who does not read replies may not ask for more of them
            self.flow.pause_reading()
            self._held_up = True
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._last_words is not None:
            self._answer(self._last_words)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Inbound):
            # Later, not inside the end of the request before it: a thousand refusals in a row are no recursion.
            self.loop.call_soon(self._next_turn, cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _next_turn(self, inbound: Inbound) -> None:
        if self.transport.is_closing():
            return
        inbound.has_turn = True
        if not inbound.complete:
            inbound.await_body()
        inbound.start_if_ready()

    # The end

    def _reject(self, error: OwnkeyError) -> None:
        """Read no further: answer what is wrong when its turn has come, and end the connection."""
        if self._deaf:
            return
        self._deaf = True
        cycle: Any = self.cycle
        if self._open and not self._in_head:  # the newest request is the one that broke
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                self._last_words = error
            elif isinstance(cycle, Inbound):
                if cycle.has_turn and not cycle.response_complete:
                    cycle.refuse(error, new_id("req"))
                else:
                    self._last_words = error
            else:
                self._reject_page(cycle, error)
        elif cycle is None or cycle.response_complete:
            self._answer(error)
        else:
            self._last_words = error

    def _reject_page(self, cycle: RequestResponseCycle, error: OwnkeyError) -> None:
        """The body of a page's request broke while the page was reading it, or after it had answered."""
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.finish(whole=False)
        else:
            self._answer(error)

    def _answer(self, error: OwnkeyError) -> None:
        """An error that belongs to no request; the connection ends with it."""
        request_id = new_id("req")
        body = header_rules.problem(error, request_id)
        head = header_rules.error_block(error, request_id, "application/problem+json")
        length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[error.status], head, length, body)))
        self.finish(whole=False)

    def finish(self, whole: bool) -> None:
        """All is said. Unless the request is ``whole``, close only when the client had time to read it.

        A socket that is closed while bytes of the other side are unread is reset, and the reply may be lost.
        """
        self._deaf = True
        if whole:
            self.transport.close()
        else:
            self._lingering = True
            self.flow.resume_reading()
            self.transport.write_eof()

    def look_after(self, now: float) -> None:
        """Once a second: end a connection that has waited for its client for too long (``Patience``)."""
        if self.flow.read_paused and has_hung_up(self.transport):
            self.transport.abort()  # we would not hear of it before its next request has its turn
            return
        waits_for = self._waits_for()
        phase = (waits_for, self.cycle, unsent(self.transport) if waits_for in ("reader", "last bytes") else 0)
        if phase != self._phase:
            self._phase, self._since = phase, now
        elif now - self._since > self.relay.patience.seconds_for(waits_for, self._body_so_far()):
            if waits_for in ("head", "body"):
                self._reject(RequestTimedOut())
            elif waits_for == "idle":
                self._deaf = True
                self.transport.close()
            else:
                self.transport.abort()

    def _waits_for(self) -> str:
        """What of the client this connection waits for; nothing if it is our turn, or its provider's."""
        if self._lingering:
            return "last bytes"
        if self.transport.is_closing():
            return "reader"
        if not self.flow.read_paused:
            if self._open:
                return "head" if self._in_head else "body"
            if self.cycle is None or self.cycle.response_complete:
                return "idle"
        return "reader" if self.flow.write_paused and self.in_flight is None else ""

    def _body_so_far(self) -> int:
        cycle: Any = self.cycle
        return cycle.size if isinstance(cycle, Inbound) else self._page_body

    def pause_writing(self) -> None:
        """The client reads slowly: the provider has to wait."""
        super().pause_writing()
        if self.in_flight is not None and self.in_flight.exchange is not None:
            self.in_flight.exchange.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._held_up:
            self._held_up = False
            self._go_on()
        if self.in_flight is not None and self.in_flight.exchange is not None:
            self.in_flight.exchange.resume()


def listener_factory(relay: Relay) -> type[asyncio.Protocol]:
    """What makes a connection's protocol, for uvicorn's ``http`` setting; it only calls it."""
    return cast("type[asyncio.Protocol]", partial(Listener, relay))
