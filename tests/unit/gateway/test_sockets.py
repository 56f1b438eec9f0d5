"""The port: who may have it together, and what it is called; and what can be asked of a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from ownkey.gateway.sockets import address_of, has_hung_up, has_news, listen, reserve
from tests.fakes.certificates import Authority


def test_workers_of_another_installation_do_not_share_a_port() -> None:
    """Those of one reservation do; whoever reserves it while they listen is refused."""
    with reserve("127.0.0.1", 0) as ours:
        host, port = ours.getsockname()
        with listen(host, port, reuse_port=True), listen(host, port, reuse_port=True):
            with pytest.raises(OSError, match="in use"):
                reserve(host, port)
            with pytest.raises(OSError, match="in use"):
                listen(host, port)


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_can_be_had_again_at_once(shared: bool) -> None:
    """Connections that we have closed and the kernel remembers keep nobody from it, alone or with others."""
    with listen("127.0.0.1", 0, reuse_port=shared) as listening:
        host, port = listening.getsockname()
        with socket.create_connection((host, port)) as client:
            listening.accept()[0].close()
            assert client.recv(1) == b""
    reserve(host, port).close()
    listen(host, port).close()


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_an_address_can_be_opened(host: str, shown: str) -> None:
    """It has the port that was taken, and an IPv6 host its brackets."""
    if ":" in host and not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    with listen(host, 0) as listening:
        assert address_of(listening) == f"{shown}{listening.getsockname()[1]}"
        assert listening.getsockname()[1] > 0


@pytest.mark.anyio
async def test_an_encrypted_connection_that_is_lost_is_not_taken_for_an_open_one(tmp_path: Path) -> None:
    """It has no socket to be asked any more, before its user has been told."""
    authority, lost = Authority(tmp_path), asyncio.Event()

    class Client(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            lost.set()

    loop = asyncio.get_running_loop()
    async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=authority.context("127.0.0.1")) as server:
        transport, _ = await loop.create_connection(
            Client, *server.sockets[0].getsockname(), ssl=ssl.create_default_context(cafile=authority.file)
        )
        assert not has_hung_up(transport)
        transport.abort()
        await lost.wait()
    assert has_hung_up(transport)
    assert has_news(transport)
