"""A reply as the dialects compose it and the server sends it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.fakes.behaviour import Behaviour
from tests.fakes.record import Received

Json = dict[str, Any]
Headers = list[tuple[str, str]]
Counts = tuple[int, int]
Shape = Callable[[int, int], Json]
"""Makes a usage object of whole input and output."""

_WORDS = ("one ", "two ", "six ", "ten ", "day ", "sea ", "sun ", "ink ")
_TOKEN = re.compile(r"\s*\S{1,4}\s*")


class Piece(NamedTuple):
    """Bytes to send together, the tokens in them, and the whole input and output they report."""

    data: bytes
    tokens: int = 0
    reports: Counts | None = None


@dataclass(slots=True)
class Plan:
    """A whole reply: head, and pieces that are composed while they are sent."""

    pieces: Iterable[Piece]
    status: int = 200
    headers: Headers = field(default_factory=lambda: [("content-type", "application/json")])
    streaming: bool = False
    tail: int = 0
    """How many of the last pieces ``no_end`` leaves away."""
    gap: float = 0.0
    """Seconds between writes."""
    length: int | None = None
    """The length of the whole body, if it is known before it is sent."""
    broken: str = ""
    """Break the connection after the last piece: ``rst`` or ``fin``."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What is going to be said in one choice."""

    tokens: list[str] | range
    reasoning: int
    finish: str
    """``stop``, ``length`` or ``tool``."""
    tool: str = ""

    def text(self, index: int) -> str:
        """The text of one token."""
        return _WORDS[index % len(_WORDS)] if isinstance(self.tokens, range) else self.tokens[index]

    @property
    def whole(self) -> str:
        """All of the text, or of the tool's arguments."""
        return "".join(self.text(index) for index in range(len(self.tokens)))

    @property
    def total(self) -> int:
        """All output tokens of this choice."""
        return len(self.tokens) + self.reasoning


def speech(behaviour: Behaviour, received: Received, limit: object, tools: list[Json], forced: bool) -> Speech:
    """Decide what to say; ``tools`` are functions with ``name`` and ``parameters``."""
    said: list[str] | range = range(behaviour.tokens)
    tool = ""
    if tools and (behaviour.tool or forced):
        tool = str(tools[0].get("name", ""))
        said = _TOKEN.findall(json.dumps(_arguments(tools[0].get("parameters") or {})))
    elif behaviour.text is not None:
        said = _TOKEN.findall(behaviour.text)
    reasoning = behaviour.reasoning
    finish = "tool" if tool else "stop"
    if isinstance(limit, int) and not isinstance(limit, bool):
        room = int(limit * behaviour.overrun)
        reasoning = min(reasoning, room)
        if len(said) > room - reasoning:
            said, finish = said[: room - reasoning], "length"
    received.tokens_in = received.count_input()
    return Speech(said, reasoning, finish, tool)


def _arguments(schema: Json) -> Json:
    examples = {"string": "Oslo", "integer": 7, "number": 7.5, "boolean": True, "array": [], "object": {}}
    properties = schema.get("properties") or {}
    return {name: examples.get(str(one.get("type", "string")).lower()) for name, one in properties.items()}


def dumps(value: object) -> str:
    """JSON without spaces, other scripts left as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def document(content: Json, tokens: int = 0, reports: Counts | None = None) -> Plan:
    """A plain JSON reply."""
    return Plan([Piece(dumps(content).encode(), tokens, reports)])


def with_usage(
    content: Json, name: str, behaviour: Behaviour, counts: Counts, shape: Shape
) -> tuple[bytes, Counts | None]:
    """A plain reply with usage as the behaviour wants it: ``shape(input, output)`` makes the usage object.

    ``decreasing`` and ``duplicate`` put the member in twice: the last one counts, as every JSON reader agrees.
    """
    read, made = counts
    kind = behaviour.usage
    if kind == "missing":
        return dumps(content).encode(), None
    if kind == "null":
        return dumps({**content, name: None}).encode(), None
    if kind == "zero":
        return dumps({**content, name: shape(0, 0)}).encode(), (0, 0)
    text = dumps({**content, name: shape(read, made)})
    if kind in ("duplicate", "decreasing"):
        first = shape(read, made + 100) if kind == "decreasing" else shape(read, made)
        text = "{" + f"{dumps(name)}:{dumps(first)}," + text[1:]
    return text.encode(), counts
