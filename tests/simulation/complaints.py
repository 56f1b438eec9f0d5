"""What the product logs as an error is one: a world listens, and nothing is printed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

# What a provider that refuses the operator's key must lead to.
_EXPECTED = frozenset({"the platform key was refused"})


@contextmanager
def listening(complain: Callable[[str], None]) -> Iterator[None]:
    """Give every line of level error or worse to ``complain``; drop the others unread."""

    def take(logger: Any, method: str, line: Any) -> Any:
        if line["event"] not in _EXPECTED:
            complain(f"the product logged: {line}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, take],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    try:
        yield
    finally:
        structlog.configure(**before)
