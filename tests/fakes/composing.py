"""What to answer: the behaviour's own body, an error in the dialect's shape, or what the dialect says."""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType

from tests.fakes import anthropic, gemini, openai
from tests.fakes.behaviour import Behaviour
from tests.fakes.plan import Json, Piece, Plan, document, dumps
from tests.fakes.record import Received

DIALECTS: dict[str, ModuleType] = {"openai": openai, "anthropic": anthropic, "gemini": gemini}
_CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
_LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


def compose(received: Received, behaviour: Behaviour) -> Plan:
    """What the behaviour asks for: any body, an error, or what the dialect says."""
    if behaviour.body is not None:
        return Plan([Piece(behaviour.body)], behaviour.status)
    if behaviour.echo:
        said = ", ".join(f"{name}: {value}" for name, value in received.headers if value and name in _CREDENTIALS)
        plan = error(received, 401, f"Invalid credentials in {said}")
        plan.headers.append(("x-echo", said))
        return plan
    if behaviour.status >= 300:
        plan = error(received, behaviour.status, f"The fake provider was told to answer {behaviour.status}.")
        if behaviour.retry_after is not None:
            plan.headers.append(("retry-after", behaviour.retry_after))
        return plan
    speak = getattr(DIALECTS[received.dialect], received.kind, None)
    if speak is None:
        return document({"object": "fake", "method": received.method, "path": received.path})
    return _shaped(speak(received, behaviour), received, behaviour)


def error(received: Received, status: int, message: str) -> Plan:
    """An error in the dialect's shape."""
    body: Json = DIALECTS[received.dialect].error_body(status, message)
    return Plan([Piece(dumps(body).encode())], status)


def rejected(received: Received) -> Plan:
    """The dialect's own answer to a bad key; OpenAI's repeats the key, as many providers do."""
    if received.dialect == "gemini":
        plan = error(received, 400, "API key not valid. Please pass a valid API key.")
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        body = gemini.error_body(400, "API key not valid. Please pass a valid API key.")
        body["error"]["details"] = [{**reason, "domain": "googleapis.com"}]
        plan.pieces = [Piece(dumps(body).encode())]
        return plan
    said = "invalid x-api-key" if received.dialect == "anthropic" else f"Incorrect API key provided: {received.key}."
    return error(received, 401, said)


def at_once(received: Received, behaviour: Behaviour, plan: Plan) -> list[Piece]:
    """A plain body as one piece, or half of it if the connection is to break: all is generated before it is sent."""
    pieces = list(plan.pieces)
    body = b"".join(piece.data for piece in pieces)
    if behaviour.gzip:
        body = gzip.compress(body, mtime=0)
    plan.length = len(body)
    received.tokens_out = sum(piece.tokens for piece in pieces)
    if behaviour.cut is not None:
        return [Piece(body[: len(body) // 2])] if behaviour.cut else [Piece(b"")]
    reports = [piece.reports for piece in pieces if piece.reports is not None]
    return [Piece(body, 0, reports[-1] if reports else None)]


def _shaped(plan: Plan, received: Received, behaviour: Behaviour) -> Plan:
    """The plan without its end, with comments, or with other line ends."""
    if behaviour.no_end and plan.tail:
        plan.pieces = _without_last(plan.pieces, plan.tail)
    is_events = any(value.startswith("text/event-stream") for name, value in plan.headers if name == "content-type")
    if is_events and (behaviour.line_end or behaviour.comments):
        own = b"\r\n" if received.dialect == "gemini" else b"\n"
        plan.pieces = _rewritten(plan.pieces, own, behaviour)
    return plan


def _rewritten(pieces: Iterable[Piece], own: bytes, behaviour: Behaviour) -> Iterator[Piece]:
    comment = b": keep-alive" + own + own if behaviour.comments else b""
    for piece in pieces:
        data = comment + piece.data
        if behaviour.line_end:
            data = data.replace(own, _LINE_ENDS[behaviour.line_end])
        yield piece._replace(data=data)


def _without_last(pieces: Iterable[Piece], number: int) -> Iterator[Piece]:
    kept: deque[Piece] = deque()
    for piece in pieces:
        kept.append(piece)
        if len(kept) > number:
            yield kept.popleft()
