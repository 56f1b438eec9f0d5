"""The plan of a run: what to measure, how often, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.contest import Load


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run measures. ``folder`` is its own, and gone afterwards."""

    folder: Path
    rounds: int
    seconds: float
    connections: tuple[int, ...]
    quick: bool

    def load(self, body: Mapping[str, Any], connections: int) -> Load:
        """A load of this run's length."""
        return Load(body, connections, self.rounds, self.seconds)
