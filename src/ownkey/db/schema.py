"""Bring a database's schema up to date, and say whether it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from ownkey.db.engine import NOTICE_A_SILENT_SERVER, begin_sqlite
from ownkey.errors import Unavailable

NEWEST = "0006"
"""The last migration. Known without Alembic, which is loaded only to apply one; a later one has a larger number."""
# What those who migrate the same PostgreSQL at the same time wait for.
_MIGRATION_LOCK = 7_310_582


def upgrade(url: URL, revision: str = NEWEST) -> None:
    """Apply every migration that is missing, all or none. Creates SQLite's file, readable by its owner only.

    Raises ``Unavailable`` if the database cannot be reached, or used, or a newer Ownkey made it.
    """
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    with _connection(url) as connection:
        if _applied(connection) != revision:
            connection.execution_options(ownkey_write=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                _migrate(connection, revision)  # which reads once more what has been applied


def is_current(url: URL) -> bool:
    """Whether every migration has been applied. Raises ``Unavailable`` as ``upgrade`` does."""
    with _connection(url) as connection:
        return _applied(connection) == NEWEST


def _applied(connection: Connection) -> str | None:
    """The last migration that the database has had, one that we know."""
    with connection.begin():
        if not inspect(connection).has_table("alembic_version"):
            return None
        applied: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if applied is not None and applied > NEWEST:
        raise Unavailable("A newer Ownkey made the database. Start that one, or use a backup from before it.")
    return applied


def _migrate(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@contextmanager
def _connection(url: URL) -> Iterator[Connection]:
    embedded = url.get_backend_name() == "sqlite"
    engine = create_engine(url, connect_args={} if embedded else dict(NOTICE_A_SILENT_SERVER))
    if embedded:
        event.listen(engine, "connect", _leave_begin_to_us)
        event.listen(engine, "begin", begin_sqlite)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise Unavailable("The database could not be reached. Check OWNKEY_DATABASE_URL.") from error
    except DBAPIError as error:  # a file that is none, a role without rights
        raise Unavailable(f"The database cannot be used: {str(error.orig).splitlines()[0]}.") from error
    finally:
        engine.dispose()


def _leave_begin_to_us(connection: Any, record: Any) -> None:
    """The driver's own BEGIN comes with the first change of a row: what changes the schema would not be undone."""
    connection.isolation_level = None
