"""How long we wait for clients. One sweep a second looks after all connections of a process: no connection and no
request has a timer of its own.
"""

from __future__ import annotations

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
    """For the last bytes of a connection to be read by the other side."""


class Sweepable(Protocol):
    """What the sweep looks after."""

    def look_after(self, now: float) -> None:
        """End what has waited too long; ``now`` is monotonic."""
