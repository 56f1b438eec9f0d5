"""A provider's error: gathered before anybody sees any of it, because it may repeat the key and decides what follows.

A redirect is one, too: nobody follows it, so nothing was made. The status has come with the head and means what it
says, whether the body comes whole, breaks off or stalls; all of it has as long as a silence may last.
"""

from __future__ import annotations

from ownkey.gateway.inflate import Headers, readable
from ownkey.gateway.routing import Route
from ownkey.providers.redaction import redact

_LONGEST = 1 << 20


class ErrorReply:
    """The head of an error, and what has come of its body."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self._body = bytearray()

    def add(self, pieces: list[bytes]) -> bool:
        """The next pieces of the body; returns whether they are enough: what follows them is nobody's business."""
        for piece in pieces:
            self._body += piece
        return len(self._body) >= _LONGEST

    def read(self, route: Route, whole: bool) -> bytes:
        """What the client gets for a body: not compressed, which changes ``headers``, and without the key.

        Where it breaks off may be in the middle of a key, so nothing stays that may be the beginning of one.
        """
        body, self.headers = readable(bytes(self._body), self.headers, _LONGEST)
        if not whole:
            body = body[: len(body) - route.needles.begun(body)]
        return redact(body, *route.secrets)
