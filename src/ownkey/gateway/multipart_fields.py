"""Read the fields of a multipart form (audio to transcribe, images to edit) without copying its files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ownkey.errors import InvalidRequest

_LONGEST_FIELD = 1_048_576
_MOST_PARTS = 1_000


@dataclass(slots=True)
class Part:
    """One part of the form: its name, its media type if it is a file, and its length in bytes."""

    name: str
    content_type: str = ""
    is_file: bool = False
    length: int = 0
    value: bytes = b""


@dataclass(slots=True)
class _Reading:
    """Callbacks of the parser."""

    parts: list[Part] = field(default_factory=list)
    whole: bool = False
    header: bytes = b""
    content: bytes = b""
    disposition: bytes = b""
    media_type: bytes = b""

    def part_begin(self) -> None:
        self.disposition = self.media_type = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def header_end(self) -> None:
        name = self.header.lower()
        if name == b"content-disposition":
            if self.disposition:
                raise InvalidRequest("A part of the form has two Content-Disposition headers.")
            self.disposition = self.content
        elif name == b"content-type":
            self.media_type = self.content
        self.header = self.content = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        if b"name" not in options or b"name*" in self.disposition.lower():
            raise InvalidRequest("A part of the form has no plain name.")
        media_type = self.media_type.decode("latin-1").lower()
        self.parts.append(Part(options[b"name"].decode("utf-8", "replace"), media_type, b"filename" in options))
        if len(self.parts) > _MOST_PARTS:
            raise InvalidRequest("The form has too many parts.")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.length += end - start
        if not part.is_file and part.length <= _LONGEST_FIELD:
            part.value += data[start:end]

    def end(self) -> None:
        self.whole = True


_BOUNDARY = re.compile(rb"[\w'()+,./:=? -]{1,200}")


def read_form(content_type: str, body: bytes) -> list[Part]:
    """All parts of a form, in order. Raises ``InvalidRequest`` if the body is not a whole one."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The multipart form has no usable boundary.")
    reading = _Reading()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reading.part_begin,
            "on_header_field": reading.header_field,
            "on_header_value": reading.header_value,
            "on_header_end": reading.header_end,
            "on_headers_finished": reading.headers_finished,
            "on_part_data": reading.part_data,
            "on_end": reading.end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        raise InvalidRequest("The multipart form could not be read.") from None
    if not reading.whole:
        raise InvalidRequest("The multipart form is not complete.")
    return reading.parts


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
