"""Plausible values for a JSON schema: the arguments of a tool call, or a structured answer."""

from __future__ import annotations

import re

from ownkey.demo.simulated.wire import Json

_DEEPEST = 6
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000001",
}


def example(schema: Json, question: str) -> object:
    """A value that fits the schema, taken from the question where it can be: names for texts, digits for numbers."""
    return _value(schema, _Words(question), schema, name="value", depth=0)


class _Words:
    """What of a question may become an argument."""

    def __init__(self, question: str) -> None:
        words = re.findall(r"[^\W\d_][\w'-]*", question)
        names = [word for word in words[1:] if word[0].isupper()]
        self.name = names[-1] if names else None
        self.numbers = re.findall(r"\d+(?:\.\d+)?", question)

    def number(self) -> float:
        return float(self.numbers.pop(0)) if self.numbers else 1.0


def _value(schema: Json, words: _Words, root: Json, name: str, depth: int) -> object:
    schema = _resolved(schema, root)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, words, root, depth)
    if kind == "array":
        items = schema.get("items") or {}
        enough = depth >= _DEEPEST
        return [] if enough else [_value(items, words, root, name, depth + 1)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        number = max(words.number(), schema.get("minimum", 0))
        number = min(number, schema.get("maximum", number))
        return int(number) if kind == "integer" or number.is_integer() else number
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _FORMATS.get(schema.get("format", "")) or words.name or name.replace("_", " ")


def _object(schema: Json, words: _Words, root: Json, depth: int) -> Json:
    properties: Json = schema.get("properties") or {}
    wanted = schema.get("required") or list(properties)
    if depth >= _DEEPEST:
        return {}
    return {key: _value(properties.get(key) or {}, words, root, key, depth + 1) for key in wanted}


def _kind(schema: Json) -> str:
    """The first type that is not null, in lower case (Gemini writes ``STRING``)."""
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    lower = [str(kind).lower() for kind in kinds]
    return next((kind for kind in lower if kind != "null"), "null")


def _resolved(schema: Json, root: Json) -> Json:
    """Follow ``$ref`` into the same document and take the first alternative that is not null."""
    for _ in range(_DEEPEST):
        if "$ref" in schema:
            target: object = root
            for step in str(schema["$ref"]).lstrip("#/").split("/"):
                target = target.get(step, {}) if isinstance(target, dict) else {}
            schema = target if isinstance(target, dict) else {}
        elif alternatives := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = next((one for one in alternatives if one.get("type") != "null"), {})
        else:
            break
    return schema
