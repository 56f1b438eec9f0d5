"""A connection between a node and a provider, in memory: bytes in order, late, broken off or never answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.clock import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.provider import Provider

# A file descriptor on which nothing ever happens, for the look at a connection that was idle for long.
_QUIET = os.eventfd(0)


class _QuietSocket:
    def fileno(self) -> int:
        return _QUIET


class Wire(asyncio.Transport):
    """The node's end, and what the provider does with it. Everything arrives on the loop of the one it is for."""

    def __init__(self, loop: VirtualLoop, protocol: asyncio.Protocol, provider: Provider, host: str) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._provider = provider
        self._last = 0.0
        self.host = host
        self.closed = False

    # The node's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """A whole request."""
        if not self.closed:
            self._provider.receive(self, bytes(data), self._loop.time())

    def is_closing(self) -> bool:
        """Whether one of both has closed it."""
        return self.closed

    def get_write_buffer_size(self) -> int:
        """What is written has been sent."""
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The socket, which has no news."""
        return _QuietSocket() if name == "socket" else default

    def resume_reading(self) -> None:
        """It never stops."""

    def abort(self) -> None:
        """Closed by the node."""
        if not self.closed:
            self.closed = True
            self._provider.hung_up(self)
            self._loop.call_soon(self._protocol.connection_lost, None)

    # The provider's side

    def deliver(self, data: bytes, delay: float, then: Callable[[], None] | None = None) -> None:
        """Bytes for the node, after those before; ``then`` is called when it has read them."""
        self._later(delay, self._arrive, data, then)

    def break_off(self, delay: float) -> None:
        """The connection is lost."""
        self._later(delay, self._lose)

    def _later(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self._last = max(self._last + 1e-6, self._provider.clock.now + delay)
        self._loop.call_at(self._last, call, *arguments)

    def _arrive(self, data: bytes, then: Callable[[], None] | None) -> None:
        if not self.closed:
            if then is not None:
                then()
            self._protocol.data_received(data)

    def _lose(self) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(ConnectionResetError("reset"))
