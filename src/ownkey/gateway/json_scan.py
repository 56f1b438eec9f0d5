"""Read a few things out of a JSON document as its bytes pass, however large it is and wherever it is cut.

A reply with images or embeddings can have a hundred megabytes, and usage stands at its end. This scanner holds
only a few bytes: it follows strings, braces and brackets, keeps the members it was asked for, and adds up the
text that a model wrote. It does not check that the document is valid.
"""

from __future__ import annotations

import re

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises for bytes that are none: bad syntax, bad UTF-8 in a string, or nested too deeply."""

_STRUCTURE = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _COLON, _OPEN_OBJECT, _OPEN_ARRAY = b'":{['
_WHITE_SPACE = b" \t\r\n"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_:;,"  # and what begins a data URL

_LONGEST_NAME = 64
_LARGEST_MEMBER = 65_536
_DEEPEST = 100
_DEEPEST_WANTED = 4
_LONGEST_WORD = 4_096

TEXT_MEMBERS = frozenset(
    b"text content value arguments input thinking reasoning reasoning_content partial_json refusal completion code "
    b"transcript generated_text response delta tool_plan generation outputText".split()
)
"""Members whose string value is text that a model wrote, in any of the formats."""

ARGUMENT_MEMBERS = frozenset((b"input", b"args", b"arguments", b"partialArgs"))
"""Members whose value, when it is an object or array, a model wrote as it stands there: what it calls a tool with."""


class JsonScan:
    """One pass over a JSON document, an array of documents, or several in a row.

    ``wanted`` are paths of member names from the top of a document; their values, when they are objects, can be
    taken with ``members()``. ``text_bytes`` is the length, as it stands in the JSON, of what a model wrote: all
    strings under a name of ``TEXT_MEMBERS``, all that is under one of ``ARGUMENT_MEMBERS``.

    ``encoded_strings`` and ``encoded_bytes`` are the values, longer than any word, that are pictures or sounds in
    base64; only with ``finds_encoded``, because each value is looked at for it.
    """

    def __init__(self, wanted: tuple[tuple[str, ...], ...] = (), *, finds_encoded: bool = False) -> None:
        self.text_bytes = 0
        self.encoded_strings = self.encoded_bytes = 0
        self._finds_encoded = finds_encoded
        self._word = 0  # length of the value being read, as long as it may be base64; -1: it is not
        self._wanted = {tuple(name.encode() for name in path) for path in wanted}
        # For every open object the member being read, for every open array None; beyond _DEEPEST only a number.
        self._open: list[bytes | None] = []
        self._too_deep = 0
        # Where we are: inside a string, after a backslash in it, after a member's name, after its colon.
        self._in_string = self._escaped = self._after_name = self._after_colon = False
        self._name: bytes | None = None  # the name being read; None if the string is a value
        self._is_text = False
        self._arguments_depth = 0  # of the arguments being read; 0 if none are
        # The wanted member being kept.
        self._kept: bytearray | None = None
        self._kept_path: tuple[bytes, ...] = ()
        self._kept_depth = 0
        self._members: list[bytes] = []

    def take(self, data: bytes) -> None:
        """Read the next bytes."""
        at, kept_from, arguments_from = 0, 0, 0
        while at < len(data):
            if self._in_string:
                at = self._through_string(data, at)
            elif self._after_name or self._after_colon:
                at = self._towards_value(data, at)
            elif match := _STRUCTURE.search(data, at):
                at = match.end()
                sign = data[at - 1]
                if sign == _QUOTE:
                    self._begin_string()
                elif sign in (_OPEN_OBJECT, _OPEN_ARRAY):
                    if self._begins_arguments():
                        arguments_from = at
                    if self._enter(sign):
                        kept_from = at - 1
                elif self._leave():
                    self._finish_member(data[kept_from:at])
                if self._arguments_depth > len(self._open):
                    self.text_bytes += at - 1 - arguments_from
                    self._arguments_depth = 0
            else:
                break
        if self._arguments_depth:
            self.text_bytes += len(data) - arguments_from
        if self._kept is not None:
            self._kept += data[kept_from:]
            if len(self._kept) > _LARGEST_MEMBER:
                self._kept = None

    def members(self) -> list[bytes]:
        """The wanted members completed since the last call, in order, each alone in a document of its own."""
        members, self._members = self._members, []
        return members

    def _begin_string(self) -> None:
        """In an object a string is a value only after a colon; ``_towards_value`` has begun those."""
        self._in_string = True
        self._name = b"" if self._open and self._open[-1] is not None and not self._too_deep else None
        self._is_text = False

    def _through_string(self, data: bytes, at: int) -> int:
        """Read to the end of the string, or of the data; return where that is."""
        match = None if self._escaped else _IN_STRING.match(data, at)
        stop = at + 1 if match is None else match.end()
        more = match is not None and stop < len(data)  # at the closing quote, or at a backslash that ends the data
        ended = more and data[stop] == _QUOTE
        self._escaped = more and not ended
        stop += self._escaped
        if self._is_text:
            self.text_bytes += stop - at
        if self._finds_encoded and self._name is None:
            self._read_word(data[at:stop], ended)
        if self._name is not None:
            self._name = (self._name + data[at:stop])[:_LONGEST_NAME]
        if ended:
            self._in_string = False
            self._after_name = self._name is not None
        return stop + ended

    def _read_word(self, piece: bytes, ended: bool) -> None:
        """Some of a value: count it as soon as it is too long for a word, and no more once it is not base64."""
        counted = self._word if self._word > _LONGEST_WORD else 0
        if self._word >= 0:
            self._word = -1 if piece.translate(None, _BASE64) else self._word + len(piece)
        if self._word > _LONGEST_WORD:
            self.encoded_bytes += self._word - counted
            self.encoded_strings += not counted
        elif counted:
            self.encoded_bytes -= counted
            self.encoded_strings -= 1
        if ended:
            self._word = 0

    def _towards_value(self, data: bytes, at: int) -> int:
        """From the end of a member's name over the colon to the beginning of its value."""
        while at < len(data) and data[at] in _WHITE_SPACE:
            at += 1
        if at == len(data):
            return at
        if self._after_name:
            self._after_name, self._after_colon = False, data[at] == _COLON
            if self._after_colon:
                self._open[-1] = self._name
            return at + self._after_colon
        self._after_colon = False
        if data[at] == _QUOTE:
            self._in_string, self._name = True, None
            self._is_text = self._open[-1] in TEXT_MEMBERS and not self._arguments_depth
            return at + 1
        return at

    def _begins_arguments(self) -> bool:
        """Whether the object or array that begins here is the arguments of a tool call."""
        if self._arguments_depth or not self._open or self._open[-1] not in ARGUMENT_MEMBERS or self._too_deep:
            return False
        self._arguments_depth = len(self._open) + 1
        return True

    def _enter(self, sign: int) -> bool:
        """Go into an object or array; True if this is the beginning of a wanted member."""
        if len(self._open) == _DEEPEST:
            self._too_deep += 1
            return False
        depth = len(self._open)
        self._open.append(b"" if sign == _OPEN_OBJECT else None)
        if self._kept is not None or sign != _OPEN_OBJECT or depth > _DEEPEST_WANTED:
            return False
        path = tuple(self._open[self._open[0] is None : depth])  # a document may be an element of an array
        if path not in self._wanted:
            return False
        self._kept, self._kept_depth = bytearray(), len(self._open)
        self._kept_path = tuple(name for name in path if name is not None)
        return True

    def _leave(self) -> bool:
        """Leave an object or array; True if it was a wanted member."""
        if self._too_deep:
            self._too_deep -= 1
            return False
        if self._open:
            self._open.pop()
        return self._kept is not None and len(self._open) < self._kept_depth

    def _finish_member(self, rest: bytes) -> None:
        kept, self._kept = bytes(self._kept or b"") + rest, None
        for name in reversed(self._kept_path):
            kept = b'{"' + name + b'":' + kept + b"}"
        self._members.append(kept)


def text_bytes(document: bytes) -> int:
    """Length of the text that a model wrote in a JSON document; the document may be cut off anywhere."""
    scan = JsonScan()
    scan.take(document)
    return scan.text_bytes
