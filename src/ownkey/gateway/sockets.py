"""The socket we listen on; what the kernel knows of a connection before the event loop has got round to it."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import sys
import termios


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ``OSError`` if the address is taken."""
    listening = _bound(host, port, reuse_port=reuse_port)
    listening.listen(2048)
    return listening


def reserve(host: str, port: int) -> socket.socket:
    """A port for several processes that listen with ``reuse_port``: the kernel gives connections only to them.

    Raises ``OSError`` if it is taken, also by somebody who would share it.
    """
    _bound(host, port, reuse_port=False).close()
    return _bound(host, port, reuse_port=True)


def address_of(listening: socket.socket) -> str:
    """Where it listens, as an address to open."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has closed the connection, or its half of it."""
    return _is_ready(transport, select.POLLRDHUP)


def has_news(transport: asyncio.BaseTransport) -> bool:
    """Whether anything waits to be read, the end of the connection included."""
    return _is_ready(transport, select.POLLIN | select.POLLRDHUP)


def unsent(transport: asyncio.WriteTransport) -> int:
    """Bytes written to a connection that have not reached the other side: those that wait here, and in the kernel.

    Ours alone would say that a slow reader stands still: the kernel takes more only when much of its room is free.
    """
    kernels = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(kernels, sys.byteorder)


def _is_ready(transport: asyncio.BaseTransport, events: int) -> bool:
    sock = transport.get_extra_info("socket")
    if sock is None:  # TLS lets go of it a turn of the loop before its protocol hears that the connection is lost
        return True
    poll = select.poll()
    poll.register(sock.fileno(), events)
    return bool(poll.poll(0))
