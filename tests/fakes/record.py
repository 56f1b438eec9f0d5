"""What the fake provider remembers: every request, every connection."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

_WORD = re.compile(r"\w+")
_GEMINI = re.compile(r"/models/([^/]+):(\w+)$")
_MOUNT = re.compile(r"/as/([\w-]+)(?=/|$)")
_KINDS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/images/generations": "images",
    "/images/edits": "images",
    "/audio/transcriptions": "transcription",
    "/messages": "messages",
    "/messages/count_tokens": "count_tokens",
    "/models": "models",
}
_GEMINI_KINDS = {
    "generateContent": "generate",
    "streamGenerateContent": "stream_generate",
    "countTokens": "count_tokens",
    "embedContent": "embed",
    "batchEmbedContents": "batch_embed",
}
_READ_BY_THE_MODEL = (
    "messages",
    "input",
    "prompt",
    "contents",
    "content",
    "requests",
    "system",
    "instructions",
    "tools",
)
_NOT_READ = ("role", "type", "id", "name")


@dataclass(slots=True)
class Connection:
    """One accepted connection. Times are ``time.time()``."""

    number: int
    opened_at: float
    requests: int = 0
    closed_at: float | None = None
    closed_by: str | None = None
    """``client`` or ``provider``."""
    bad_requests: list[bytes] = field(default_factory=list)
    """Bytes that were no HTTP request."""


@dataclass
class Received:
    """One request, and what became of it."""

    number: int
    connection: Connection
    method: str
    target: str
    """Path and query as they came."""
    headers: list[tuple[str, str]]
    """In order; names in lower case."""
    body: bytes = b""
    complete: bool = False
    """The body has arrived as well."""
    at: float = field(default_factory=time.time)
    """When the request was complete, ``time.time()``."""
    monotonic: float = field(default_factory=time.monotonic)
    """The same on the clock that all processes of this machine share."""

    status: int | None = None
    """What we answered; None if we did not."""
    accepted: bool = False
    """The provider took the request and began to work: it costs its input, whatever happens then."""
    tokens_in: int = 0
    tokens_out: int = 0
    """Tokens handed to the connection so far, hidden reasoning included; all of a plain reply, once it begins."""
    reported: tuple[int, int] | None = None
    """Whole input and output of the last usage we sent; None if we sent none."""
    finished: bool = False
    """The reply was sent to its end."""
    first_byte_at: float | None = None
    finished_at: float | None = None
    sent_bytes: int = 0
    sent: bytearray = field(default_factory=bytearray)
    """The body of the reply before compression and framing (empty if the provider does not keep bodies)."""
    note: str = ""
    """Why a reply was unusual, such as a request without a recording."""

    def completed(self, body: bytes) -> None:
        """The whole request is there."""
        self.body, self.at, self.monotonic, self.complete = body, time.time(), time.monotonic(), True
        for name in ("json", "model"):  # in case somebody asked before
            self.__dict__.pop(name, None)

    def ends(self, now: bool) -> None:
        """The reply is handed over to its end, if ``now``."""
        if now and not self.finished:
            self.finished, self.finished_at = True, time.time()

    @property
    def path(self) -> str:
        """The path without mount and query."""
        path = self.target.partition("?")[0]
        return _MOUNT.sub("", path, count=1) if path.startswith("/as/") else path

    @property
    def mount(self) -> str:
        """``x`` of a path under ``/as/x``; empty otherwise."""
        found = _MOUNT.match(self.target)
        return found[1] if found else ""

    @property
    def query(self) -> str:
        """What stands after the question mark."""
        return self.target.partition("?")[2]

    def header(self, name: str) -> str:
        """The value of a header, or an empty text."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def host(self) -> str:
        """The Host header."""
        return self.header("host")

    @cached_property
    def keys(self) -> dict[str, str]:
        """Every credential of the request by where it was: a header's name, or ``query``."""
        found = {name: value for name in ("x-api-key", "x-goog-api-key", "api-key") if (value := self.header(name))}
        scheme, _, value = self.header("authorization").partition(" ")
        if value:
            found["authorization"] = value if scheme.lower() == "bearer" else f"{scheme} {value}"
        if key := dict(parse_qsl(self.query)).get("key"):
            found["query"] = key
        return found

    @property
    def key(self) -> str:
        """The credential, if there is exactly one or all are alike; several different ones joined with ``|``."""
        return "|".join(dict.fromkeys(self.keys.values()))

    @property
    def slot(self) -> str:
        """Where the credential was; several places joined with ``|``."""
        return "|".join(self.keys)

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def kind(self) -> str:
        """What is asked: ``chat``, ``messages``, ``generate`` and so on; ``other`` if nothing we generate for."""
        if match := _GEMINI.search(self.path):
            return _GEMINI_KINDS.get(match[2], "other")
        longest_first = sorted(_KINDS, key=len, reverse=True)
        return next((_KINDS[end] for end in longest_first if self.path.endswith(end)), "other")

    @cached_property
    def dialect(self) -> str:
        """``openai``, ``anthropic`` or ``gemini``."""
        if "/messages" in self.path or self.header("anthropic-version"):
            return "anthropic"
        named = (
            self.path.startswith("/v1beta") or ":" in self.path or "x-goog-api-key" in self.keys or "query" in self.keys
        )
        return "gemini" if named else "openai"

    @cached_property
    def model(self) -> str:
        """The model asked for, from the path or the body."""
        if match := _GEMINI.search(self.path):
            return unquote(match[1])
        return str(self.json.get("model", ""))

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return self.kind == "stream_generate" or self.json.get("stream") is True

    @property
    def closed_at(self) -> float | None:
        """When its connection was closed."""
        return self.connection.closed_at

    @property
    def closed_by(self) -> str | None:
        """Who closed its connection."""
        return self.connection.closed_by

    def count_input(self) -> int:
        """The honest input: words in everything the model reads, at least one."""
        texts = (text for name in _READ_BY_THE_MODEL for text in _texts(self.json.get(name)))
        system = (text for name in ("systemInstruction", "system_instruction") for text in _texts(self.json.get(name)))
        return max(1, sum(len(_WORD.findall(text)) for part in (texts, system) for text in part))

    def summary(self) -> dict[str, Any]:
        """The record as JSON for the control interface."""
        names = ("number", "method", "target", "status", "accepted", "tokens_in", "tokens_out", "reported", "finished")
        more = ("at", "monotonic", "first_byte_at", "finished_at", "sent_bytes", "note", "headers", "host", "path")
        derived = ("mount", "query", "key", "slot", "kind", "dialect", "model", "stream", "closed_at", "closed_by")
        return {
            **{name: getattr(self, name) for name in (*names, *more, *derived)},
            "connection": self.connection.number,
            "body": self.body.decode("utf-8", "replace"),
        }


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NOT_READ:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
