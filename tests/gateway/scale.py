"""How much a test does: a little on every run, the counts of a release under ``make prove``."""

from __future__ import annotations

import os

PROVING = os.environ.get("OWNKEY_PROVE") == "1"


def scaled(usual: int, release: int) -> int:
    """A number of repetitions."""
    return release if PROVING else usual
