"""What is read of Gemini's replies and events."""

from __future__ import annotations

from typing import Any

import msgspec

_NOTHING = msgspec.Raw(b"")


class Metadata(msgspec.Struct, rename="camel"):
    """``usageMetadata``."""

    prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    total_token_count: Any = None


class Interaction(msgspec.Struct):
    """``usage`` of an interaction."""

    total_input_tokens: Any = None
    total_output_tokens: Any = None
    total_thought_tokens: Any = None
    total_cached_tokens: Any = None
    total_tool_use_tokens: Any = None
    total_tokens: Any = None


class Holder(msgspec.Struct):
    """An interaction inside an event."""

    usage: Interaction | None = None


class Ended(msgspec.Struct, rename="camel"):
    """Whether a candidate is whole."""

    finish_reason: Any = None


class Statistics(msgspec.Struct):
    """What Vertex counts of an embedding."""

    token_count: Any = None


class Embedding(msgspec.Struct):
    """One embedding of Vertex's."""

    statistics: Statistics | None = None


class Prediction(msgspec.Struct):
    """One prediction of Vertex's."""

    embeddings: Embedding | None = None


class Chunk(msgspec.Struct):
    """The members of a reply, or of one chunk of a stream, that usage can be in."""

    usage_metadata: Metadata | None = msgspec.field(default=None, name="usageMetadata")
    candidates: list[Ended] | None = None
    prompt_feedback: Any = msgspec.field(default=None, name="promptFeedback")
    usage: Interaction | None = None
    interaction: Holder | None = None
    predictions: list[Prediction] | None = None


class FunctionCall(msgspec.Struct, rename="camel"):
    """A call of a function, or some of it."""

    name: str | None = None
    args: msgspec.Raw = _NOTHING
    partial_args: msgspec.Raw = _NOTHING


class Part(msgspec.Struct, rename="camel"):
    """One part of what is written."""

    text: str | None = None
    thought: bool | None = None
    function_call: FunctionCall | None = None
    executable_code: msgspec.Raw = _NOTHING
    inline_data: msgspec.Raw = _NOTHING


class Content(msgspec.Struct):
    """What a candidate has written."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """One candidate of a chunk."""

    content: Content | None = None
    finish_reason: Any = None


class InteractionDelta(msgspec.Struct):
    """What one event of an interaction adds."""

    type: str | None = None
    text: str | None = None
    arguments: msgspec.Raw = _NOTHING


class Event(msgspec.Struct):
    """What one event of a stream adds."""

    candidates: list[Candidate] | None = None
    event_type: str | None = None
    delta: InteractionDelta | None = None
    error: Any = None
