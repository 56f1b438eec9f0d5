"""Structured log lines on standard error, one JSON object each, with anything like a credential blanked.

``set_up`` takes over Python's own logging, too, so that a library's line looks like ours. A traceback names files
and lines, never the values of local variables: those may hold a key.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

BLANK = "[redacted]"

# What a field is called when its whole value is a credential.
_SECRET_FIELD = re.compile(
    r"authorization|cookie|passw(or)?d|secret|credential|(api|access|private|client)[-_]?key|(^|[-_])token$",
    re.IGNORECASE,
)
# What a credential looks like inside a text. Wide on purpose: a blanked word in a log harms nobody.
_SECRET_TEXT = re.compile(
    r"""
      \bownkey_[0-9A-Za-z]{8,}                                  # our API tokens
    | \b(?:sk|gsk|xai|nvapi|hf|r8|csk|pplx|tgp)[-_][\w\-]{8,} # providers whose keys begin with their name
    | \bAIza[\w\-]{10,} | \bAQ\.[\w\-]{10,}                     # Google
    | \b(?:AKIA|ASIA|ABSK)[0-9A-Za-z+/=]{12,}                   # Amazon
    | (?<=\bBearer\s)\S+ | (?<=\bBasic\s)\S+                    # an Authorization header
    | (?<=[?&]key=)[^&\s"']+                                    # Gemini's query parameter
    | (?<=://)[^/\s:@"']*:[^/\s@"']+(?=@)                       # user and password in an address
    | (?<=/sign-in/)[\w\-]{16,} | (?<=/invitation/)[\w\-]{16,} | (?<=/invitations/)[\w\-]{16,}  # one-time links
    """,
    re.VERBOSE,
)


class _StandardError:
    """Standard error as it is when a line is written, not as it was when logging was set up.

    A line that cannot be written (the disk is full, nobody reads any more, there is none) is lost, and nothing else:
    whoever had something to say goes on.
    """

    def write(self, text: str) -> int:
        with _CANNOT_BE_WRITTEN:
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with _CANNOT_BE_WRITTEN:
            sys.stderr.flush()


# AttributeError: a process without a standard error has None in its place.
_CANNOT_BE_WRITTEN = suppress(OSError, ValueError, AttributeError)


def set_up(level: str) -> None:
    """Write lines of at least this level (``DEBUG`` … ``ERROR``) to standard error from now on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, _StandardError()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *shared,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # They write a line for each request or connection; the usage event is our record of a call.
    for chatty in ("httpx", "httpcore", "uvicorn.access", "aiosqlite", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, getattr(logging, level)))


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The last processor before a line is written: nothing that looks like a credential stays in it."""
    return {name: _blanked(name, value) for name, value in event.items()}


def blank(text: str) -> str:
    """The text with everything that looks like a credential replaced."""
    return _SECRET_TEXT.sub(BLANK, text)


def _blanked(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if _SECRET_FIELD.search(name):
        return BLANK
    if isinstance(value, Mapping):
        return {str(key): _blanked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_blanked("", inner) for inner in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return blank(str(value))
