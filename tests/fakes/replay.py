"""Answering with recorded replies, byte for byte.

A recording is a JSON object with ``method``, ``url_path``, ``request_body`` and ``request_body_encoding`` (``utf-8``
or ``base64``), ``response_status``, ``response_headers``, ``response_body`` and ``response_body_encoding``,
``streaming``, ``provider``, and, if known, ``recorded_content_encoding`` and ``expected`` token counts.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from tests.fakes.plan import Headers, Piece, Plan
from tests.fakes.record import Received

Recording = Mapping[str, Any]
Split = Literal["whole", "bytes", "random"] | int | Sequence[int]

_Path = tuple[str, ...]
_USAGE_WISH: tuple[_Path, ...] = (("stream_options", "include_usage"),)
_LIMITS: tuple[_Path, ...] = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("generationConfig", "maxOutputTokens"),
    ("generation_config", "max_output_tokens"),
)
_IGNORED: tuple[tuple[_Path, ...], ...] = ((), _USAGE_WISH, _USAGE_WISH + _LIMITS)
"""What of a body may differ, from the strictest comparison to the loosest."""
_NOT_SENT = ("content-length", "transfer-encoding", "content-encoding", "connection")


def load(path: Path) -> list[Recording]:
    """The recordings of a ``.jsonl`` or ``.jsonl.gz`` file."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines() if line]


def body_of(recording: Recording, part: str = "response") -> bytes:
    """The exact bytes of a recorded body: ``response`` or ``request``."""
    text = recording.get(f"{part}_body") or ""
    in_base64 = recording.get(f"{part}_body_encoding") == "base64"
    return base64.b64decode(text) if in_base64 else str(text).encode()


class Replay:
    """Recordings by request. Those that answer the same request are served in turn, again from the first."""

    def __init__(
        self,
        recordings: Iterable[Recording],
        *,
        split: Split = "whole",
        gap: float = 0.0,
        cut: int | None = None,
        cut_how: str = "rst",
        compress: bool = False,
        seed: int = 0,
    ) -> None:
        """``split``: where the body is divided into writes: not at all, between all bytes, at random places, at one
        position or at several. ``gap``: seconds between writes. ``cut``: break the connection (``cut_how``: ``rst`` or
        ``fin``) after so many bytes of the body. ``compress``: gzip what was compressed when it was recorded.
        """
        self._split, self._gap, self._cut, self._cut_how = split, gap, cut, cut_how
        self._compress, self._random = compress, random.Random(seed)  # noqa: S311
        self._by_key: dict[str, list[Recording]] = {}
        self._turns: dict[str, int] = {}
        for one in recordings:
            path, _, query = str(one["url_path"]).partition("?")
            body = body_of(one, "request")
            for ignored in _IGNORED:
                self._by_key.setdefault(_key(one["method"], path, query, body, ignored), []).append(one)

    def find(self, received: Received) -> Recording | None:
        """The recording for a request: the same body first, else the same but for what a gateway may add."""
        for ignored in _IGNORED:
            key = _key(received.method, received.path, received.query, received.body, ignored)
            found = self._by_key.get(key, [])
            if received.mount:
                found = [one for one in found if one.get("provider") == received.mount]
            if found:
                turn = self._turns.get(key, 0)
                self._turns[key] = turn + 1
                return found[turn % len(found)]
        return None

    def plan(self, received: Received, recording: Recording) -> Plan:
        """The reply, ready to be sent."""
        expected = recording.get("expected") or {}
        counts = (expected.get("billable_input_tokens"), expected.get("billable_output_tokens"))
        received.tokens_in = counts[0] or 0
        received.note = str(recording.get("id", ""))
        body = body_of(recording)
        headers: Headers = [
            (name, str(value)) for name, value in recording["response_headers"].items() if name not in _NOT_SENT
        ]
        if self._compress and recording.get("recorded_content_encoding") == "gzip":
            body = gzip.compress(body, mtime=0)
            headers.append(("content-encoding", "gzip"))
        cut = self._cut is not None and self._cut < len(body)
        pieces = self._pieces(body[: self._cut] if cut else body, counts, whole=not cut)
        plan = Plan(pieces, status=int(recording["response_status"]), headers=headers)
        plan.streaming = bool(recording.get("streaming"))
        plan.gap, plan.length = self._gap, len(body)
        plan.broken = self._cut_how if cut else ""
        return plan

    def _pieces(self, body: bytes, counts: tuple[int | None, int | None], *, whole: bool) -> Iterator[Piece]:
        places = sorted({place for place in self._places(len(body)) if 0 < place < len(body)})
        for start, end in zip([0, *places], [*places, len(body)], strict=True):
            last = whole and end == len(body)
            reported = (counts[0] or 0, counts[1] or 0) if last and any(counts) else None
            yield Piece(body[start:end], (counts[1] or 0) if last else 0, reported)

    def _places(self, length: int) -> Iterable[int]:
        if self._split == "whole":
            return ()
        if self._split == "bytes":
            return range(1, length)
        if self._split == "random":
            number = self._random.randint(1, max(1, min(40, length)))
            return [self._random.randrange(length + 1) for _ in range(number)]
        return (self._split,) if isinstance(self._split, int) else [int(place) for place in self._split]


def _key(method: str, path: str, query: str, body: bytes, ignored: tuple[_Path, ...]) -> str:
    pairs = sorted((name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "key")
    try:
        value = json.loads(body)
    except ValueError:
        return f"{ignored} {method} {path} {pairs} {body.hex()}"
    if isinstance(value, dict):
        for place in ignored:
            _remove(value, place)
    return f"{ignored} {method} {path} {pairs} {json.dumps(value, sort_keys=True)}"


def _remove(body: dict[str, Any], place: _Path) -> None:
    """Take a member away, and its holder if that is empty then."""
    name, *rest = place
    if not rest:
        body.pop(name, None)
    elif isinstance(body.get(name), dict):
        _remove(body[name], tuple(rest))
        if not body[name]:
            del body[name]
