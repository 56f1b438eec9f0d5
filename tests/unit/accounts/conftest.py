"""Here the strength of the real hashing is looked at, so it stays as it is."""

from __future__ import annotations

import pytest


@pytest.fixture
def cheap_passwords() -> None:
    """Leave the product's own hasher in place."""
