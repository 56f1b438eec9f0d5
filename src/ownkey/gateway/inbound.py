"""One gateway request of a connection, and the reply to it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ownkey.credentials import token_hash
from ownkey.errors import Internal, InvalidRequest, NotAuthenticated, OwnkeyError, RequestTooLarge
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import read_call
from ownkey.gateway.endpoints import find_endpoint
from ownkey.gateway.exchange import Exchange
from ownkey.ids import new_id
from ownkey.metering.reservations import Caller
from ownkey.providers.provider import Provider

if TYPE_CHECKING:
    from ownkey.gateway.listener import Listener

log = structlog.get_logger(__name__)

# Never TRACE, whose reply repeats the request, the provider's credential in it.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_TOKEN_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")


class Inbound:
    """A request for the gateway.

    Stands where uvicorn keeps its own request cycle, so that its pipelining and shutdown cover both.
    """

    def __init__(
        self, listener: Listener, provider: Provider, path: bytes, query: bytes, length: int | None, keep_alive: bool
    ) -> None:
        self.listener = listener
        self.provider = provider
        self.path = path
        self.query = query
        self.length = length
        self.method = listener.parser.get_method().decode("ascii")
        self.headers = listener.headers
        self.version_1_0 = listener.parser.get_http_version() == "1.0"
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False  # these two are uvicorn's, which signals its cycles through them
        self.message_event = listener
        self.size = 0
        self.body: list[bytes] = []
        self.complete = False
        self.expects_continue = listener.expect_100_continue and not self.version_1_0
        self.has_turn = False
        self.too_large = False
        self.exchange: Exchange | None = None
        self._looked_at = False
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

    def await_body(self) -> None:
        """The body takes its time: refuse at once what the head alone condemns, else say that it is waited for."""
        if self._looked_at or self.response_complete:
            return
        self._looked_at = True
        request_id = new_id("req")
        try:
            if self.length is not None and self.length > self.listener.relay.node.settings.max_request_bytes:
                self.too_large = True
            self._check()
        except OwnkeyError as error:
            self.refuse(error, request_id)
        else:
            if self.expects_continue and not self.size:
                self.listener.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check(self) -> tuple[str, bytes]:
        """What can be said before the body is there. Returns the token, and the query without it."""
        if self.too_large:
            limit = self.listener.relay.node.settings.max_request_bytes
            raise RequestTooLarge(f"The request body is larger than {limit:,} bytes.")
        if self.method not in _METHODS:
            raise InvalidRequest(f"{self.method} is no method of a provider's API.")
        return find_token(self.headers, self.query)

    def _start(self) -> None:
        request_id = new_id("req")
        try:
            token, query = self._check()
            body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
            call = read_call(
                self.provider, self.method, self.path.decode("ascii"), query.decode("latin-1"), self.headers, body
            )
            if call.endpoint.refused:
                raise InvalidRequest("Realtime and WebSocket connections are not supported. Use the HTTP API.")
            self.exchange = Exchange(
                self.listener.relay,
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
        """Answer with an error of ours; before the request is whole this also ends the connection."""
        dialect = find_endpoint(self.provider, self.method, self.path.decode("latin-1")).dialect
        body = dialect.error_body(error, request_id)
        if not self.complete:
            self.keep_alive = False
            self.body.clear()
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
            self.listener.finish(self.complete)
        self.listener.on_response_complete()

    def abort(self) -> None:
        """Send what was gathered and close without the mark of a whole reply."""
        self.flush()
        self.response_complete = True
        if self._chunked:
            self.listener.transport.close()
        else:  # its end is the connection's, and must not look like a whole reply's
            self.listener.transport.abort()


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
