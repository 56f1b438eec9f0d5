"""The simulated model: counts tokens by one rule and writes answers that depend on the question only.

**The rule.** A token is a run of at most twelve letters, digits or underscores, or one other visible character;
white space rides along with the token after it. Output is counted so. Input is counted so, too: every text in the
messages and instructions, tool definitions as JSON, and 64 tokens for each picture or file; at least one token.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Literal

from ownkey.demo.simulated.schemas import example
from ownkey.demo.simulated.wire import Json, encoded

ATTACHMENT_TOKENS = 64
MOST_WORDS = 5_000
"""The longest answer somebody can ask for."""

_TOKEN = re.compile(r"\s*(?:\w{1,12}|[^\w\s])(?:\s+\Z)?")
_LABELS = {
    *("role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "cache_control", "status", "detail"),
    *("mime_type", "mimeType", "media_type", "signature", "thoughtSignature", "encrypted_content"),
}
"""Fields that the model does not read."""
_ATTACHMENT_TYPES = {"image", "image_url", "input_image", "document", "input_file", "file", "input_audio", "video_url"}
_ATTACHMENT_KEYS = ("inlineData", "inline_data", "fileData", "file_data")
_LONG_ANSWER = re.compile(r"(\d{1,6})\s+words", re.IGNORECASE)

Finish = Literal["stop", "length", "tool"]


def tokens(text: str) -> list[str]:
    """The tokens of a text; joined they give the text again (only white space alone is no token)."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(tokens(text))


def count_input(*parts: object, tools: object = None) -> int:
    """Tokens of everything the model reads: texts anywhere in ``parts``, attachments, and the tool definitions."""
    texts: list[str] = []
    attachments = sum(_read(part, texts) for part in parts)
    definitions = count(encoded(tools)) if tools else 0
    return max(1, sum(map(count, texts)) + attachments * ATTACHMENT_TOKENS + definitions)


def _read(value: object, texts: list[str]) -> int:
    """Collect the texts of a value; return how many attachments it holds."""
    if isinstance(value, str):
        texts.append(value)
        return 0
    if isinstance(value, dict):
        if value.get("type") in _ATTACHMENT_TYPES or any(key in value for key in _ATTACHMENT_KEYS):
            return 1
        return sum(_read(item, texts) for key, item in value.items() if key not in _LABELS)
    return sum(_read(item, texts) for item in value) if isinstance(value, list) else 0


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    parameters: Json


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks, in no dialect's words."""

    model: str
    text: str
    """The last thing the user said."""
    input_tokens: int
    limit: int | None = None
    """The most output tokens."""
    tools: tuple[Tool, ...] = ()
    forced: bool = False
    """A tool must be called."""
    result: str | None = None
    """What a tool returned, if the request ends with that."""
    schema: Json | None = None
    """The shape of a structured answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; the arguments are JSON, broken off if the output limit was reached."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: text or a tool call, in tokens."""

    pieces: list[str]
    finish: Finish
    call: Call | None = None
    extra_tokens: int = field(default=0)
    """Tokens that are no piece: a tool's name."""

    @property
    def text(self) -> str:
        """The whole text, or the whole arguments."""
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int:
        """All tokens the model produced."""
        return len(self.pieces) + self.extra_tokens


def answer(question: Question) -> Answer:
    """Answer: with a tool call where one is asked for, as JSON where a schema is given, else in prose."""
    tool = _tool_for(question)
    if tool is not None:
        room = None if question.limit is None else max(0, question.limit - count(tool.name))
        pieces, cut = _limited(tokens(encoded(example({"type": "object", **tool.parameters}, question.text))), room)
        call = Call(tool.name, "".join(pieces))
        return Answer(pieces, "length" if cut else "tool", call, extra_tokens=count(tool.name))
    text = _prose(question) if question.schema is None else encoded(example(question.schema, question.text))
    pieces, cut = _limited(tokens(text), question.limit)
    return Answer(pieces, "length" if cut else "stop")


def _limited(pieces: list[str], limit: int | None) -> tuple[list[str], bool]:
    cut = limit is not None and len(pieces) > limit
    return (pieces[:limit], True) if cut else (pieces, False)


def _tool_for(question: Question) -> Tool | None:
    """The forced tool, else the first whose name shares a word of four or more letters with the question."""
    if not question.tools or question.result is not None:
        return None
    asked = set(_words(question.text))
    for tool in question.tools:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", tool.name).replace("_", " ")
        if any(len(word) >= 4 and word in asked for word in _words(name)):
            return tool
    return question.tools[0] if question.forced else None


def _words(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[^\W_]+", text)]


def _prose(question: Question) -> str:
    words = question.text.split()
    summary = " ".join(words[:16])[:160] + ("…" if len(words) > 16 else "")
    if question.result is not None:
        return f"The tool answered: {question.result[:400]}\n\nThat is all a simulated model can make of it."
    wanted = _LONG_ANSWER.search(question.text)
    if wanted:
        return _long(summary, min(int(wanted[1]), MOST_WORDS))
    return (
        f"Hello! You asked: “{summary}”\n\n"
        f"I am **a simulated model** playing `{question.model}`. I run inside this demo, know nothing about the world, "
        "and nothing you write leaves this machine. What I can tell about your question:\n\n"
        f"- It has {_several(len(words), 'word')}.\n"
        f"- It seems to be about {_topics(question.text)}.\n"
        "- It and this answer were counted in tokens, as with a real provider: see **Settings → Usage**.\n\n"
        "Ask me for `300 words` to watch a longer answer arrive."
    )


def _topics(text: str) -> str:
    """The longest three words, in the order they were said."""
    said = list(dict.fromkeys(word for word in _words(text) if len(word) > 3))
    longest = sorted(said, key=len, reverse=True)[:3]
    kept = [f"*{word}*" for word in said if word in longest]
    if len(kept) < 2:
        return kept[0] if kept else "nothing in particular"
    return f"{', '.join(kept[:-1])} and {kept[-1]}"


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _long(summary: str, words: int) -> str:
    """About so many words, in numbered sentences, so that one sees where a stream is."""
    lines = [f"You asked: “{summary}”. I am **a simulated model**; here are {words} words.\n"]
    sentence = "This sentence is here to be counted, streamed and metered like any other."
    lines += [f"{number}. {sentence}" for number in range(1, max(1, words // len(sentence.split())) + 1)]
    return "\n".join(lines)


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector of length one; texts that share words lie close together (feature hashing)."""
    vector = [0.0] * dimensions
    for word in _words(text) or [text]:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        for start in range(0, 32, 4):
            vector[int.from_bytes(digest[start : start + 3]) % dimensions] += 1.0 if digest[start + 3] & 1 else -1.0
    length = sum(value * value for value in vector) ** 0.5
    if not length:
        vector[0] = length = 1.0
    return [round(value / length, 7) for value in vector]


def parsed(arguments: str) -> Json | None:
    """The arguments of a call as an object, or None if they were broken off."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
