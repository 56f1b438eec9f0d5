"""Where a reply goes: what is passed on at once, what waits for the settlement, and how a reply is broken off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ownkey.errors import OwnkeyError
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import Call
from ownkey.metering.reservations import Admission

if TYPE_CHECKING:
    from ownkey.gateway.exchange import Exchange


# Held back beyond this, what looks like line ends after the end of a stream is none.
_MOST_BLANK = 16


class Client(Protocol):
    """Where a reply goes: a socket, or the assistant page. What is written is gathered until ``flush``."""

    def attend(self, exchange: Exchange) -> None:
        """From now on this exchange is the one to tell of the client."""

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head: complete header lines, and the body's length if it is known."""

    def write(self, pieces: list[bytes]) -> None:
        """Some of the body."""

    def flush(self) -> None:
        """Send what was gathered."""

    def end(self) -> None:
        """The reply is whole: send what was gathered and mark the end."""

    def abort(self) -> None:
        """Break the reply off, so that it cannot be taken for a whole one."""


class Delivery:
    """One reply on its way to a client. Once the client is ``gone`` nothing more is sent."""

    gone = False
    _flushed = False
    _cut = b""
    _head: tuple[int, bytes, int | None] | None = None
    _remaining: int | None = None

    def __init__(self, client: Client, call: Call, request_id: str) -> None:
        self.client = client
        self._call = call
        self._request_id = request_id
        self._held: list[bytes] = []
        self._end_markers = call.endpoint.dialect.end_markers(call.endpoint.kind)

    def begin(self, status: int, headers: bytes, length: int | None, remaining: int | None) -> None:
        """The head, and what is left of the allowance, if that has a part in it.

        It leaves with the first bytes of the body, so that a plain reply's tells what is left after it.
        """
        self._head = (status, headers, length)
        self._remaining = remaining

    def settled(self, unused: int) -> None:
        """The call is settled, and so many of the tokens held for it were not used."""
        if self._remaining is not None:
            self._remaining = max(0, self._remaining + unused)

    def pass_on(self, pieces: list[bytes]) -> None:
        """Some of the body, and more to come. What the client would take for the end is held back for now."""
        if self._mark_end(pieces):
            if self._held:
                self._write_held()
                self._flush()
            self._held = pieces
        elif self._held:
            self._pass_after_end(pieces)
        elif self._head is not None:
            self._held = pieces
            self._write_held()
            self._flush()
        else:
            self.client.write(pieces)
            self.client.flush()

    def _mark_end(self, pieces: list[bytes]) -> bool:
        """Whether a marker is in these pieces, or becomes whole with them."""
        for piece in pieces:
            data = self._cut + piece if self._cut else piece
            for marker in self._end_markers:
                if marker in data:
                    self._cut = b""
                    return True
            # No marker has a line feed, with which nearly every piece ends: only another may end inside a marker.
            self._cut = b"" if data.endswith(b"\n") else data[1 - max(map(len, self._end_markers)) :]
        return False

    def _pass_after_end(self, pieces: list[bytes]) -> None:
        """More after a marker: of its own event the last is held back, with the line ends that complete it.

        If another event begins, it was no end, or not the last: all of it passes.
        """
        more, held = b"".join(pieces), self._held
        if not more.strip() and len(held) + len(more) < _MOST_BLANK:
            held += pieces
            return
        if held[-1].endswith(b"\n"):
            held += pieces
            pieces = []
        self._write_held()
        self._flush()
        self._held = pieces

    def hold(self, pieces: list[bytes]) -> None:
        """The last of the body: it waits for the settlement."""
        self._held += pieces

    def end(self) -> None:
        """The reply is whole and settled."""
        if not self.gone:
            self._write_held()
            self.client.end()

    def break_off(self, error: OwnkeyError, in_events: bool, admission: Admission | None) -> None:
        """The reply breaks off: an error instead of it if nothing was sent, else one more event and no clean end."""
        if not self._flushed:
            self.refuse(error, admission)
        elif not self.gone:
            self._write_held()
            if in_events:
                dialect = self._call.endpoint.dialect
                self.client.write([dialect.event_gap + dialect.error_event(error, self._request_id)])
            self.client.flush()
            self.client.abort()

    def refuse(self, error: OwnkeyError, admission: Admission | None = None) -> None:
        """An error of ours, in the shape of the call's dialect; says who would have paid if that was decided."""
        if self.gone:
            return
        if admission is not None:
            error.headers.setdefault("x-ownkey-billed-to", admission.billed_to)
        self._head = None
        body = self._call.endpoint.dialect.error_body(error, self._request_id)
        self.client.begin(error.status, header_rules.error_block(error, self._request_id), len(body))
        self.client.write([body])
        self.client.end()

    def abort(self) -> None:
        """Hang up."""
        self.client.abort()

    def _flush(self) -> None:
        self.client.flush()
        self._flushed = True

    def _write_held(self) -> None:
        if self._head is not None:
            status, headers, length = self._head
            self._head = None
            if self._remaining is not None:
                headers += b"x-ownkey-allowance-remaining: %d\r\n" % self._remaining
            self.client.begin(status, headers, length)
        held, self._held = self._held, []
        self.client.write(held)
