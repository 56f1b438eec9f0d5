"""Read the fields of a multipart form (audio to transcribe, images to edit) without copying its files.

Parts are found by searching for the boundary, so a form takes no longer than its bytes take to be looked at, whatever
they are. What another reader could take for the end of a part, or not, is refused (RFC 2046, 5.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from ownkey.errors import InvalidRequest

_LONGEST_FIELD = 1_048_576
MOST_PARTS = 1_000
_LARGEST_HEAD = 4_096
_MOST_OPTIONS = 16
_UNREADABLE = "The multipart form could not be read."
_NO_NAME = "A part of the form has no plain name."


@dataclass(slots=True)
class Part:
    """One part of the form: its name, its media type if it is a file, and its length in bytes."""

    name: str
    content_type: str = ""
    is_file: bool = False
    length: int = 0
    value: bytes = b""

    @property
    def names_a_file(self) -> bool:
        """Whether this is no file itself, but the address or the id of one that is kept elsewhere."""
        return not self.is_file and (self.name == "file_id" or _ADDRESS.match(self.value) is not None)


_ADDRESS = re.compile(rb"\s*[A-Za-z0-9+.-]{1,16}://")
_BOUNDARY = re.compile(rb"[\w'()+,./:=? -]{1,200}")
_BEGINS = re.compile(rb"[\r\n]*+")
_HEADER = re.compile(rb"([\w!#$%&'*+.^`|~-]+):[ \t]*([^\r\n\0]*)")


def read_form(content_type: str, body: bytes) -> list[Part]:
    """All parts of a form, in order. Raises ``InvalidRequest`` if the body is not a whole one."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The multipart form has no usable boundary.")
    first = b"--" + boundary
    line = b"\r\n" + first
    parts: list[Part] = []
    begins = _BEGINS.match(body)
    if begins is None or not body.startswith(first, begins.end()):
        raise InvalidRequest(_UNREADABLE)
    at = begins.end() + len(first)
    while not body.startswith(b"--", at):
        part, start = _read_head(body, at)
        parts.append(part)
        if len(parts) > MOST_PARTS:
            raise InvalidRequest(f"The form has more than {MOST_PARTS:,} parts.")
        if body.startswith(first, start):
            raise InvalidRequest(_UNREADABLE)
        end = body.find(line, start)
        if end < 0:
            raise InvalidRequest("The multipart form is not complete.")
        part.length = end - start
        if not part.is_file:
            part.value = body[start : min(end, start + _LONGEST_FIELD)]
        at = end + len(line)
    if body[at + 2 : at + 3] not in (b"", b"\r", b"\n"):
        raise InvalidRequest(_UNREADABLE)
    return parts


def _read_head(body: bytes, at: int) -> tuple[Part, int]:
    """The part whose head follows a boundary that ends at ``at``, and where its content begins."""
    if not body.startswith(b"\r\n", at):  # a longer line, which may be another reader's boundary
        raise InvalidRequest(_UNREADABLE)
    end = body.find(b"\r\n\r\n", at, at + _LARGEST_HEAD)
    if end < 0:
        raise InvalidRequest(f"The head of a part of the form is not whole, or larger than {_LARGEST_HEAD:,} bytes.")
    if end == at:
        raise InvalidRequest(_NO_NAME)
    disposition = media_type = b""
    for line in body[at + 2 : end].split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        if header is None:
            raise InvalidRequest(_UNREADABLE)
        name = header[1].lower()
        if name == b"content-disposition":
            if disposition:
                raise InvalidRequest("A part of the form has two Content-Disposition headers.")
            disposition = header[2]
        elif name == b"content-type":
            media_type = header[2]
    return _part(disposition, media_type.decode("latin-1").lower()), end + 4


def _part(disposition: bytes, media_type: str) -> Part:
    # The time that reading the options takes grows with the square of their number.
    options = parse_options_header(disposition)[1] if disposition.count(b";") <= _MOST_OPTIONS else {}
    if b"name" not in options or b"name*" in disposition.lower():
        raise InvalidRequest(_NO_NAME)
    return Part(options[b"name"].decode("utf-8", "replace"), media_type, b"filename" in options)


def only_value(parts: list[Part], name: str) -> str | None:
    """The text of a field, None if it is not there. Raises ``InvalidRequest`` if it is there twice, or is a file."""
    found = [part for part in parts if part.name == name]
    if len(found) > 1:
        raise InvalidRequest(f"{name!r} is in the form more than once.", detail={"param": name})
    if not found:
        return None
    if found[0].is_file:
        raise InvalidRequest(f"{name!r} must be a plain field of the form.", detail={"param": name})
    return found[0].value.decode("utf-8", "replace")
