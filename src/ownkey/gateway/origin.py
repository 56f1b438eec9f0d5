"""Origin: where a provider's connections go, and those that are idle there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ownkey.providers.addresses import Guard

if TYPE_CHECKING:
    from ownkey.gateway.upstream import Connection


class Origin:
    """Scheme, host and port of a provider, with the connections that are idle there.

    The ``guard`` of an address that an organization gave resolves its name for each connection.
    """

    __slots__ = ("__weakref__", "guard", "host", "host_line", "idle", "port", "prefix", "tls")

    def __init__(self, url: str, guard: Guard | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an address such as https://host")
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/").encode("ascii")
        self.host_line = f"host: {parts.netloc.rpartition('@')[2]}\r\n".encode("ascii")
        self.guard = guard
        self.idle: list[Connection] = []
