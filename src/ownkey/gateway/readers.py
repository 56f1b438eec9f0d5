"""The forms a reply can have, read piece by piece: events, frames, lines, a document, plain text or sound.

Each reads a byte once and holds a bounded number of them, whatever a provider sends: of an event or a document
beyond a megabyte only usage is kept (``json_scan``).
"""

from __future__ import annotations

from ownkey.gateway import sse
from ownkey.gateway.dialects.dialect import Dialect
from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.estimates import BYTES_PER_AUDIO_TOKEN, BYTES_PER_TOKEN, IMAGE_WRITTEN, tokens_of_text
from ownkey.gateway.event_frames import CONTENT_TYPE, FrameCutter, FramesBroken, begins_frames
from ownkey.gateway.json_scan import JsonScan

MOST_HELD = 1_048_576
_EVENT_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BEGINNING = 256
_ENOUGH_TO_TELL = 12
_NO_EVENT = (b":message-type\x07\x00\x09exception", b":message-type\x07\x00\x05error")


def _encoded_tokens(scan: JsonScan) -> int:
    """What encoded strings count: each a picture, or sound that is longer than one."""
    return max(scan.encoded_strings * IMAGE_WRITTEN, scan.encoded_bytes * 3 // 4 // BYTES_PER_AUDIO_TOKEN)


class EventReader:
    """Reads server-sent events: usage, whether one is an error, and how much the model wrote."""

    def __init__(self, dialect: Dialect) -> None:
        self.reported: Reported | None = None
        self.failed = False
        self._dialect = dialect
        self._rest = b""
        self._deltas = 0
        self._text_bytes = 0
        self._encoded_tokens = 0
        self._large: JsonScan | None = None  # reads an event that is too large to hold

    def take(self, data: bytes) -> None:
        """The next bytes. A CR at their end may be half of a line end, and waits for what follows."""
        data = self._rest + data
        cut = data.endswith(b"\r")
        whole, blank_line, rest = sse.with_line_feeds(data[:-1] if cut else data).rpartition(b"\n\n")
        if blank_line:
            may_report = b'"error"' in whole or self._dialect.mentions_usage(whole)
            for event in whole.split(b"\n\n"):
                self._read(event, may_report)
        if self._large is None and len(rest) > MOST_HELD:
            self._large = self._new_scan()
        if self._large is not None:
            self._large.take(rest)
            rest = b"\n" if rest.endswith(b"\n") else b""  # perhaps half of the blank line
        self._rest = rest + b"\r" if cut else rest

    def end(self) -> None:
        """The stream is over: an event without its blank line is read too, as far as it goes."""
        rest, self._rest = sse.with_line_feeds(self._rest).strip(b"\n"), b""
        if rest or self._large is not None:
            self._read(rest, may_report=True)

    def _read(self, event: bytes, may_report: bool) -> None:
        """One event; ``may_report``: there may be usage or an error in it."""
        if self._large is not None or len(event) > MOST_HELD:
            self._read_large(event)
            return
        payload = event[5:] if event[:5] == b"data:" and b"\n" not in event else sse.payload(event)
        if not payload:
            return
        dialect = self._dialect
        written = dialect.emitted(payload)
        if written:
            self._deltas += 1
            self._text_bytes += written
        if not may_report:
            return
        if not written and b'"error"' in payload and dialect.is_error(payload):
            self.failed = True
        if dialect.mentions_usage(payload):
            self.reported = dialect.merged(self.reported, dialect.reported_in_body(payload))

    def _read_large(self, rest: bytes) -> None:
        """The end of an event that was too large to hold, or such an event in one piece."""
        scan, self._large = self._large or self._new_scan(), None
        scan.take(rest)
        self._deltas += 1
        self._text_bytes += scan.text_bytes
        self._encoded_tokens += _encoded_tokens(scan)
        for member in scan.members():
            self.reported = self._dialect.merged(self.reported, self._dialect.reported_in_body(member))

    def output_tokens(self) -> int:
        """About how many tokens the model wrote: one an event, or one for four bytes, whichever is more."""
        text, encoded = self._text_bytes, self._encoded_tokens
        if self._large is not None:
            text, encoded = text + self._large.text_bytes, encoded + _encoded_tokens(self._large)
        return max(self._deltas, tokens_of_text(text) + encoded)

    def _new_scan(self) -> JsonScan:
        return JsonScan(self._dialect.usage_paths, finds_encoded=True)


class LineReader:
    """Reads one JSON document a line, as Ollama and Cohere's first version stream them."""

    def __init__(self, dialect: Dialect) -> None:
        self.reported: Reported | None = None
        self.failed = False
        self._dialect = dialect
        self._rest = b""
        self._lines = 0
        self._text_bytes = 0
        self.between_events = True
        """Whether a line of ours can follow."""

    def take(self, data: bytes) -> None:
        """The next bytes. Of a line too large to hold, what follows its first megabyte is read as lines again."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._read(line)
        self.between_events = not self._rest
        if len(self._rest) > MOST_HELD:
            self.end()

    def end(self) -> None:
        """The reply is over: a line without its end is read too, as far as it goes."""
        rest, self._rest = self._rest, b""
        self._read(rest)

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        dialect = self._dialect
        written = dialect.emitted(line)
        if written:
            self._lines += 1
            self._text_bytes += written
        elif b'"error"' in line and dialect.is_error(line):
            self.failed = True
        if dialect.mentions_usage(line):
            self.reported = dialect.merged(self.reported, dialect.reported_in_body(line))

    def output_tokens(self) -> int:
        """About how many tokens the model wrote: one a line, or one for four bytes, whichever is more."""
        return max(self._lines, tokens_of_text(self._text_bytes))


class FrameReader:
    """Reads the frames of an AWS event stream; what stops being frames is counted by its bytes from there on."""

    def __init__(self, dialect: Dialect) -> None:
        self.reported: Reported | None = None
        self.failed = False
        self._dialect = dialect
        self._cutter: FrameCutter | None = FrameCutter(MOST_HELD)
        self._deltas = 0
        self._text_bytes = 0

    @property
    def between_events(self) -> bool:
        """Whether a frame of ours can follow."""
        return self._cutter is not None and self._cutter.between_frames

    def take(self, data: bytes) -> None:
        """The next bytes."""
        if self._cutter is None:
            self._text_bytes += len(data)
            return
        try:
            for headers, payload in self._cutter.take(data):
                self._read(headers, payload)
        except FramesBroken:
            self._cutter = None
            self._text_bytes += len(data)

    def end(self) -> None:
        """The stream is over; a frame that is not whole says nothing."""

    def _read(self, headers: bytes, payload: bytes) -> None:
        if any(mark in headers for mark in _NO_EVENT):
            self.failed = True
            return
        dialect = self._dialect
        written = dialect.emitted(payload)
        if written:
            self._deltas += 1
            self._text_bytes += written
        if dialect.mentions_usage(payload):
            self.reported = dialect.merged(self.reported, dialect.reported_in_body(payload))

    def output_tokens(self) -> int:
        """About how many tokens the model wrote: one a frame, or one for four bytes, whichever is more."""
        return max(self._deltas, tokens_of_text(self._text_bytes))


class DocumentReader:
    """Reads a JSON document, an array that grows, or one document a line."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._held: bytearray | None = bytearray()
        self._scan = JsonScan(dialect.usage_paths)
        self._found: Reported | None = None

    def take(self, data: bytes) -> None:
        """The next bytes."""
        self._scan.take(data)
        for member in self._scan.members():
            self._found = self._dialect.merged(self._found, self._dialect.reported_in_body(member))
        if self._held is not None:
            self._held += data
            if len(self._held) > MOST_HELD:
                self._held = None

    def end(self) -> None:
        """The reply is over; a document is read as far as it goes."""

    @property
    def reported(self) -> Reported | None:
        """What the document reports so far."""
        if self._held is None:
            return self._found
        return self._dialect.reported_in_body(bytes(self._held)) or self._found

    @property
    def failed(self) -> bool:
        """Whether the whole document is an error."""
        return self._held is not None and b'"error"' in self._held and self._dialect.is_error(bytes(self._held))

    def output_tokens(self) -> int:
        """About how many tokens the model wrote: one for four bytes of its text."""
        return tokens_of_text(self._scan.text_bytes)


class WholeReader(DocumentReader):
    """Reads a document whose members we do not know: all of it counts as written, pictures and sounds as such."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self._scan = JsonScan(dialect.usage_paths, finds_encoded=True)
        self._length = 0

    def take(self, data: bytes) -> None:
        """The next bytes."""
        super().take(data)
        self._length += len(data)

    def output_tokens(self) -> int:
        """One token for four bytes; what is encoded by what it is."""
        if self.failed:
            return super().output_tokens()
        return tokens_of_text(self._length - self._scan.encoded_bytes) + _encoded_tokens(self._scan)


class TextReader:
    """Counts the bytes of a reply that has no structure for us: plain text, an unknown encoding."""

    reported: Reported | None = None
    failed = False

    def __init__(self, dialect: Dialect, bytes_per_token: int = BYTES_PER_TOKEN) -> None:
        self._bytes_per_token = bytes_per_token
        self._length = 0

    def take(self, data: bytes) -> None:
        """The next bytes."""
        self._length += len(data)

    def end(self) -> None:
        """The reply is over."""

    def output_tokens(self) -> int:
        """About how many tokens so many bytes are."""
        return -(-self._length // self._bytes_per_token)


class SoundReader(TextReader):
    """The same for speech."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect, BYTES_PER_AUDIO_TOKEN)


Reader = EventReader | FrameReader | LineReader | DocumentReader | TextReader


def form_of(kind: str, content_type: str, beginning: bytes, *, more_may_come: bool) -> type[Reader] | None:
    """Which of the readers a reply needs: by its first bytes, and by its content type where they do not tell.

    Some providers send events as ``application/json`` or without a type. A transcript as text is what somebody said,
    with whatever signs it begins. None: not enough bytes to tell yet.
    """
    if kind == "transcription" and content_type.startswith("text/") and "event-stream" not in content_type:
        return TextReader
    if CONTENT_TYPE in content_type:
        return FrameReader
    if "ndjson" in content_type or "stream+json" in content_type:
        return LineReader
    start = beginning[:_BEGINNING].removeprefix(b"\xef\xbb\xbf").lstrip()
    document = WholeReader if kind == "unknown" else DocumentReader
    if start[:1] in (b"{", b"["):
        return document
    if start.startswith(_EVENT_BEGINNINGS):
        return EventReader
    if more_may_come and len(start) < _ENOUGH_TO_TELL and len(beginning) < _BEGINNING:
        return None
    if beginning[:1] == b"\0" and begins_frames(beginning):
        return FrameReader
    if "event-stream" in content_type:
        return EventReader
    if content_type.startswith("text/") or "subrip" in content_type or not content_type:
        return TextReader
    return document if "json" in content_type else SoundReader
