"""What is read of Anthropic's replies and events."""

from __future__ import annotations

from typing import Any

import msgspec


class CacheCreation(msgspec.Struct):
    """Tokens written to the cache, by how long they stay."""

    ephemeral_5m_input_tokens: Any = None
    ephemeral_1h_input_tokens: Any = None


class OutputDetails(msgspec.Struct):
    """Parts of the output."""

    thinking_tokens: Any = None


class Counts(msgspec.Struct):
    """Tokens of a reply, or of one step of it."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None


class Iteration(Counts):
    """One step of a reply, and what it was for."""

    type: Any = None


class Total(Counts):
    """The format's ``usage``."""

    iterations: msgspec.Raw = msgspec.Raw(b"")


class Begun(msgspec.Struct):
    """The message that a stream begins with."""

    usage: Total | None = None


class Stop(msgspec.Struct):
    """Whether the message is whole."""

    stop_reason: Any = None


class Document(msgspec.Struct):
    """The members of a reply, or of one event, that usage can be in."""

    type: str | None = None
    usage: Total | None = None
    message: Begun | None = None
    delta: Stop | None = None


class Delta(msgspec.Struct):
    """What one event adds."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class Block(msgspec.Struct):
    """A block of content that begins."""

    name: str | None = None


class Event(msgspec.Struct):
    """One event of a stream."""

    type: str | None = None
    delta: Delta | None = None
    content_block: Block | None = None
    completion: str | None = None
