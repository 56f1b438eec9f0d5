"""The asyncio protocol on our port: reads requests, keeps gateway paths, hands every other path to the pages.

A connection may carry both kinds, one after the other. Parsing is httptools', strict; the pages' side is uvicorn's.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote_plus

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ownkey.credentials import token_hash
from ownkey.errors import Internal, InvalidRequest, NotAuthenticated, OwnkeyError, RequestTooLarge
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import read_call
from ownkey.gateway.endpoints import find_endpoint
from ownkey.gateway.exchange import Exchange
from ownkey.gateway.relay import Relay
from ownkey.ids import new_id
from ownkey.metering.reservations import Caller
from ownkey.providers.provider import Provider

log = structlog.get_logger(__name__)

_LARGEST_HEAD = 65_536
_TOKEN_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")


class Inbound:
    """One gateway request of a connection, and the reply to it.

    Stands where uvicorn keeps its own request cycle, so that its keep-alive, pipelining and shutdown cover both.
    """

    def __init__(self, listener: Listener, provider: Provider, path: bytes, query: bytes, keep_alive: bool) -> None:
        self.listener = listener
        self.provider = provider
        self.path = path
        self.query = query
        self.method = listener.parser.get_method().decode("ascii")
        self.headers = list(listener.headers)  # trailers, which come later, are no headers
        self.version_1_0 = listener.parser.get_http_version() == "1.0"
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False  # these two are uvicorn's, which signals its cycles through them
        self.message_event = listener
        self.size = 0
        self.body: list[bytes] = []
        self.complete = False
        self.expects_continue = listener.expect_100_continue
        self.has_turn = False
        self.too_large = False
        self.exchange: Exchange | None = None
        self._out: list[bytes] = []
        self._chunked = False
        self._bodiless = False

    # The request

    def receive(self, body: bytes) -> None:
        """Some of the request's body; beyond the limit it is dropped and the request refused."""
        self.size += len(body)
        if self.size <= self.listener.relay.node.settings.max_request_bytes:
            self.body.append(body)
        elif not self.too_large:
            self.too_large = True
            self.body.clear()
            self.start_if_ready()

    def start_if_ready(self) -> None:
        """Go, once the request is whole (or too large) and no earlier one of this connection waits for its reply."""
        ready = self.complete or self.too_large
        if ready and self.has_turn and self.exchange is None and not self.response_complete:
            self.listener.in_flight = self
            self._start()

    def _start(self) -> None:
        request_id = new_id("req")
        try:
            if self.too_large:
                limit = self.listener.relay.node.settings.max_request_bytes
                raise RequestTooLarge(f"The request body is larger than {limit:,} bytes.")
            token, query = find_token(self.headers, self.query)
            body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
            call = read_call(
                self.provider, self.method, self.path.decode("ascii"), query.decode("latin-1"), self.headers, body
            )
            if call.endpoint.refused:
                raise InvalidRequest("Realtime and WebSocket connections are not supported. Use the HTTP API.")
            relay = self.listener.relay
            self.exchange = Exchange(
                relay,
                self,
                Caller(token_hash=token_hash(token)),
                call,
                header_rules.request_block(self.headers),
                request_id,
            )
        except OwnkeyError as error:
            self.refuse(error, request_id)
        except Exception:  # a request must get a reply whatever we did wrong
            log.exception("a request could not be read", request_id=request_id)
            self.refuse(Internal(), request_id)
        else:
            self.body = []
            self.exchange.start()

    def refuse(self, error: OwnkeyError, request_id: str) -> None:
        """Answer with an error of ours; one about the body's size also ends the connection."""
        dialect = find_endpoint(self.provider, self.method, self.path.decode("latin-1")).dialect
        body = dialect.error_body(error, request_id)
        if not self.complete:
            self.keep_alive = False
        self.begin(error.status, header_rules.error_block(error, request_id), len(body))
        self.write(body)
        self.end()

    # The reply

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head; the body's framing follows from its length and the client's version of HTTP.

        Begun anew before anything was sent, it takes the place of the first: an error instead of a reply that broke.
        """
        self._out.clear()
        self._bodiless = self.method == "HEAD" or status in (204, 304)
        self._chunked = length is None and not self._bodiless and not self.version_1_0
        self._out += (STATUS_LINE[status], headers)
        if self._chunked:
            self._out.append(b"transfer-encoding: chunked\r\n")
        elif length is not None:
            self._out.append(b"content-length: %d\r\n" % length)
        else:
            self.keep_alive = self.keep_alive and self._bodiless
        self._out.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Some of the body."""
        if not data or self._bodiless:
            return
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def flush(self) -> None:
        """Send what was gathered, in one write."""
        if self._out:
            self.listener.transport.write(b"".join(self._out))
            self._out.clear()
            if self.exchange is not None and self.listener.flow.write_paused:
                self.exchange.pause()  # the client was behind already, and we are only told when it falls behind

    def end(self) -> None:
        """The reply is whole; the connection goes on to its next request."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self.response_complete = True
        self.exchange = None
        self.listener.in_flight = None
        if not self.keep_alive:
            self.listener.transport.close()
        self.listener.on_response_complete()

    def abort(self) -> None:
        """Send what was gathered and close without the mark of a whole reply."""
        self.flush()
        self.response_complete = True
        if self._chunked:
            self.listener.transport.close()
        else:  # its end is the connection's, and must not look like a whole reply's
            self.listener.transport.abort()


class Listener(HttpToolsProtocol):
    """A connection of a client."""

    parser: httptools.HttpRequestParser

    def __init__(self, relay: Relay, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self.relay = relay
        self.in_flight: Inbound | None = None
        self._head_size = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is the call it was waiting for."""
        super().connection_lost(exc)
        inbound, self.in_flight = self.in_flight, None
        if inbound is not None:
            inbound.response_complete = True
            if inbound.exchange is not None:
                inbound.exchange.client_gone()

    def set(self) -> None:
        """uvicorn signals a request's cycle through an event; a gateway request needs no signal."""

    def on_message_begin(self) -> None:
        """A request begins; what only the pages need of it is made when it turns out to be theirs."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """Some of the target."""
        self._grow_head(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field, or one of the fields after a chunked body."""
        self._grow_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _grow_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > _LARGEST_HEAD:
            raise ValueError("the head of the request is too large")  # ends the parsing with a 400

    def on_headers_complete(self) -> None:
        """The head is whole: is it for the gateway?"""
        path, _, query = self.url.partition(b"?")
        segment, slash, _ = path[1:].partition(b"/")
        provider = self.relay.by_segment.get(segment) if path[:1] == b"/" and slash else None
        if provider is None:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers  # the scope holds this very list
            super().on_headers_complete()
            self.headers = []
            return
        existing = self.cycle
        keep_alive = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        inbound = Inbound(self, provider, path[1 + len(segment) :], query, keep_alive)
        self.cycle = inbound  # type: ignore[assignment]
        if existing is not None and not existing.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((inbound, self.app))  # type: ignore[arg-type]
            return
        inbound.has_turn = True
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Some of a body, for whichever kind of request it belongs to."""
        if isinstance(self.cycle, Inbound):
            self.cycle.receive(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; a gateway request starts only now."""
        inbound = self.cycle
        if not isinstance(inbound, Inbound):
            super().on_message_complete()
            return
        inbound.complete = True
        inbound.start_if_ready()

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
        if inbound.expects_continue and not inbound.complete:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        inbound.start_if_ready()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is answered and the connection closed; the rest of it is never taken for a request."""
        cycle: Any = self.cycle
        unstarted = isinstance(cycle, Inbound) and cycle.has_turn and cycle.exchange is None
        if cycle is None or cycle.response_complete or unstarted:
            body = (
                b'{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid_request","detail":"%b"}'
                % (msg.encode())
            )
            head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()

    def pause_writing(self) -> None:
        """The client reads slowly: the provider has to wait."""
        super().pause_writing()
        if self.in_flight is not None and self.in_flight.exchange is not None:
            self.in_flight.exchange.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self.in_flight is not None and self.in_flight.exchange is not None:
            self.in_flight.exchange.resume()


def find_token(headers: list[tuple[bytes, bytes]], query: bytes) -> tuple[str, bytes]:
    """The API token, from whichever place this SDK sends its key; and the query without ``key``.

    Raises ``NotAuthenticated`` if there is none and ``InvalidRequest`` if there are two different ones.
    """
    found: set[str] = set()
    for name, value in headers:
        if name in _TOKEN_HEADERS:
            found.add(value.strip().decode("latin-1"))
        elif name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() != b"bearer":
                raise NotAuthenticated("Send the API token as 'Authorization: Bearer ownkey_…'.")
            found.add(token.strip().decode("latin-1"))
    if b"key" in query or b"%" in query:
        kept = []
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if unquote_plus(name.decode("latin-1")) == "key":
                found.add(unquote_plus(value.decode("latin-1")))
            else:
                kept.append(part)
        query = b"&".join(kept)
    found.discard("")
    if len(found) > 1:
        raise InvalidRequest("The request carries two different API tokens. Send one.")
    if not found:
        raise NotAuthenticated
    return found.pop(), query


def listener_factory(relay: Relay) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's ``http`` setting."""

    class BoundListener(Listener):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(relay, config, server_state, app_state)

    return BoundListener
