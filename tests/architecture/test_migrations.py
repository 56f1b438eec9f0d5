"""The migrations and the tables are two descriptions of one schema."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ownkey.db import (
    schema,
    usage_tables,  # noqa: F401 - so that the metadata has all
)
from ownkey.db.engine import Database
from ownkey.db.tables import metadata
from tests.architecture.source import SOURCE

pytestmark = pytest.mark.anyio


async def test_migrations_make_the_tables(database: Database) -> None:
    """A migrated database has exactly the tables, columns and indexes that ``tables.py`` describes."""

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_the_newest_migration_is_the_last_one() -> None:
    """What a process compares a database with, without loading Alembic, is the end of the history."""
    assert ScriptDirectory(str(SOURCE / "db" / "migrations")).get_current_head() == schema.NEWEST
