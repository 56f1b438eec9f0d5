"""A client in memory: what it was told, and whether it took the reply for whole."""

from __future__ import annotations

from collections.abc import Callable

from ownkey.gateway.exchange import Exchange


class MemoryClient:
    """One request's client; ``told`` is called when the reply has ended as a whole one."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self.status = 0
        self.headers = b""
        self.body: list[bytes] = []
        self.ended = False
        self.aborted = False
        self.left = False

    def attend(self, exchange: Exchange) -> None:
        """A second attempt serves the request: in this world nobody chooses one."""

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head."""
        assert not self.status, "a second head"
        self.status = status
        self.headers = headers

    def write(self, pieces: list[bytes]) -> None:
        """Some of the body."""
        assert not self.ended, "bytes after the end"
        self.body += pieces

    def flush(self) -> None:
        """Sent as it is written."""

    def end(self) -> None:
        """The reply is whole."""
        assert not self.ended, "a second end"
        self.ended = True
        self._told()

    def abort(self) -> None:
        """The reply breaks off."""
        self.aborted = True

    @property
    def answered(self) -> bool:
        """Whether it waits for nothing more."""
        return self.ended or self.aborted or self.left
