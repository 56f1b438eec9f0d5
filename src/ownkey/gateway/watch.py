"""Read usage from a reply while its bytes pass, changing none of them.

While a reply runs, its bytes are only put aside. They are looked at when it ends, when somebody asks how far it is,
or when 256 KiB have gathered; each byte once. What is held is bounded, whatever a provider sends.
"""

from __future__ import annotations

from ownkey.gateway import ceilings, estimates, sse
from ownkey.gateway.call import Call
from ownkey.gateway.dialects.dialect import Headers
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.inflate import Inflater, knows
from ownkey.gateway.readers import (
    DocumentReader,
    EventReader,
    FrameReader,
    LineReader,
    Reader,
    TextReader,
    WholeReader,
    form_of,
)
from ownkey.metering.usage import NOTHING_USED, Usage

_MOST_UNREAD = 262_144
_MOST_PIECES = 4_096
_PICTURES = ("images", "predict", "bedrock_images")


class ReplyWatch:
    """Reads usage from one reply while its bytes pass."""

    __slots__ = ("_call", "_content_type", "_in_head", "_inflater", "_most", "_pieces", "_reader", "_unread")

    def __init__(self, call: Call, content_type: str, content_encoding: str, headers: Headers = ()) -> None:
        self._call = call
        self._content_type = content_type
        self._pieces: list[bytes] = []
        self._unread = 0
        self._most = 0
        self._inflater: Inflater | None = None
        self._reader: Reader | None = None
        self._in_head = call.endpoint.dialect.reported_in_headers(headers)
        if content_encoding:
            encoding = content_encoding.strip().lower()
            if knows(encoding):
                self._inflater = Inflater(encoding)
            elif encoding != "identity":
                self._reader = TextReader(call.endpoint.dialect)

    def feed(self, data: bytes) -> None:
        """The next bytes of the body, as they came from the provider; of what costs nothing none is looked at."""
        if not self._call.endpoint.generates:
            return
        if self._inflater is None:
            self._pieces.append(data)
            self._unread += len(data)
            if self._unread > _MOST_UNREAD or len(self._pieces) > _MOST_PIECES:
                self._read()
            return
        for piece in self._inflater.read(data):
            self._pieces.append(piece)
            self._unread += len(piece)
            if self._unread > _MOST_UNREAD:
                self._read()

    @property
    def is_event_stream(self) -> bool:
        """Whether the reply is events to which one of ours, an error, can be added where it is now."""
        if "event-stream" in self._content_type.lower():
            return True
        self._read()
        return isinstance(self._reader, FrameReader | LineReader) and self._reader.between_events

    @property
    def provider_failed(self) -> bool:
        """Whether the provider has reported an error inside a reply that began well."""
        self._read()
        return self._reader is not None and self._reader.failed

    @property
    def ends_in_error(self) -> bool:
        """Whether the last bytes of a stream look like an error, so that all of them are worth reading."""
        if not self._call.stream:
            return False
        end = b"".join(self._pieces[-3:])[-2_048:]
        return b'"error":{' in end or b'"error": {' in end

    def output_so_far(self) -> int:
        """About how many output tokens have passed; never falls while a reply runs."""
        self._read()
        return self._written()

    def usage(self, finished: bool) -> Usage:
        """What the reply used: as reported, else estimated and marked so. Ask once, when no byte follows.

        ``finished``: the provider ended the reply; else it broke off somewhere, and what it reported of its output
        may be less than what passed.
        """
        call = self._call
        if not call.endpoint.generates:
            return NOTHING_USED
        if self._in_head is not None and self._is_exact(self._in_head, finished):
            return self._in_head.usage()
        reported = self._at_a_glance() if self._in_head is None else self._with_head(self._at_a_glance())
        if reported is not None and self._is_exact(reported, finished):
            return reported.usage()
        self._read(more_may_come=False)
        if self._reader is not None:
            self._reader.end()
            reported = self._reader.reported
            if self._in_head is not None:
                reported = self._with_head(reported)
        if reported is not None and self._is_exact(reported, finished):
            return reported.usage()
        return self._estimate(reported, finished)

    def _with_head(self, reported: Reported | None) -> Reported | None:
        """A report of the body, completed by what the head says."""
        return self._call.endpoint.dialect.merged(reported, self._in_head)

    def _at_a_glance(self) -> Reported | None:
        """What the reply reports, if none of it was read so far: then only the place where usage stands is."""
        if self._reader is not None or self._unread > _MOST_UNREAD:
            return None
        dialect = self._call.endpoint.dialect
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        kind = self._call.endpoint.kind
        if data[:1] == b"{" and kind != "transcription":
            return dialect.reported_in_body(data)
        form = form_of(kind, self._content_type.lower(), data, more_may_come=False)
        if form is EventReader:
            return dialect.reported_in_events(sse.with_line_feeds(data))
        return dialect.reported_in_body(data) if form in (DocumentReader, WholeReader) else None

    def _is_exact(self, reported: Reported, finished: bool) -> bool:
        """Whether a report says all there is to say."""
        return reported.input_tokens is not None and self._output_is_exact(reported, finished)

    def _output_is_exact(self, reported: Reported, finished: bool) -> bool:
        if reported.output_tokens is None:
            return self._most_output() == 0
        return reported.final or (finished and not reported.provisional)

    def _estimate(self, reported: Reported | None, finished: bool) -> Usage:
        """A usage in which something is missing: what is reported, and our own count of the rest."""
        written = self._written()
        if reported is None:
            if self._reader is not None and self._reader.failed and not written:
                return NOTHING_USED  # a refusal under status 200
            if self._call.endpoint.kind in _PICTURES:
                written = estimates.IMAGE_WRITTEN * self._call.choices
            reported = Reported()
        usage = reported.usage()
        return Usage(
            self._input_estimate() if reported.input_tokens is None else usage.input_tokens,
            usage.output_tokens if self._output_is_exact(reported, finished) else max(usage.output_tokens, written),
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            estimated=True,
        )

    def _input_estimate(self) -> int:
        """Our own count of what the model read, never more than was held for it."""
        call = self._call
        estimate = call.input_estimate()
        if ceilings.reads_what_is_kept(call.endpoint.kind, call.model, call.fields):
            estimate = min(estimate + estimates.KEPT_READ, call.input_ceiling())
        return estimate

    def _read(self, *, more_may_come: bool = True) -> None:
        """Hand what was put aside to the reader."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        if self._reader is None:
            kind, content_type = self._call.endpoint.kind, self._content_type.lower()
            form = form_of(kind, content_type, data, more_may_come=more_may_come)
            if form is None:
                self._pieces = [data]
                return
            self._reader = form(self._call.endpoint.dialect)
        self._pieces, self._unread = [], 0
        self._reader.take(data)

    def _written(self) -> int:
        """Our count of what the model wrote, never more than it may write."""
        if self._reader is not None:
            self._most = max(self._most, min(self._reader.output_tokens(), self._most_output()))
        return self._most

    def _most_output(self) -> int:
        call = self._call
        return (call.output_maximum() if call.output_limit is None else call.output_limit) * call.choices
