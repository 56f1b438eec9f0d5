"""The socket we listen on; what the kernel knows of a connection before the event loop has got round to it."""

from __future__ import annotations

import asyncio
import select
import socket


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ``OSError`` if the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind((host, port))
    listening.listen(2048)
    return listening


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has closed the connection, or its half of it."""
    return _is_ready(transport, select.POLLRDHUP)


def has_news(transport: asyncio.BaseTransport) -> bool:
    """Whether anything waits to be read, the end of the connection included."""
    return _is_ready(transport, select.POLLIN | select.POLLRDHUP)


def _is_ready(transport: asyncio.BaseTransport, events: int) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), events)
    return bool(poll.poll(0))
