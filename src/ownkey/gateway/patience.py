"""How long we wait for clients. One sweep a second looks after all connections of a process: no connection and no
request has a timer of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, counted from the first sweep that sees a connection wait; so up to a second more."""

    head: float = 10.0
    """From the first byte of a request to the end of its head."""
    body: float = 30.0
    """For a body; each ``body_rate`` bytes of it that came are worth one more second."""
    body_rate: int = 1_024
    idle: float = 75.0
    """Between two requests, and before the first."""
    reader: float = 60.0
    """For a client that has stopped reading its reply."""
    closing: float = 5.0
    """For one that has stopped reading the last bytes of its connection, which are an error, or has read them."""

    def seconds_for(self, waits_for: str, body: int) -> float:
        """How long to wait for this, ``body`` bytes of a body having come; for ever if it is not the client's turn."""
        match waits_for:
            case "head":
                return self.head
            case "body":
                return self.body + body / self.body_rate
            case "idle":
                return self.idle
            case "reader":
                return self.reader
            case "last bytes":
                return self.closing
        return math.inf


class Sweepable(Protocol):
    """What the sweep looks after."""

    def look_after(self, now: float) -> None:
        """End what has waited too long; ``now`` is monotonic."""
