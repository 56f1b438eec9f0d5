"""One gateway request of a connection, and the reply to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ownkey.errors import Internal, OwnkeyError, RequestTooLarge, Unavailable
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import read_body
from ownkey.gateway.endpoints import find_endpoint
from ownkey.gateway.exchange import Exchange
from ownkey.gateway.request_head import RequestHead
from ownkey.ids import new_id

if TYPE_CHECKING:
    from ownkey.gateway.listener import Listener

log = structlog.get_logger(__name__)

# Bodies on their way may take as much memory as so many of the largest: their callers are not known yet.
_MOST_LARGE_BODIES = 16
# More pieces of a body than this are put together: one of a byte takes fifty.
_MOST_PIECES = 1_024
_MANY = 4_096
# How a chunk begins: made once, for there are tens of thousands a second.
_SIZES = [b"%x\r\n" % size for size in range(_MANY)]


class Inbound:
    """A request for the gateway.

    Stands where uvicorn keeps its own request cycle, so that its pipelining and shutdown cover both.
    """

    response_complete = False
    disconnected = False  # this and message_event are uvicorn's, which signals its cycles through them
    size = 0
    complete = False
    has_turn = False
    too_large = False
    exchange: Exchange | None = None
    _looked_at = False
    _counted = 0
    _loose = 0  # the last pieces of the body, not yet put together
    _chunked = False
    _bodiless = False

    def __init__(self, listener: Listener, head: RequestHead, length: int | None) -> None:
        self.listener = self.message_event = listener
        self.head = head
        self.length = length
        self.keep_alive = head.keep_alive
        self.body: list[bytes] = []
        self._out: list[bytes] = []

    # The request

    def receive(self, body: bytes) -> None:
        """Some of the request's body; beyond the limit it is dropped and the request refused."""
        self.size += len(body)
        if self.size <= self.listener.relay.node.settings.max_request_bytes:
            self.body.append(body)
            self._loose += 1
            if self._loose == _MOST_PIECES:
                self._loose = 0
                self.body[-_MOST_PIECES:] = [b"".join(self.body[-_MOST_PIECES:])]
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
        if self.response_complete:
            return
        relay = self.listener.relay
        largest = relay.node.settings.max_request_bytes
        relay.gathering += self.size - self._counted
        self._counted = self.size
        refusal: OwnkeyError | None = None
        if relay.gathering > _MOST_LARGE_BODIES * largest:
            refusal = Unavailable("Too many large requests are on their way. Try again shortly.")
        elif self._looked_at:
            return
        else:
            self._looked_at = True
            self.too_large = self.length is not None and self.length > largest
            refusal = self._refusal()
        if refusal is not None:
            self.refuse(refusal, new_id("req"))
        elif self.head.expects_continue and not self.size and self.head.version == "1.1":
            self.listener.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def gathered(self) -> None:
        """The body is no longer on its way: it is whole, refused, or its client is gone."""
        self.listener.relay.gathering -= self._counted
        self._counted = 0

    def _refusal(self) -> OwnkeyError | None:
        """What is wrong with the request whatever its body is."""
        if self.too_large:
            limit = self.listener.relay.node.settings.max_request_bytes
            return RequestTooLarge(f"The request body is larger than {limit:,} bytes.")
        return self.head.refusal

    def _start(self) -> None:
        self.gathered()
        request_id = new_id("req")
        head, refusal = self.head, self._refusal()
        if refusal is not None:
            self.refuse(refusal, request_id)
            return
        assert head.call is not None
        assert head.caller is not None
        try:
            call = read_body(head.call, self.body[0] if len(self.body) == 1 else b"".join(self.body))
            self.exchange = Exchange(self.listener.relay, self, head.caller, call, request_id)
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
        head = self.head
        assert head.provider is not None
        dialect = find_endpoint(head.provider, head.method.decode("ascii"), head.path).dialect
        body = dialect.error_body(error, request_id)
        if not self.complete:
            self.keep_alive = False
            self.body.clear()
            self.gathered()
        self.begin(error.status, header_rules.error_block(error, request_id), len(body))
        self.write([body])
        self.end()

    # The reply

    def attend(self, exchange: Exchange) -> None:
        """Another exchange serves this request."""
        self.exchange = exchange

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head; the body's framing follows from its length and the client's version of HTTP.

        Begun anew before anything was sent, it takes the place of the first: an error instead of a reply that broke.
        """
        self._out.clear()
        self._bodiless = self.head.method == b"HEAD" or status in (204, 304)
        self._chunked = length is None and not self._bodiless and self.head.version == "1.1"
        self._out += (STATUS_LINE[status], header_rules.NO_PAGE, headers)
        if self._chunked:
            self._out.append(b"transfer-encoding: chunked\r\n")
        elif length is not None:
            self._out.append(b"content-length: %d\r\n" % length)
        else:
            self.keep_alive = self.keep_alive and self._bodiless
        self._out.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")

    def write(self, pieces: list[bytes]) -> None:
        """Some of the body."""
        if self._bodiless:
            return
        if self._chunked:
            for data in pieces:
                if data:
                    size = len(data)
                    self._out += (_SIZES[size] if size < _MANY else b"%x\r\n" % size, data, b"\r\n")
        else:
            self._out += pieces

    def flush(self) -> None:
        """Send what was gathered, in one write."""
        if self._out:
            out, self._out = self._out, []
            self.listener.transport.write(b"".join(out))
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
