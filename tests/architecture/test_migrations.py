"""The migrations and the tables are two descriptions of one schema."""

from __future__ import annotations

import re

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, text

from ownkey.db import (
    schema,
    usage_tables,  # noqa: F401 - so that the metadata has all
)
from ownkey.db.engine import Database
from ownkey.db.tables import metadata
from tests.architecture.source import SOURCE

pytestmark = pytest.mark.anyio

_SQLITE = """
SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'
"""
_POSTGRESQL = """
SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = :schema
UNION ALL
SELECT indexname, replace(indexdef, :schema || '.', '') FROM pg_indexes WHERE schemaname = :schema
UNION ALL
SELECT conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = CAST(:schema AS regnamespace)
"""


async def test_migrations_make_the_tables(database: Database) -> None:
    """A migrated database is what ``tables.py`` describes: columns, defaults, keys, checks, what an index has."""
    async with database.engine.connect() as connection:
        if database.dialect == "sqlite":
            migrated, described = await connection.run_sync(sqlite_schema), described_on_sqlite()
        else:
            migrated = await connection.run_sync(postgresql_schema, "public")
            await connection.run_sync(describe_on_postgresql)
            described = await connection.run_sync(postgresql_schema, "described")
    assert migrated == described


def sqlite_schema(connection: Connection) -> dict[str, object]:
    """The statement that makes each table and index, without the order in which a table's parts are written."""
    found: dict[str, object] = {}
    for name, statement in connection.execute(text(_SQLITE)):
        if name != "alembic_version":
            written = " ".join(statement.split())
            found[name] = table_parts(written) if written.startswith("CREATE TABLE") else written
    return found


def table_parts(statement: str) -> object:
    """What stands around the brackets of a CREATE TABLE, and its columns and constraints."""
    head, _, rest = statement.partition("(")
    inside, _, tail = rest.rpartition(")")
    return head.replace('"', ""), tail, sorted(part.strip() for part in re.split(r",(?![^(]*\))", inside))


def described_on_sqlite() -> dict[str, object]:
    """What the tables come to in a database that knows no migration."""
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            metadata.create_all(connection)
            return sqlite_schema(connection)
    finally:
        engine.dispose()


def postgresql_schema(connection: Connection, name: str) -> dict[str, object]:
    """Each column, index and constraint of a schema, as PostgreSQL says it."""
    connection.execute(text(f"SET LOCAL search_path TO {name}"))
    rows = connection.execute(text(_POSTGRESQL), {"schema": name})
    return {row[0]: row[1] for row in rows if "alembic_version" not in row[0]}


def describe_on_postgresql(connection: Connection) -> None:
    """Make the tables in a schema beside the migrated one; nothing of it is committed."""
    wanted = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        for index in table.to_metadata(wanted).indexes:
            # The tables do not say it for PostgreSQL, so as not to load what is not used: it is the same.
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    connection.execute(text("CREATE SCHEMA described"))
    connection.execute(text("SET LOCAL search_path TO described"))
    wanted.create_all(connection, checkfirst=False)


def test_the_newest_migration_is_the_last_one() -> None:
    """What a process compares a database with, without loading Alembic, is the end of the history."""
    assert ScriptDirectory(str(SOURCE / "db" / "migrations")).get_current_head() == schema.NEWEST
