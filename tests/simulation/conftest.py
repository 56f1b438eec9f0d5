"""An empty database for one world."""

from __future__ import annotations

import pytest
from sqlalchemy import URL

from tests.simulation import seeds


@pytest.fixture
def world_url(database_url: URL) -> URL:
    """A migrated, empty database that knows the virtual clock: once for each engine."""
    if database_url.get_backend_name() == "postgresql":
        seeds.prepare(database_url)
    return database_url
