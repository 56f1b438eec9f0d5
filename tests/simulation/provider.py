"""The providers of a world, in memory: what they did for each call is the truth that our books are compared with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.clock import Clock, VirtualLoop
from tests.simulation.wire import Wire

SLUGS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
}
TOKEN = "word"
_INTERRUPTIONS = ("break", "stall")


@dataclass(slots=True)
class Script:
    """What a provider will do with a call.

    ``usage`` is how it reports: well, missing, zero, twice. ``ending`` is whole, break or stall after ``pieces``
    pieces; a ``refusal`` is a status instead of a reply; ``excess`` tokens are written beyond the limit.
    """

    refusal: int = 0
    input_share: float = 0.5
    output: int = 40
    excess: int = 0
    pieces: int = 4
    gap: float = 0.05
    usage: str = "good"
    ending: str = "whole"
    first_byte: float = 0.02


@dataclass(slots=True)
class Upstream:
    """One call as the provider saw it: the oracle."""

    request_id: str
    slug: str
    key: str
    sent_at: float
    limit: int | None
    stream: bool
    input_tokens: int
    script: Script
    begun: bool = False
    produced: int = 0
    arrived: int = 0
    whole: bool = False
    hung_up: bool = False
    reported: tuple[int, int] | None = None
    pieces: list[tuple[bytes, int]] = field(default_factory=list)

    @property
    def at_least(self) -> int:
        """What must be charged of the output: all that arrived, or the limit if a provider passed it."""
        return self.arrived if self.limit is None else min(self.arrived, self.limit)


class Provider:
    """All providers; each call gets the script that the world laid down for it, or a plain one."""

    def __init__(self, clock: Clock, loop: VirtualLoop, draw: random.Random) -> None:
        self.clock = clock
        self.log: list[Upstream] = []
        self.scripts: dict[str, Script] = {}
        self._loop = loop
        self._draw = draw
        self._open: dict[Wire, Upstream] = {}

    def receive(self, wire: Wire, data: bytes, at: float) -> None:
        """A request."""
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        given = json.loads(body)
        slug = SLUGS[wire.host]
        request_id, limit = _marked(given, slug)
        script = self.scripts.get(request_id, Script())
        key = fields.get("authorization", "").removeprefix("Bearer ") or fields.get("x-api-key", "")
        call = Upstream(
            request_id,
            slug,
            key or fields.get("x-goog-api-key", ""),
            at,
            limit,
            "stream" in lines[0] or bool(given.get("stream")),
            max(1, int(len(body) * script.input_share / 2)),
            script,
        )
        self.log.append(call)
        self._open[wire] = call
        self._loop.call_at(at + script.first_byte, self._answer, wire, call)

    def hung_up(self, wire: Wire) -> None:
        """The node closed the connection: nothing more is written."""
        if (call := self._open.pop(wire, None)) is not None:
            call.hung_up = True

    def node_died(self, wires: list[Wire]) -> None:
        """The kernel closes what a killed node had open."""
        for wire in wires:
            wire.closed = True
            self.hung_up(wire)

    def _answer(self, wire: Wire, call: Upstream) -> None:
        script = call.script
        if call.hung_up or script.first_byte > 100:
            return
        if script.refusal:
            body = json.dumps({"error": {"message": "no", "type": "x", "code": "x"}}).encode()
            head = f"HTTP/1.1 {script.refusal} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            self._open.pop(wire, None)
            wire.deliver(f"{head}\r\n\r\n".encode() + body, 0.001)
            return
        if script.ending == "break" and script.pieces == 0:
            self._open.pop(wire, None)
            wire.break_off(0.001)
            return
        output = script.output if call.limit is None else min(script.output, call.limit)
        output += script.excess
        if script.usage != "missing":
            call.reported = (0, 0) if script.usage == "zero" else (call.input_tokens, output)
        call.begun = True
        if call.stream:
            call.pieces = list(_stream(call, output))
            wire.deliver(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", 0)
            self._write(wire, call, 0)
        else:
            self._loop.call_later(script.gap * script.pieces, self._whole, wire, call, output)

    def _whole(self, wire: Wire, call: Upstream, output: int) -> None:
        if call.hung_up:
            return
        call.produced = output
        body = json.dumps(_document(call, output)).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        if call.script.ending in _INTERRUPTIONS:
            wire.deliver(head + body[: len(body) // 2], 0.001)
            if call.script.ending == "break":
                self._open.pop(wire, None)
                wire.break_off(0.002)
            return
        self._open.pop(wire, None)
        wire.deliver(head + body, self._draw.uniform(0.0005, 0.01), lambda: self._read(call, output, whole=True))

    def _write(self, wire: Wire, call: Upstream, number: int) -> None:
        """One piece of a stream, and the next one later."""
        if call.hung_up:
            return
        if number >= call.script.pieces and call.script.ending in _INTERRUPTIONS:
            if call.script.ending == "break":
                self._open.pop(wire, None)
                wire.break_off(self._draw.uniform(0, 0.02))
            return
        data, tokens = call.pieces[number]
        call.produced += tokens
        last = number == len(call.pieces) - 1
        chunk = f"{len(data):x}\r\n".encode() + data + (b"\r\n0\r\n\r\n" if last else b"\r\n")
        if last:
            self._open.pop(wire, None)
        wire.deliver(chunk, self._draw.uniform(0.0005, 0.01), lambda: self._read(call, tokens, whole=last))
        if not last:
            self._loop.call_later(call.script.gap, self._write, wire, call, number + 1)

    def _read(self, call: Upstream, tokens: int, *, whole: bool) -> None:
        call.arrived += tokens
        call.whole = whole


def _marked(given: dict[str, Any], slug: str) -> tuple[str, int | None]:
    """The id that the world wrote into a request, and the output limit it came with."""
    if slug == "gemini":
        limit = given.get("generationConfig", {}).get("maxOutputTokens")
        return given["contents"][0]["parts"][0]["text"].split()[0], limit
    found = [given[name] for name in ("max_completion_tokens", "max_tokens") if given.get(name) is not None]
    return given["messages"][0]["content"].split()[0], min(found) if found else None


def _split(output: int, pieces: int) -> list[int]:
    pieces = max(1, min(pieces, output))
    return [output // pieces + (number < output % pieces) for number in range(pieces)]


def _event(payload: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(payload).encode() + b"\n\n"


def _stream(call: Upstream, output: int) -> Iterator[tuple[bytes, int]]:
    """The pieces of a stream, each with the tokens in it."""
    return {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}[call.slug](call, output)


def _openai(call: Upstream, output: int) -> Iterator[tuple[bytes, int]]:
    for tokens in _split(output, call.script.pieces):
        yield _event({"choices": [{"index": 0, "delta": {"content": TOKEN * tokens}, "finish_reason": None}]}), tokens
    end = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if call.reported is not None:
        incoming, outgoing = call.reported
        usage = {"prompt_tokens": incoming, "completion_tokens": outgoing, "total_tokens": incoming + outgoing}
        end += _event({"choices": [], "usage": usage}) * (2 if call.script.usage == "twice" else 1)
    yield end + b"data: [DONE]\n\n", 0


def _anthropic(call: Upstream, output: int) -> Iterator[tuple[bytes, int]]:
    usage: dict[str, Any] = {}
    if call.reported is not None:
        usage = {"usage": {"input_tokens": call.reported[0], "output_tokens": min(1, call.reported[1])}}
    yield _event({"type": "message_start", "message": {"role": "assistant", **usage}}, "message_start"), 0
    written = 0
    for tokens in _split(output, call.script.pieces):
        delta = {"type": "text_delta", "text": TOKEN * tokens}
        data = _event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
        written += tokens
        if call.reported is not None and call.script.usage != "zero":
            data += _delta(written, None)  # cumulative
        yield data, tokens
    if call.reported is not None:
        end = _delta(call.reported[1], "end_turn") * (2 if call.script.usage == "twice" else 1)
    else:
        end = _event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "message_delta")
    yield end + _event({"type": "message_stop"}, "message_stop"), 0


def _delta(written: int, stop: str | None) -> bytes:
    usage = {"output_tokens": written}
    return _event({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage}, "message_delta")


def _gemini(call: Upstream, output: int) -> Iterator[tuple[bytes, int]]:
    written, parts = 0, _split(output, call.script.pieces)
    for number, tokens in enumerate(parts):
        written += tokens
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": TOKEN * tokens}]}}
        last = number == len(parts) - 1
        if last:
            candidate["finishReason"] = "STOP"
        chunk: dict[str, Any] = {"candidates": [candidate]}
        if call.reported is not None:
            outgoing = call.reported[1] if last or not call.reported[1] else written  # cumulative
            chunk["usageMetadata"] = _metadata(call.reported[0], outgoing)
        yield _event(chunk) * 1, tokens


def _metadata(incoming: int, outgoing: int) -> dict[str, int]:
    return {
        "promptTokenCount": incoming,
        "candidatesTokenCount": outgoing,
        "totalTokenCount": incoming + outgoing,
    }


def _document(call: Upstream, output: int) -> dict[str, Any]:
    """A plain reply."""
    text, reported = TOKEN * output, call.reported
    if call.slug == "openai":
        usage = {"usage": dict(zip(("prompt_tokens", "completion_tokens"), reported, strict=True))} if reported else {}
        return {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}], **usage}
    if call.slug == "anthropic":
        usage = {"usage": dict(zip(("input_tokens", "output_tokens"), reported, strict=True))} if reported else {}
        return {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", **usage}
    metadata = {"usageMetadata": _metadata(*reported)} if reported else {}
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}], **metadata}
