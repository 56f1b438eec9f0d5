"""What is read of OpenAI's replies and events, and of those who took over its format."""

from __future__ import annotations

from typing import Any

import msgspec

Count = int | float | None


class Details(msgspec.Struct):
    """Parts of a count of tokens."""

    cached_tokens: Count = None
    cache_write_tokens: Count = None
    reasoning_tokens: Count = None


class Units(msgspec.Struct):
    """What Cohere counts."""

    input_tokens: Count = None
    output_tokens: Count = None


class Counts(msgspec.Struct):
    """Every spelling of ``usage`` that was met, in one shape; what a provider leaves out is None."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None
    prompt_cache_hit_tokens: Count = None  # DeepSeek
    cached_tokens: Count = None  # Cohere, Moonshot
    num_cached_tokens: Count = None  # Mistral
    reasoning_tokens: Count = None  # Perplexity, as the next
    citation_tokens: Count = None
    seconds: Count = None  # transcription billed by duration
    prompt_audio_seconds: Count = None  # Mistral, beside tokens
    billed_units: Units | None = None  # Cohere
    tokens: Units | None = None


class Ended(msgspec.Struct):
    """Whether a choice is whole."""

    finish_reason: str | None = None


class Groq(msgspec.Struct):
    """Groq's own place."""

    usage: Counts | None = None


class Tools(msgspec.Struct):
    """What tools used that are models of their own."""

    image_gen: Counts | None = None


class Nested(msgspec.Struct):
    """Usage inside another object."""

    usage: Counts | None = None
    meta: Counts | None = None
    tool_usage: Tools | None = None


class Document(msgspec.Struct):
    """The members of a reply, or of one event, that usage can be in."""

    usage: Counts | None = None
    choices: list[Ended] | None = None
    type: str | None = None
    x_groq: Groq | None = None
    response: Nested | str | None = None
    delta: Nested | str | None = None
    meta: Counts | None = None
    tool_usage: Tools | None = None
    prompt_eval_count: Count = None
    eval_count: Count = None
    task: str | None = None  # of a transcription in detail, which has its duration (OpenAI, Groq)
    duration: Count = None


class Function(msgspec.Struct):
    """A call of a function, or some of it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A call of a tool, or some of it."""

    function: Function | None = None


class Sound(msgspec.Struct):
    """Some of a spoken answer, in base64, and what is said in it."""

    data: str | None = None
    transcript: str | None = None


class Delta(msgspec.Struct):
    """What one chunk adds to a choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    audio: Sound | None = None
    images: list[msgspec.Raw] | None = None  # OpenRouter


class Choice(msgspec.Struct):
    """One choice of a chunk."""

    delta: Delta | None = None
    text: str | None = None


class Event(msgspec.Struct):
    """What one event of a stream adds."""

    choices: list[Choice] | None = None
    type: str | None = None
    delta: str | None = None
    audio: str | None = None


class ErrorEvent(msgspec.Struct):
    """Where an event has an error."""

    error: Any = None
    type: str | None = None


class UsageChunk(msgspec.Struct):
    """The chunk of a stream that brings its usage, and no choice."""

    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None
