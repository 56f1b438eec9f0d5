"""What of a request's head says where it goes and where it ends. Read strictly: what two readers could take for
different things is refused, before anything is done with it.

httptools refuses most of it already: two lengths, a length beside chunks, folded lines, control characters, line ends
that are not CRLF. Here stands what it lets through.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ownkey.errors import InvalidRequest

_DECIDING = frozenset((b"connection", b"content-length", b"host", b"transfer-encoding"))
_USUAL_CONNECTION = (b"keep-alive", b"close")
# A name or an address, perhaps with a port (RFC 9110, 4.1); nothing that could begin a path, a query or a login.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def check_head(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> int | None:
    """The announced length of the body; None if it comes in chunks or there is none.

    ``headers`` have their names in lower case; those that ``Connection`` names are for this hop only and are taken
    out. Raises ``InvalidRequest``.
    """
    hosts, length, chunked = 0, None, False
    named: list[bytes] = []
    for name, value in headers:
        if name not in _DECIDING:
            continue
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise InvalidRequest("The Host header is not the name of a host.")
        elif name == b"content-length":
            length = int(value)
        elif name == b"connection":
            if value.lower() not in _USUAL_CONNECTION:
                named += value.lower().split(b",")
        elif value.strip().lower() != b"chunked" or version == "1.0":
            raise InvalidRequest("The only Transfer-Encoding understood is 'chunked', in HTTP/1.1.")
        else:
            chunked = True
    if version not in ("1.1", "1.0"):
        raise InvalidRequest("This server speaks HTTP/1.1.")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise InvalidRequest("The request must have one Host header.")
    if target[:1] != b"/" or b"#" in target or not target.isascii():
        raise InvalidRequest("The target of the request must be a path: '/', then ASCII without '#'.")
    if named:
        hop = {name.strip() for name in named} - _DECIDING - {b"upgrade"}
        headers[:] = [field for field in headers if field[0] not in hop]
    return None if chunked else length


@lru_cache(1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None
