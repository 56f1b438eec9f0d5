"""What the kernel knows of a connection before the event loop has got round to it."""

from __future__ import annotations

import asyncio
import select


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has closed the connection, or its half of it."""
    return _is_ready(transport, select.POLLRDHUP)


def has_news(transport: asyncio.BaseTransport) -> bool:
    """Whether anything waits to be read, the end of the connection included."""
    return _is_ready(transport, select.POLLIN | select.POLLRDHUP)


def _is_ready(transport: asyncio.BaseTransport, events: int) -> bool:
    socket = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(socket.fileno(), events)
    return bool(poll.poll(0))
