"""The few members of a request's JSON that we act on: where each kind of call has them, read and checked.

Everything else in the body is the provider's business. A member we act on that stands there twice is refused: we
would read one and the provider might read the other.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from ownkey.errors import InvalidRequest
from ownkey.gateway.request_body import Body, OtherBody, OtherSection, Section, SectionedBody

LARGEST_LIMIT = 10_000_000
MOST_CHOICES = 128
LONGEST_MODEL = 256
MOST_VALUES = 400_000
"""JSON values in a body: reading so many takes some hundredths of a second, in which nobody else is served."""
MOST_MEMBERS = 10_000
"""Members of a body, or of its section, one of whose names may be there twice."""
LONGEST_NAME = 1_000
"""Characters of such a name."""
_TOO_MANY_MEMBERS = f"The request body has an object of more than {MOST_MEMBERS:,} members."
_DECODED_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Form:
    """Where one kind of call keeps its fields.

    ``limits`` are the members that cap the output of one choice, the one to set first where there is none.
    ``choices`` multiply the output. ``section`` is the object they stand in, by its two spellings, if it is not the
    top of the body.
    """

    limits: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    section: tuple[str, ...] = ()


_GEMINI_SECTION = ("generationConfig", "generation_config")
FORMS: Mapping[str, Form] = {
    "chat": Form(("max_completion_tokens", "max_tokens"), ("n",)),
    "completions": Form(("max_tokens",), ("n", "best_of")),
    "responses": Form(("max_output_tokens",)),
    "messages": Form(("max_tokens",)),
    "complete": Form(("max_tokens_to_sample",)),
    "generate": Form(("maxOutputTokens", "max_output_tokens"), ("candidateCount", "candidate_count"), _GEMINI_SECTION),
    "interactions": Form(("max_output_tokens", "maxOutputTokens"), (), ("generation_config", "generationConfig")),
    "images": Form((), ("n",)),
    "predict": Form((), ("sampleCount", "sample_count"), ("parameters",)),
    # Bedrock: Converse, and the bodies that Invoke takes (``bedrock_models``).
    "converse": Form(("maxTokens",), (), ("inferenceConfig",)),
    "nova": Form(("maxTokens", "max_new_tokens"), (), ("inferenceConfig",)),
    "titan": Form(("maxTokenCount",), (), ("textGenerationConfig",)),
    "llama": Form(("max_gen_len",)),
    "jurassic": Form(("maxTokens",), ("numResults",)),
    "bedrock_images": Form((), ("numberOfImages",), ("imageGenerationConfig",)),
    # A chat in OpenAI's form that takes no ``stream_options``.
    "raw_chat": Form(("max_tokens", "max_completion_tokens"), ("n",)),
    "cohere_chat": Form(("max_tokens",)),
    "cohere_generate": Form(("max_tokens",), ("num_generations",)),
    "ollama": Form(("num_predict",), (), ("options",)),
}
NO_FORM = Form()

# Imagen makes four images unless told otherwise.
DEFAULT_CHOICES = {"predict": 4}

# Ollama streams unless it is told not to, and its limit may be "as much as there is".
STREAMS_UNLESS_TOLD = frozenset({"ollama"})
_UNLIMITED = {"num_predict": (-1, -2)}

_COMMON = ("model", "stream", "stream_options", "background", "deferred")
_MEDIA = ("image", "input_", "inline", "file", "audio", "video", "document", "item_ref")


# Ollama is written in Go, whose JSON takes a member's name in any case: "Options" is one more "options".
_IN_ANY_CASE = frozenset({"ollama"})


def _marks(form: Form, flags: int = 0) -> re.Pattern[bytes]:
    """Finds, in one pass, the names we act on and what may be the beginning of an image or a file."""
    wanted = [f'{name}"' for name in (*_COMMON, *form.limits, *form.choices, *form.section)] + [*_MEDIA]
    # By their first letter: most of what stands in quotes is ruled out by it.
    groups = []
    for first in sorted({name[0] for name in wanted}):
        rest = "|".join(name[1:] for name in wanted if name[0] == first)
        groups.append(f"{first}(?:{rest})")
    return re.compile(f'"(?:{"|".join(groups)})'.encode(), flags)


_MARKS: Mapping[str, re.Pattern[bytes]] = {
    kind: _marks(form, re.IGNORECASE if kind in _IN_ANY_CASE else 0) for kind, form in FORMS.items()
}
_MARKS_OTHERWISE = _marks(NO_FORM)
_MEDIA_MARKS = frozenset(f'"{mark}'.encode() for mark in _MEDIA)
_MEDIA_MARK = re.compile(f'"(?:{"|".join(_MEDIA)})'.encode(), re.IGNORECASE)


def _fraction(_digits: str) -> float:
    """Any number that is not whole: nothing depends on which, and reading one of many digits takes long."""
    return 0.5


_bodies = msgspec.json.Decoder(Body, float_hook=_fraction)
_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    **{
        kind: msgspec.json.Decoder(SectionedBody, float_hook=_fraction)
        for kind in ("generate", "interactions", "predict")
    },
    **{
        kind: msgspec.json.Decoder(OtherBody, float_hook=_fraction)
        for kind in (
            *("converse", "nova", "titan", "llama", "jurassic", "bedrock_images"),
            *("cohere_chat", "cohere_generate", "ollama"),
        )
    },
}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME = re.compile(rb'\s*("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*:\s*', re.DOTALL)
_AFTER = re.compile(rb"\s*([,}])")
# An escaped letter or underscore: the only way to spell a member's name so that its plain bytes are not found.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_OBJECT = re.compile(rb"\s*+\{")
# What begins another value; those in strings are passed over. It stops at the last one that is allowed.
_SIGNS = (b",", b"[", b"{")
_TOO_MANY = re.compile(
    rb'(?:[^",{\[]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",{\[]*+)*+[,{\[]){%d}+' % (MOST_VALUES + 1), re.DOTALL
)


def invalid(message: str, param: str) -> InvalidRequest:
    """A refusal that names the member at fault."""
    return InvalidRequest(message, detail={"param": param})


def _is_utf8(body: bytes) -> bool:
    """Whether a body is valid UTF-8 throughout; decoded in pieces, so that a large one is never held twice."""
    if body.isascii():
        return True
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        for start in range(0, len(body), _DECODED_AT_ONCE):
            decode(body[start : start + _DECODED_AT_ONCE])
        decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def refuse_too_many_values(body: bytes) -> None:
    """Raise ``InvalidRequest`` for a JSON object of more values than anybody sends, before any is read."""
    if len(body) <= MOST_VALUES or _OBJECT.match(body) is None:
        return
    signs = 0
    for start in range(0, len(body), _DECODED_AT_ONCE):
        end = start + _DECODED_AT_ONCE
        for sign in _SIGNS:
            if body.find(sign, start, end) >= 0:  # much faster than counting, and there are none in large media
                signs += body.count(sign, start, end)
    if signs > MOST_VALUES and _TOO_MANY.match(body) is not None:
        raise InvalidRequest(f"The request body has more than {MOST_VALUES:,} values.")


def decode_body(kind: str, body: bytes) -> Body:
    """The members we act on. Raises ``InvalidRequest`` if the body is not a JSON object, or nested too deeply."""
    if not _is_utf8(body):
        raise InvalidRequest("The request body is not valid JSON: it is not UTF-8.")
    decoder = _DECODERS.get(kind, _bodies)
    try:
        decoded: Body = decoder.decode(body)
        return decoded
    except msgspec.ValidationError as error:
        if "$." in str(error):
            name = str(error).rsplit("$.", 1)[1].strip("`")
            raise invalid(f"{name!r} must be an object.", name) from None
        raise InvalidRequest("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply.") from None


def members(document: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object that ``decode_body`` has taken, every value left as the bytes it is."""
    try:
        return _members.decode(document)
    except RecursionError:  # how deep is too deep depends on how deep the caller is
        raise InvalidRequest("The request body is nested too deeply.") from None


def names_in_order(document: bytes) -> list[str]:
    """The names of a JSON object's members as they stand there, repetitions included, as far as the first one."""
    values = members(document)
    if len(values) > MOST_MEMBERS:
        raise InvalidRequest(_TOO_MANY_MEMBERS)
    if max(map(len, values), default=0) > LONGEST_NAME:
        raise InvalidRequest(f"The request body has a name of more than {LONGEST_NAME:,} characters.")
    names: list[str] = []
    at = document.index(b"{") + 1
    while match := _NAME.match(document, at):
        name = msgspec.json.decode(match[1], type=str)
        names.append(name)
        if len(names) > MOST_MEMBERS:
            raise InvalidRequest(_TOO_MANY_MEMBERS)
        # Of a repeated name ``values`` has the last value; so where another stands, this name comes again.
        value, at = memoryview(values[name]), match.end()
        after = _AFTER.match(document, at + len(value)) if document[at : at + len(value)] == value else None
        if after is None:
            return [*names, name]
        at = after.end()
    return names


def refuse_repetitions(kind: str, body: bytes) -> bool:
    """Raise ``InvalidRequest`` if a member that we act on stands in the body twice, or in two spellings.

    Returns whether there may be an image, a file or a sound in it.
    """
    found: set[bytes] = set()
    seen_upto = 0  # the first repetition, where there is one
    for mark in _MARKS.get(kind, _MARKS_OTHERWISE).finditer(body):
        name = mark[0].lower()
        if name in found:
            seen_upto = mark.end()
            break
        found.add(name)
    escaped = b"\\u00" in body and _ESCAPED_LETTER.search(body) is not None
    if escaped or seen_upto:
        _look_for_repetitions(kind, body)
    if escaped or not _MEDIA_MARKS.isdisjoint(found):
        return True
    return seen_upto > 0 and _MEDIA_MARK.search(body, seen_upto) is not None


def _look_for_repetitions(kind: str, body: bytes) -> None:
    form = FORMS.get(kind, NO_FORM)
    names = names_in_order(body)
    if kind in _IN_ANY_CASE:
        names = list(map(str.lower, names))
    _refuse_twice(names, (*_COMMON, *form.section) if form.section else (*_COMMON, *form.limits, *form.choices))
    for section in form.section:
        if section in names and bytes(value := members(body)[section]).lstrip().startswith(b"{"):
            _refuse_twice(names_in_order(bytes(value)), (*form.limits, *form.choices))


def _refuse_twice(names: list[str], acted_on: Iterable[str]) -> None:
    for name in acted_on:
        if names.count(name) > 1:
            raise invalid(f"{name!r} is in the request more than once.", name)


def one_of(section: Section, names: tuple[str, ...], largest: int) -> int | None:
    """The largest of several members that say the same, each checked; None if there is none, or no limit.

    Raises ``InvalidRequest`` for anything but a whole number from 1 to ``largest``.
    """
    found: int | None = None
    for name in names:
        value = getattr(section, name)
        if value is None or (type(value) is int and value in _UNLIMITED.get(name, ())):
            continue
        if type(value) is not int or not 1 <= value <= largest:
            raise invalid(f"{name!r} must be a whole number from 1 to {largest:,}.", name)
        found = value if found is None else max(found, value)
    return found


def section_of(body: Body, form: Form) -> Section:
    """The object that a form's limits stand in; an empty one if the request has none."""
    if not form.section:
        return body
    present = [section for name in form.section if (section := getattr(body, name)) is not None]
    if len(present) > 1:
        raise invalid(f"The request has both {form.section[0]!r} and {form.section[1]!r}.", form.section[0])
    found: Section = present[0] if present else OtherSection()
    for names in (form.limits, form.choices):
        if sum(getattr(found, name) is not None for name in names) > 1:
            raise invalid(f"{names[0]!r} is in the request in two spellings.", names[0])
    return found


def flag(value: object, name: str) -> bool:
    """A member that is true, false or absent. Raises ``InvalidRequest`` for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"{name!r} must be true or false.", name)


def model_name(value: object) -> str:
    """A model's name, safe to stand in a path and in a record; empty if there is none.

    Raises ``InvalidRequest`` for names that could be read as another path (``..``, backslash, ``?``, ``#``, ``%``),
    hold control characters or spaces around them, or are longer than 256 characters.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid("'model' must be a string.", "model")
    if len(value) > LONGEST_MODEL or not _is_plain(value):
        raise invalid("'model' is not the name of a model.", "model")
    return value


_NOT_IN_MODELS = re.compile(r"[\\?#%]|//")


@lru_cache(4_096)
def _is_plain(name: str) -> bool:
    return name.isprintable() and name == name.strip() and ".." not in name and not _NOT_IN_MODELS.search(name)


def prompts(raw: msgspec.Raw) -> int:
    """How many prompts a completion has: each gets its own ``n`` choices."""
    if bytes(memoryview(raw)[:1]) != b"[":
        return 1
    found = msgspec.json.decode(raw, type=list[msgspec.Raw])
    if not found or bytes(memoryview(found[0])[:1]) not in (b'"', b"["):
        return 1  # one prompt, written as token numbers
    return len(found)
