"""What an endpoint of the simulated provider reads and returns, and the refusal it may raise instead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: the company it is for, its path after the company's root, and its JSON body."""

    company: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json
    model: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON reply; ``tokens`` is how much output it holds, which decides how long it takes to write."""

    content: object
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed reply: pieces of bytes, each with the number of output tokens it carries."""

    media_type: str
    pieces: Iterable[tuple[bytes, int]]


Reply = Document | Stream


class Refusal(Exception):
    """An answer other than 200, with the provider's own body."""

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, dict(headers or {})


@dataclass(slots=True)
class Events:
    """Writes server-sent events; with ``named`` each carries its ``type`` as event name and a running number."""

    named: bool = False
    numbered: bool = False
    _next: int = field(default=0, init=False)

    def write(self, data: Json) -> bytes:
        """One event."""
        if self.numbered:
            data = {"type": data["type"], "sequence_number": self._next, **data}
            self._next += 1
        head = f"event: {data['type']}\n" if self.named else ""
        return f"{head}data: {encoded(data)}\n\n".encode()


def encoded(value: object) -> str:
    """JSON without spaces, other scripts left as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
