"""Where OpenAI, and everyone who took over its format, reports usage.

Chat: ``usage.prompt_tokens``, cached input and reasoning inside; Responses, images, transcriptions:
``usage.input_tokens``, and ``tool_usage.image_gen`` for pictures that a tool of Responses drew. Streams: a last chunk
with empty ``choices``, ``response.completed``, Groq's ``x_groq.usage``; Perplexity in every chunk. What Perplexity's
deep research read and thought stands beside the rest (https://docs.perplexity.ai/getting-started/pricing). Cohere:
``billed_units``. Ollama: ``eval_count``.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ownkey.gateway.dialects.counts import count, reconciled
from ownkey.gateway.dialects.openai_documents import Count, Counts, Details, Document, Ended, Groq, Nested, Tools, Units
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.estimates import AUDIO_TOKENS_PER_SECOND
from ownkey.gateway.json_scan import UNREADABLE

_NO_DETAILS = Details()
_NO_UNITS = Units()
_NOTHING = Reported()


def _reported(usage: Counts, final: bool) -> Reported | None:
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
    written = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    reasoning = count(written.reasoning_tokens if written.reasoning_tokens is not None else usage.reasoning_tokens)
    if usage.citation_tokens is not None:
        incoming, outgoing = (incoming or 0) + (count(usage.citation_tokens) or 0), (outgoing or 0) + (reasoning or 0)
    incoming, outgoing = reconciled(incoming, outgoing, total)
    read = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    cached = read.cached_tokens
    if cached is None:
        cached = usage.prompt_cache_hit_tokens
        if cached is None:
            cached = usage.cached_tokens if usage.cached_tokens is not None else usage.num_cached_tokens
    return Reported(incoming, outgoing, count(cached), count(read.cache_write_tokens), reasoning, final=final)


def _of_sound(seconds: Count) -> Reported | None:
    """What so many seconds of sound count; None if there is no such figure."""
    whole = count(math.ceil(seconds)) if seconds is not None and seconds < 1e9 else None
    return None if whole is None else Reported(whole * AUDIO_TOKENS_PER_SECOND, 0, final=True)


def _is_last(choices: list[Ended] | None) -> bool:
    """Whether no more can be written after a document with these choices."""
    if not choices:
        return True
    for choice in choices:  # noqa: SIM110 – a generator would cost more than all the rest of this
        if choice.finish_reason:
            return True
    return False


def read_document(found: Document) -> Reported | None:
    """What one decoded reply or event reports; None if nothing."""
    reported = _read_answer(found)
    tools = found.tool_usage
    if tools is None and isinstance(found.response, Nested):
        tools = found.response.tool_usage
    if tools is None or tools.image_gen is None or (drawn := _reported(tools.image_gen, True)) is None:
        return reported
    beside = drawn.usage()
    return msgspec.structs.replace(reported or _NOTHING, beside=beside) if beside.total_tokens else reported


def _read_answer(found: Document) -> Reported | None:
    """The same without what tools used."""
    if found.usage is not None:
        reported = _reported(found.usage, _is_last(found.choices))
        if reported is not None:
            return reported
    for nested in (found.response, found.delta, found.x_groq):
        if isinstance(nested, Nested | Groq):
            usage = nested.usage or (nested.meta if isinstance(nested, Nested) else None)
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
    "usage": Counts,
    "meta": Counts,
    "tool_usage": Tools,
    "image_gen": Counts,
    "x_groq": Groq,
    "response": Nested,
    "delta": Nested,
    "billed_units": Units,
    "tokens": Units,
    "prompt_tokens_details": Details,
    "completion_tokens_details": Details,
    "input_tokens_details": Details,
    "output_tokens_details": Details,
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
