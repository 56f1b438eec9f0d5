"""The migrations and the tables are two descriptions of one schema."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from ownkey.db.engine import Database
from ownkey.db.tables import metadata

pytestmark = pytest.mark.anyio


async def test_migrations_make_the_tables(database: Database) -> None:
    """A migrated database has exactly the tables, columns and indexes that ``tables.py`` describes."""

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
