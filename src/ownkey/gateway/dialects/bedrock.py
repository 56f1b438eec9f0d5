"""Amazon Bedrock's formats: Converse, and Invoke, whose bodies are those of the model's maker.

Usage: Converse has it in its reply and in the ``metadata`` event, Invoke in headers of the reply and in the
``amazon-bedrock-invocationMetrics`` of its last chunk, and in most bodies as the model's maker says it. Cached input
stands beside the input. A stream is AWS event frames; a chunk of Invoke's holds its JSON in base64
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ownkey.errors import OwnkeyError
from ownkey.gateway.dialects.anthropic import ANTHROPIC
from ownkey.gateway.dialects.counts import count
from ownkey.gateway.dialects.dialect import Headers, Message
from ownkey.gateway.dialects.error_shapes import extra_members, words_for
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.event_frames import FrameCutter, FramesBroken, frame
from ownkey.gateway.json_scan import UNREADABLE, text_bytes
from ownkey.metering.usage import Usage

_TAKEN = frozenset({"message", "code", "__type"})
_NUMBER = re.compile(rb"[0-9]{1,12}")
_METRICS = "amazon-bedrock-invocationMetrics"
_HEADERS = (
    b"x-amzn-bedrock-input-token-count",
    b"x-amzn-bedrock-output-token-count",
    b"x-amzn-bedrock-cache-read-input-token-count",
    b"x-amzn-bedrock-cache-write-input-token-count",
)


class _Counts(msgspec.Struct, rename="camel"):
    input_tokens: Any = None
    output_tokens: Any = None
    input_token_count: Any = None
    output_token_count: Any = None
    cache_read_input_tokens: Any = None
    cache_write_input_tokens: Any = None
    cache_read_input_token_count: Any = None
    cache_write_input_token_count: Any = None


class _Metadata(msgspec.Struct):
    usage: _Counts | None = None


class _Result(msgspec.Struct, rename="camel"):
    token_count: Any = None


class _Document(msgspec.Struct):
    """The members of a reply or an event that usage can be in."""

    usage: _Counts | None = None
    metadata: _Metadata | None = None
    metrics: _Counts | None = msgspec.field(default=None, name=_METRICS)
    chunk: str | None = msgspec.field(default=None, name="bytes")
    # Titan; Llama
    input_text_token_count: Any = msgspec.field(default=None, name="inputTextTokenCount")
    results: list[_Result] | None = None
    prompt_token_count: Any = None
    generation_token_count: Any = None
    embedding: msgspec.Raw = msgspec.Raw(b"")


_documents = msgspec.json.Decoder(_Document)


def _first_count(*values: object) -> int | None:
    return next((found for value in values if (found := count(value)) is not None), None)


def _read_counts(counts: _Counts) -> Reported | None:
    incoming = _first_count(counts.input_tokens, counts.input_token_count)
    outgoing = _first_count(counts.output_tokens, counts.output_token_count)
    if incoming is None and outgoing is None:
        return None
    read = _first_count(counts.cache_read_input_tokens, counts.cache_read_input_token_count)
    written = _first_count(counts.cache_write_input_tokens, counts.cache_write_input_token_count)
    return Reported(incoming, outgoing, read, written, None, cache_outside=True, final=True)


def _read_own(found: _Document) -> Reported | None:
    """What is reported in Amazon's own words, or in those of Titan and Llama."""
    for counts in (found.metrics, found.usage, found.metadata.usage if found.metadata is not None else None):
        if counts is not None and (reported := _read_counts(counts)) is not None:
            return reported
    incoming = _first_count(found.input_text_token_count, found.prompt_token_count)
    outgoing = count(found.generation_token_count)
    if found.results is not None:
        written = [number for result in found.results if (number := count(result.token_count)) is not None]
        outgoing = sum(written) if written else None
    if found.embedding:
        outgoing = 0
    return Reported(incoming, outgoing, final=outgoing is not None) if incoming is not None else None


def _opened(payload: bytes) -> bytes:
    """The JSON inside an Invoke chunk; any other payload as it is."""
    if b'"bytes"' not in payload[:64]:
        return payload
    try:
        chunk = _documents.decode(payload).chunk
        return payload if chunk is None else base64.b64decode(chunk)
    except (*UNREADABLE, binascii.Error, ValueError):
        return payload


def _read(payload: bytes) -> Reported | None:
    """What one reply, or one event, reports."""
    payload = _opened(payload)
    try:
        reported = _read_own(_documents.decode(payload))
    except UNREADABLE:
        reported = None
    return reported or ANTHROPIC.reported_in_body(payload) or OPENAI.reported_in_body(payload)


def _in_base64(text: bytes) -> tuple[bytes, ...]:
    """What ``text`` looks like somewhere in base64, by the three places it can begin at."""
    found = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text)
        whole = (before + len(text)) // 3 * 4
        found.append(encoded[4 if before else 0 : whole])
    return tuple(found)


_END_MARKERS = (b":event-type\x07\x00\x08metadata", *_in_base64(_METRICS.encode()))


class BedrockDialect:
    """Amazon's formats."""

    name = "bedrock"
    usage_paths: tuple[tuple[str, ...], ...] = (("usage",), ("metadata", "usage"), (_METRICS,), ("message", "usage"))
    event_gap = b""

    def reported_in_headers(self, headers: Headers) -> Reported | None:
        """The counts that Invoke puts into the head of its reply; they are what Amazon bills."""
        found = {
            name: int(value) for name, value in headers if name in _HEADERS and value.isdigit() and len(value) < 10
        }
        if not found:
            return None
        incoming, outgoing, read, written = (found.get(name) for name in _HEADERS)
        return Reported(incoming, outgoing, read, written, None, cache_outside=True, final=True)

    def reported_in_body(self, body: bytes) -> Reported | None:
        """What a reply reports."""
        return _read(body)

    def reported_in_events(self, data: bytes) -> Reported | None:
        """What whole frames report, merged by field."""
        reported: Reported | None = None
        with suppress(FramesBroken):
            for _, payload in FrameCutter(len(data)).take(data):
                reported = self.merged(reported, _read(payload))
        return reported

    def mentions_usage(self, payload: bytes) -> bool:
        """Whether the data may have usage: a chunk of Invoke's does not show it."""
        return b'"usage"' in payload or b'"bytes"' in payload

    def merged(self, earlier: Reported | None, later: Reported | None) -> Reported | None:
        """By field: what the later report says wins, what it leaves out stays."""
        if earlier is None or later is None:
            return later or earlier
        return earlier.updated_by(later)

    def usage_in_body(self, body: bytes) -> Usage | None:
        """The usage a reply reports, None if it reports none."""
        reported = self.reported_in_body(body)
        return reported.usage() if reported else None

    def usage_in_events(self, data: bytes) -> Usage | None:
        """The usage that whole frames report, None if none."""
        reported = self.reported_in_events(data)
        return reported.usage() if reported else None

    def emitted(self, payload: bytes) -> int:
        """UTF-8 bytes of text, reasoning and tool arguments in one event."""
        return text_bytes(_opened(payload))

    def is_error(self, payload: bytes) -> bool:
        """Never by its data: an error is a frame whose header says so (``readers.FrameReader``)."""
        return False

    def end_markers(self, _kind: str) -> tuple[bytes, ...]:
        """The name of Converse's last event; the metrics in Invoke's last chunk."""
        return _END_MARKERS

    def error_body(self, error: OwnkeyError, request_id: str) -> bytes:
        """``{"message", "code"}``; the exception's name is in the header ``x-amzn-errortype`` and in ``__type``."""
        name = words_for(error).bedrock
        error.headers["x-amzn-errortype"] = name
        return msgspec.json.encode(
            {
                "message": error.message,
                "__type": name,
                "code": error.code,
                **extra_members(error, _TAKEN),
                "request_id": request_id,
            }
        )

    def error_event(self, error: OwnkeyError, request_id: str) -> bytes:
        """The error as an exception frame, on which AWS's SDKs raise. Only possible between two frames."""
        name = words_for(error).bedrock
        headers = {
            ":exception-type": name[0].lower() + name[1:],
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return frame(headers, msgspec.json.encode({"message": error.message, "code": error.code}))

    def chat(self, model: str, messages: Sequence[Message], _api_root: str | None = None) -> tuple[str, bytes]:
        """A streamed chat at Bedrock's OpenAI-compatible endpoint, whose events a page can read."""
        return OPENAI.chat(model, messages, "/openai/v1")

    def text_of(self, _payload: bytes) -> str:
        """Nothing: a chat is in OpenAI's format."""
        return ""


BEDROCK = BedrockDialect()
