"""Keep a provider key out of a reply that repeats it: its text is overwritten while the reply passes.

Each character becomes a star, so that lengths, framing and JSON stay what they were. The end of a piece that may be
the beginning of a key waits for what follows. A reply in which no byte can be changed, because it is compressed or has
checksums, is stopped before the piece that would complete the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ownkey.credentials import Secret
from ownkey.gateway.inflate import Inflater, knows
from ownkey.providers.redaction import SHORTEST

# What of a key's end is searched for first: a search prepares for each byte of what it is for.
_PROBE = 32
# Compressed bytes that wait for more to be told from a key. A sender needs more only to make us hold them.
_MOST_HELD = 65_536

# Nearly all keys are of these; others are documents.
_IS_WORD = re.compile(rb"[\w.-]+")
_WORD = bytes(code for code in range(128) if _IS_WORD.fullmatch(bytes((code,))))
# How many of its first characters say that something may be a key: "sk-", and what a private key is introduced by.
_WORDS_START, _DOCUMENTS_START = 3, 16


def _beginning(text: bytes) -> tuple[bytes, bytes, re.Pattern[bytes]]:
    """A key, how it starts, and what data looks like that ends with more of it than that."""
    if _IS_WORD.fullmatch(text):
        start = text[:_WORDS_START]
        return text, start, re.compile(re.escape(start) + rb"[\w.-]*\Z")
    start = text[:_DOCUMENTS_START]
    return text, start, re.compile(re.escape(start) + rb"(?s:.*)\Z")


class Needles:
    """What no reply may repeat: each secret, as it is and as JSON writes it. Prints nothing of them."""

    __slots__ = ("_beginnings", "_letters", "_pattern", "_probes", "_texts")

    def __init__(self, secrets: Sequence[Secret]) -> None:
        texts: set[bytes] = set()
        for secret in secrets:
            text = secret.reveal()
            if len(text) >= SHORTEST:
                escaped = json.dumps(text, ensure_ascii=False)[1:-1]
                texts |= {
                    form.encode("utf-8", "surrogatepass") for form in (text, escaped, escaped.replace("/", "\\/"))
                }
        # One that holds another is found by it; of the others none can be whole before one that began earlier.
        self._texts = [text for text in texts if not any(other in text for other in texts if other != text)]
        self._probes = [text[-_PROBE:] for text in self._texts]
        self._beginnings = [_beginning(text) for text in self._texts]
        self._letters = frozenset(b"".join(_WORD if _IS_WORD.fullmatch(text) else text for text in self._texts))
        self._pattern = re.compile(b"|".join(map(re.escape, self._texts)) or rb"(?!)")

    def absent(self, pieces: list[bytes]) -> bool:
        """Whether no piece holds a key, and none ends with the beginning of one; may be wrong in saying no.

        Every piece of every reply comes through here. Counting is the search that the interpreter calls fastest.
        """
        for piece in pieces:
            for probe in self._probes:
                if piece.count(probe):
                    return False
            if piece and piece[-1] in self._letters and self.begun(piece):
                return False
        return True

    def begun(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` wait for more: they may be the beginning of a key, but not all of it.

        What waits can be seen from outside, so only a key's first characters decide, which are no secret.
        """
        longest = 0
        for text, start, pattern in self._beginnings:
            found = pattern.search(data, max(0, len(data) - len(text) + 1))
            if found is not None:
                longest = max(longest, len(data) - found.start())
                continue
            for length in range(len(start) - 1, 0, -1):
                if data.endswith(start[:length]):
                    longest = max(longest, length)
                    break
        return longest

    def occur(self, data: bytes) -> bool:
        """Whether a key is in ``data``."""
        return self._pattern.search(data) is not None

    def overwritten(self, data: bytes) -> tuple[bytes, int]:
        """``data`` with stars for each key in it, and where the last one ends."""
        for probe in self._probes:
            if data.count(probe):
                break
        else:
            return data, 0
        parts: list[bytes] = []
        end = 0
        for found in self._pattern.finditer(data):
            parts += (data[end : found.start()], b"*" * (found.end() - found.start()))
            end = found.end()
        parts.append(data[end:])
        return b"".join(parts), end


class Redactor:
    """What may pass of one reply that comes in pieces; it does not depend on how the reply is cut.

    ``stuck`` says that a key is where it cannot be overwritten; from there on nothing passes.
    """

    __slots__ = ("_held", "_inflated", "_inflater", "_needles", "_overwrites", "stuck")

    def __init__(self, needles: Needles, coding: str = "", *, overwrites: bool = True) -> None:
        """``coding`` is the content coding in lower case; one that we cannot read is searched as it is.

        Without ``overwrites`` no byte may change, because the reply has checksums.
        """
        self._needles = needles
        self._overwrites = overwrites
        self._inflater = Inflater(coding) if knows(coding) else None
        self._inflated = b""  # what the end of the decoded text has of a key
        self._held = b""
        self.stuck = False

    def feed(self, pieces: list[bytes], complete: bool) -> list[bytes]:
        """The next pieces, and whether they are the last; returns what may be passed on."""
        passed = [self._coded(piece) if self._inflater is not None else self._plain(piece) for piece in pieces]
        if complete:
            passed.append(self.flush())
        return passed

    def flush(self) -> bytes:
        """What is still held, when nothing follows that would make a key of it."""
        held, self._held = self._held, b""
        return held

    def _plain(self, piece: bytes) -> bytes:
        if self.stuck:
            return b""
        data, end = self._needles.overwritten(self._held + piece)
        if end and not self._overwrites:
            return self._stop()
        begun = self._needles.begun(data[end:])
        self._held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def _coded(self, piece: bytes) -> bytes:
        """A compressed piece: whole, or not at all. Of what the inflater does not look at, all passes."""
        inflater = self._inflater
        assert inflater is not None
        if self.stuck:
            return b""
        for text in inflater.read(piece):
            text = self._inflated + text
            if self._needles.occur(text):
                return self._stop()
            self._inflated = text[len(text) - self._needles.begun(text) :]
        if inflater.room <= 0:
            self._inflated = b""
        data, self._held = self._held + piece, b""
        if not self._inflated:
            return data
        if len(data) > _MOST_HELD:
            return self._stop()
        self._held = data
        return b""

    def _stop(self) -> bytes:
        self._held = b""
        self.stuck = True
        return b""
