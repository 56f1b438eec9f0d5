"""The fence around the tests holds: no test leaves this machine."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from tests.fixtures.network import OutsideWorld

pytestmark = pytest.mark.anyio
SOMEWHERE = "192.0.2.1"  # RFC 5737: an address that is nobody's


def test_a_socket_stays_here() -> None:
    """A plain socket may not connect to another machine."""
    with socket.socket() as outgoing, pytest.raises(OutsideWorld):
        outgoing.connect((SOMEWHERE, 443))


async def test_the_loop_stays_here() -> None:
    """uvloop, which the relay uses without Python's sockets, may not either."""
    with pytest.raises(OutsideWorld):
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, SOMEWHERE, 443)


async def test_names_are_not_looked_up() -> None:
    """A client that goes by name is stopped before it asks a name server."""
    async with httpx.AsyncClient() as client:
        with pytest.raises(OutsideWorld):
            await client.get("https://provider.example/")


async def test_this_machine_is_reached() -> None:
    """The loopback is open, by address and by name."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            _, writer = await asyncio.open_connection(host, port, family=socket.AF_INET)
            writer.close()
            await writer.wait_closed()
