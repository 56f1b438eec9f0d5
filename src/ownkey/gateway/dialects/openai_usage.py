"""Where OpenAI, and everyone who took over its format, reports usage.

Chat: ``usage.prompt_tokens``, cached input and reasoning inside; Responses, images, transcriptions:
``usage.input_tokens``. Streams: a last chunk with empty ``choices``, ``response.completed``, Groq's
``x_groq.usage``; Perplexity in every chunk. Cohere: ``billed_units``. Ollama: ``eval_count``.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ownkey.gateway.dialects.reported import Reported, count, reconciled
from ownkey.gateway.estimates import AUDIO_TOKENS_PER_SECOND
from ownkey.gateway.json_scan import UNREADABLE

Count = int | float | None


class _Details(msgspec.Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    reasoning_tokens: Count = None


class _Units(msgspec.Struct):
    input_tokens: Count = None
    output_tokens: Count = None


class Usage(msgspec.Struct):
    """Every spelling of ``usage`` that was met, in one shape; what a provider leaves out is None."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: Count = None  # DeepSeek
    cached_tokens: Count = None  # Cohere, Moonshot
    num_cached_tokens: Count = None  # Mistral
    reasoning_tokens: Count = None  # Perplexity
    seconds: Count = None  # transcription billed by duration
    prompt_audio_seconds: Count = None  # Mistral, beside tokens
    billed_units: _Units | None = None  # Cohere
    tokens: _Units | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Groq(msgspec.Struct):
    usage: Usage | None = None


class _Nested(msgspec.Struct):
    usage: Usage | None = None
    meta: Usage | None = None


class Document(msgspec.Struct):
    """The members of a reply, or of one event, that usage can be in."""

    usage: Usage | None = None
    choices: list[_Choice] | None = None
    type: str | None = None
    x_groq: _Groq | None = None
    response: _Nested | str | None = None
    delta: _Nested | str | None = None
    meta: Usage | None = None
    prompt_eval_count: Count = None
    eval_count: Count = None
    task: str | None = None  # of a transcription in detail, which has its duration (OpenAI, Groq)
    duration: Count = None


_NO_DETAILS = _Details()
_NO_UNITS = _Units()


def _reported(usage: Usage, final: bool) -> Reported | None:
    """One usage object, read; None if it holds no figure."""
    incoming, outgoing, total = usage.prompt_tokens, usage.completion_tokens, count(usage.total_tokens)
    if incoming is None and outgoing is None:
        incoming, outgoing = usage.input_tokens, usage.output_tokens
        if incoming is None and outgoing is None:
            units = usage.billed_units or usage.tokens or _NO_UNITS
            incoming, outgoing = units.input_tokens, units.output_tokens
    incoming, outgoing = count(incoming), count(outgoing)
    if incoming is None and outgoing is None and total is None:
        return _of_sound(usage.prompt_audio_seconds if usage.seconds is None else usage.seconds)
    incoming, outgoing = reconciled(incoming, outgoing, total)
    read = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    written = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    cached = read.cached_tokens
    if cached is None:
        cached = usage.prompt_cache_hit_tokens
        if cached is None:
            cached = usage.cached_tokens if usage.cached_tokens is not None else usage.num_cached_tokens
    reasoning = written.reasoning_tokens if written.reasoning_tokens is not None else usage.reasoning_tokens
    return Reported(incoming, outgoing, count(cached), count(read.cache_write_tokens), count(reasoning), final=final)


def _of_sound(seconds: Count) -> Reported | None:
    """What so many seconds of sound count; None if there is no such figure."""
    whole = count(math.ceil(seconds)) if seconds is not None and seconds < 1e9 else None
    return None if whole is None else Reported(whole * AUDIO_TOKENS_PER_SECOND, 0, final=True)


def _is_last(choices: list[_Choice] | None) -> bool:
    """Whether no more can be written after a document with these choices."""
    if not choices:
        return True
    for choice in choices:  # noqa: SIM110 – a generator would cost more than all the rest of this
        if choice.finish_reason:
            return True
    return False


def read_document(found: Document) -> Reported | None:
    """What one decoded reply or event reports; None if nothing."""
    if found.usage is not None:
        reported = _reported(found.usage, _is_last(found.choices))
        if reported is not None:
            return reported
    for nested in (found.response, found.delta, found.x_groq):
        if isinstance(nested, _Nested | _Groq):
            usage = nested.usage or (nested.meta if isinstance(nested, _Nested) else None)
            if usage is not None and (reported := _reported(usage, True)) is not None:
                return reported
    if found.meta is not None and (reported := _reported(found.meta, True)) is not None:
        return reported
    if found.eval_count is not None or found.prompt_eval_count is not None:
        return Reported(count(found.prompt_eval_count), count(found.eval_count), final=True)
    return _of_sound(found.duration) if found.task in ("transcribe", "translate") else None


_decoder = msgspec.json.Decoder(Document)


def decode(data: bytes) -> Document | None:
    """Decode a reply or event, leniently: a member of an unexpected type is as good as missing.

    None if it is not a JSON object.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        pass
    except UNREADABLE:
        return None
    try:
        return msgspec.convert(_without_surprises(msgspec.json.decode(data), Document), Document)
    except UNREADABLE:
        return None


_SHAPES: dict[str, Any] = {
    "usage": Usage,
    "meta": Usage,
    "x_groq": _Groq,
    "response": _Nested,
    "delta": _Nested,
    "billed_units": _Units,
    "tokens": _Units,
    "prompt_tokens_details": _Details,
    "completion_tokens_details": _Details,
    "input_tokens_details": _Details,
    "output_tokens_details": _Details,
}


def _without_surprises(value: object, shape: Any) -> dict[str, object]:
    """The members of a JSON object that ``shape`` has, less those of a type it does not expect."""
    if not isinstance(value, dict):
        raise msgspec.ValidationError("not an object")
    kept: dict[str, object] = {}
    for name in shape.__struct_fields__:
        member = value.get(name)
        if name in _SHAPES:
            if isinstance(member, dict):
                kept[name] = _without_surprises(member, _SHAPES[name])
        elif name == "choices":
            if isinstance(member, list):
                kept[name] = [
                    {"finish_reason": reason if isinstance(reason := choice.get("finish_reason"), str) else None}
                    for choice in member
                    if isinstance(choice, dict)
                ]
        elif name in ("type", "task"):
            kept[name] = member if isinstance(member, str) else None
        elif isinstance(member, int | float) and not isinstance(member, bool):
            kept[name] = member
    return kept
