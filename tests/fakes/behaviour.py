"""How the fake provider behaves, for every request, for the next ones, or for one request by markers in its text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import unquote_to_bytes

_MARKER = re.compile(rb"\[\[([a-z_]+)((?::[^\]:]*)*)\]\]")

MALFORMED = (
    "chunk_size",  # a chunk size that is no number
    "chunk_end",  # a chunk not followed by CRLF
    "chunk_missing",  # the connection ends without the last chunk
    "length_long",  # content-length says more than comes
    "length_short",  # content-length says less than comes
    "two_lengths",  # two different content-length fields
    "length_and_chunked",  # both content-length and transfer-encoding
    "garbage",  # bytes that are no HTTP
    "header_nul",  # a NUL inside a header
    "header_endless",  # a head of a megabyte
    "not_json",  # a 200 whose body is no JSON
    "half_json",  # a 200 whose JSON is broken off, in a complete HTTP reply
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Everything a test may ask of one reply; the default is an honest, fast one of ten tokens."""

    # What is said
    tokens: int = 10
    """Output tokens; each is four bytes of text in a delta of its own."""
    text: str | None = None
    """Say this instead: a token is up to four characters and the white space after them."""
    reasoning: int = 0
    """Tokens thought before speaking; Anthropic and Gemini show them, OpenAI only counts them."""
    cached: int = 0
    """Input tokens reported as read from a cache (part of the input, however the dialect counts)."""
    tool: bool = False
    """Call the first tool of the request. It is also called if ``tool_choice`` forces one."""
    overrun: float = 1.0
    """Exceed the request's output limit by this factor."""
    usage: str = "normal"
    """``normal``, ``missing``, ``zero``, ``null``, ``every`` (in each chunk, growing), ``duplicate`` (twice the same),
    ``decreasing`` (a figure 100 too high, then the true one)."""
    unasked_usage: bool = False
    """An OpenAI chat stream reports usage even if it was not asked to."""

    # When
    delay: float = 0.0
    """Seconds before the first byte; ``inf`` for ever."""
    pause: float = 0.0
    """Seconds before each piece after the first."""
    drip: float | None = None
    """Send single bytes with this many seconds between."""
    stall: float | None = None
    """Fall silent for so many seconds (``inf`` for ever) after ``stall_after`` tokens."""
    stall_after: int = 1
    """See ``stall``; 0 is after the head of the reply."""

    # How it ends
    cut: int | None = None
    """Break the connection after so many tokens; 0 is after the head."""
    cut_how: str = "fin"
    """``fin`` or ``rst``; also for ``no_reply``."""
    no_reply: bool = False
    """Close the connection instead of answering."""
    error_after: int | None = None
    """After so many tokens send the dialect's error event and end the HTTP reply cleanly."""
    no_end: bool = False
    """End the HTTP reply cleanly, but without the dialect's end marker and usage."""
    hang_up: bool = False
    """Close the connection after the reply without saying so in it."""

    # What kind of reply
    status: int = 200
    """Anything else is an error in the dialect's shape, unless ``body`` is given."""
    retry_after: str | None = None
    body: bytes | None = None
    """Send exactly this body with ``status`` and ``headers``; nothing is generated."""
    headers: tuple[tuple[str, str], ...] = ()
    """More headers; a ``content-type`` replaces the usual one."""
    echo: bool = False
    """Answer 401 with the credential headers of the request inside the error's message and a header."""
    malformed: str = ""
    """One of ``MALFORMED``."""
    gzip: bool = False
    """Compress the body whatever the request accepts."""
    framing: str = "auto"
    """``length``, ``chunked`` or ``close`` (no length, the end of the connection ends the body)."""
    line_end: str = ""
    """``lf``, ``crlf`` or ``cr`` in streams; the dialect's own if empty (Gemini: CRLF, others: LF)."""
    comments: bool = False
    """A comment line before each event of a stream."""
    early: bool = False
    """Answer as soon as the head of the request is there, not waiting for its body."""


def _seconds(text: str) -> float:
    return math.inf if text in ("", "inf") else float(text)


def _stall(tokens: str = "0", seconds: str = "inf") -> dict[str, Any]:
    return {"stall_after": int(tokens), "stall": _seconds(seconds)}


def _cut(tokens: str = "0", how: str = "fin") -> dict[str, Any]:
    return {"cut": int(tokens), "cut_how": how}


def _no_reply(how: str = "fin") -> dict[str, Any]:
    return {"no_reply": True, "cut_how": how}


def _status(status: str, retry_after: str | None = None) -> dict[str, Any]:
    return {"status": int(status), "retry_after": retry_after}


_COMPOSED: Mapping[str, Callable[..., dict[str, Any]]] = {
    "stall": _stall,
    "cut": _cut,
    "no_reply": _no_reply,
    "status": _status,
}
_READERS: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": _seconds,
    "str": str,
    "bool": lambda text: text != "no",
    "int | None": int,
    "float | None": _seconds,
    "str | None": str,
}
_SIMPLE = {field.name: _READERS[str(field.type)] for field in fields(Behaviour) if str(field.type) in _READERS}


def marked(base: Behaviour, path: str, body: bytes) -> Behaviour:
    """The behaviour that markers in a request's path or body ask for, on top of ``base``.

    ``[[tokens:50]]``, ``[[pause:0.1]]``, ``[[usage:missing]]``, ``[[gzip]]`` and so on, by the name of the field;
    ``[[stall:3]]`` (silent for ever after three tokens) or ``[[stall:3:0.5]]`` (for half a second),
    ``[[cut:5]]`` or ``[[cut:5:rst]]``, ``[[no_reply]]`` or ``[[no_reply:rst]]``, ``[[status:429]]`` or
    ``[[status:429:7]]`` (with Retry-After). An unknown marker raises ``ValueError``: a test that misspells one
    must not pass.
    """
    text = unquote_to_bytes(path) + body
    if b"[[" not in text:
        return base
    changes: dict[str, Any] = {}
    for match in _MARKER.finditer(text):
        name, values = match[1].decode(), match[2].decode().split(":")[1:]
        if name in _COMPOSED:
            changes |= _COMPOSED[name](*values)
        elif name in _SIMPLE:
            changes[name] = _SIMPLE[name](values[0] if values else "")
        else:
            raise ValueError(f"There is no marker [[{name}]].")
    return replace(base, **changes)


def from_json(base: Behaviour, given: Mapping[str, Any]) -> Behaviour:
    """A behaviour as the control interface receives it: field names and JSON values, ``body`` as text."""
    changes = dict(given)
    if isinstance(changes.get("body"), str):
        changes["body"] = changes["body"].encode()
    if "headers" in changes:
        changes["headers"] = tuple((name, value) for name, value in changes["headers"])
    return replace(base, **changes)
