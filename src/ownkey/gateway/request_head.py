"""A request's head: where the request goes, who asks, and where it ends. Read strictly: what two readers could take
for different things is refused, before anything is done with it.

httptools refuses most of it already: two lengths, a length beside chunks, folded lines, control characters, line ends
that are not CRLF. Here stands what it lets through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

import httptools

from ownkey.credentials import token_hash
from ownkey.errors import InvalidRequest, NotAuthenticated, OwnkeyError
from ownkey.gateway.call import Head, read_head
from ownkey.metering.reservations import Caller
from ownkey.providers.provider import Provider

Fields = Sequence[tuple[bytes, bytes]]

_DECIDING = frozenset((b"connection", b"content-length", b"host", b"transfer-encoding"))
_USUAL_CONNECTION = (b"keep-alive", b"close")
# A name or an address, perhaps with a port (RFC 9110, 4.1); nothing that could begin a path, a query or a login.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# Never TRACE, whose reply repeats the request, the provider's credential in it.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(?=[0-9]+\r)", re.IGNORECASE)
_LONGEST_LENGTH = 10
_TOKEN_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")


class Verbatim(NamedTuple):
    """The bytes of a head, but for the number that says how long its body is."""

    before: bytes
    after: bytes

    def body_in(self, data: bytes) -> bytes | None:
        """The body of a request that is all of ``data``, if its head has just these bytes; else None.

        What was parsed once is parsed the same again: only the length, which may be another, has to be read.
        """
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r", start, start + _LONGEST_LENGTH)
        if end < 0 or not data.startswith(self.after, end):
            return None
        length, begins = data[start:end], end + len(self.after)
        if not length.isdigit() or len(data) != begins + int(length):
            return None
        return data[begins:]


@dataclass(slots=True)
class RequestHead:
    """What a head says. A client sends the same again and again on its connection, so the last one is kept there.

    ``fields`` have their names in lower case, without the length of the body, which is the request's own; ``headers``
    are those without what ``Connection`` names, which is for this hop only. Without a ``provider`` it is for the
    pages. ``refusal`` is what is wrong with a request for the gateway, to be said when its turn has come; otherwise
    ``call`` and ``caller`` are there. ``verbatim`` is there if the next one may be known by its bytes alone.
    """

    method: bytes
    version: str
    target: bytes
    fields: Fields
    headers: Fields
    keep_alive: bool
    upgrade: bool
    expects_continue: bool
    provider: Provider | None = None
    path: str = ""
    call: Head | None = None
    caller: Caller | None = None
    refusal: OwnkeyError | None = None
    verbatim: Verbatim | None = None


def read_request_head(
    parser: httptools.HttpRequestParser, target: bytes, fields: Fields, by_segment: Mapping[bytes, Provider]
) -> RequestHead:
    """Read a whole head. Raises ``InvalidRequest`` if nobody can tell where the request goes or where it ends."""
    version, method = parser.get_http_version(), parser.get_method()
    if method == b"CONNECT":  # what follows it would be a tunnel's, no body
        raise InvalidRequest("This server is no proxy: CONNECT is not supported.")
    head = RequestHead(
        method,
        version,
        target,
        fields,
        _checked(version, target, fields),
        keep_alive=parser.should_keep_alive() and version == "1.1",
        upgrade=parser.should_upgrade(),
        expects_continue=any(name == b"expect" and value.lower() == b"100-continue" for name, value in fields),
    )
    path, _, query = target.partition(b"?")
    segment, slash, _ = path[1:].partition(b"/")
    provider = by_segment.get(segment) if slash else None
    if provider is not None:
        head.provider, head.path = provider, path[1 + len(segment) :].decode("ascii")
        try:
            _read_call(head, provider, query)
        except OwnkeyError as error:
            head.refusal = error.with_traceback(None)  # which would keep everything that was read
    return head


def verbatim(head: RequestHead, data: bytes) -> Verbatim | None:
    """The bytes of a head at the beginning of ``data``, if a request that repeats them needs no reading of its own.

    That is one for the gateway, whose body has a length, and whose connection goes on with nothing to be said before.
    """
    end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    lines = data[:end]
    lengths = _LENGTH.findall(lines)
    # Its lines are those that the parser saw: the first, the fields and the length, and the blank one.
    seen = len(head.fields) + 3
    if len(lengths) != 1 or lines.count(b"\n") != seen or lines.count(b"\r") != seen:
        return None
    if not lines.startswith(b"%b %b HTTP/" % (head.method, head.target)):
        return None
    if head.call is None or not head.keep_alive or head.expects_continue or head.upgrade:
        return None
    before, _, after = lines.partition(lengths[0])
    digits = len(after) - len(after.lstrip(b"0123456789"))
    return Verbatim(before + lengths[0], after[digits:])


def _read_call(head: RequestHead, provider: Provider, query: bytes) -> None:
    method = head.method.decode("ascii")
    if method not in _METHODS:
        raise InvalidRequest(f"{method} is no method of a provider's API.")
    # A browser says what it asks for: a page, a frame, a script, a worker; "empty" if a program in it fetches.
    if any(name == b"sec-fetch-dest" and value != b"empty" for name, value in head.fields):
        raise InvalidRequest("A browser cannot show or run what is behind this address. Ask for it from a program.")
    token, query = find_token(head.headers, query)
    head.caller = Caller(token_hash=token_hash(token))
    head.call = read_head(provider, method, head.path, query.decode("latin-1"), head.headers)
    if head.call.endpoint.refused:
        raise InvalidRequest("Realtime and WebSocket connections are not supported. Use the HTTP API.")


def _checked(version: str, target: bytes, fields: Fields) -> Fields:
    """The fields that are not for this hop only."""
    hosts = 0
    named: list[bytes] = []
    for name, value in fields:
        if name not in _DECIDING:
            continue
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise InvalidRequest("The Host header is not the name of a host.")
        elif name == b"connection":
            if value.lower() not in _USUAL_CONNECTION:
                named += value.lower().split(b",")
        elif value.strip().lower() != b"chunked" or version == "1.0":
            raise InvalidRequest("The only Transfer-Encoding understood is 'chunked', in HTTP/1.1.")
    if version not in ("1.1", "1.0"):
        raise InvalidRequest("This server speaks HTTP/1.1.")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise InvalidRequest("The request must have one Host header.")
    if target[:1] != b"/" or b"#" in target or not target.isascii():
        raise InvalidRequest("The target of the request must be a path: '/', then ASCII without '#'.")
    if not named:
        return fields
    hop = {name.strip() for name in named} - _DECIDING - {b"upgrade"}
    return [field for field in fields if field[0] not in hop]


@lru_cache(1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip()) is not None


def find_token(fields: Fields, query: bytes) -> tuple[str, bytes]:
    """The API token, from whichever place this SDK sends its key; and the query without ``key``.

    Raises ``NotAuthenticated`` if there is none and ``InvalidRequest`` if there are two different ones.
    """
    found: set[str] = set()
    for name, value in fields:
        if name in _TOKEN_HEADERS:
            found.add(value.strip().decode("latin-1"))
        elif name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() != b"bearer":
                raise NotAuthenticated("Send the API token as 'Authorization: Bearer ownkey_…'.")
            found.add(token.strip().decode("latin-1"))
    if b"key" in query or b"%" in query:
        kept = []
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if unquote_plus(name.decode("latin-1")) == "key":
                found.add(unquote_plus(value.decode("latin-1")))
            else:
                kept.append(part)
        query = b"&".join(kept)
    found.discard("")
    if len(found) > 1:
        raise InvalidRequest("The request carries two different API tokens. Send one.")
    if not found:
        raise NotAuthenticated
    return found.pop(), query
