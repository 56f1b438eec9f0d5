"""One request of our own to a provider or to Google's token service: for checking a key and for access tokens."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import certifi

from ownkey.providers.addresses import Guard

if TYPE_CHECKING:
    import httpx

_MOST_BYTES = 65_536


def tls_context() -> ssl.SSLContext:
    """Certificates are checked against the machine's store, else against Mozilla's list."""
    context = ssl.create_default_context()
    if not context.get_ca_certs():
        context.load_verify_locations(certifi.where())
    return context


@functools.cache
def _context_for(store: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """One for all requests while the store is the same: reading it holds up the whole process, in any thread."""
    return tls_context()


async def ask(
    method: str, url: str, headers: Mapping[str, str], content: bytes = b"", guard: Guard | None = None
) -> tuple[int, bytes]:
    """Status and the first 64 KiB of the answer.

    Redirects are not followed and proxies of the environment are ignored. With a ``guard`` the host is resolved and
    judged by it, and the connection made to what it found. No time limit; raises ``OSError`` for an address that is
    none or cannot be reached.
    """
    import httpx  # much memory, for what many processes never do

    try:
        return await _ask(method, url, headers, content, guard)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


async def _ask(
    method: str, url: str, headers: Mapping[str, str], content: bytes, guard: Guard | None
) -> tuple[int, bytes]:
    import httpx

    async with httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # noqa: S113 – the caller has it
        verify=_context_for(ssl.get_default_verify_paths()),
    ) as client:
        if guard is None:
            return await _send(client, client.build_request(method, url, headers=headers, content=content))
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        failure: Exception = OSError(f"{host} has no address")
        for ip in await guard.resolve(host, port):
            at = urlunsplit(parts._replace(netloc=f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"))
            request = client.build_request(
                method,
                at,
                headers={**headers, "host": parts.netloc},
                content=content,
                extensions={"sni_hostname": host},  # and the name that the certificate must have
            )
            try:
                return await _send(client, request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> tuple[int, bytes]:
    reply = await client.send(request, stream=True)
    try:
        body = b""
        async for piece in reply.aiter_raw():
            body += piece
            if len(body) >= _MOST_BYTES:
                break
        return reply.status_code, body[:_MOST_BYTES]
    finally:
        await reply.aclose()
