"""Connections and transactions: the only place that knows SQLite from PostgreSQL for the pages' sake."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ownkey.errors import InvalidRequest, Unavailable

Transaction = AsyncConnection
BUSY_SECONDS = 10
_AWAY = "The database is not available. Try again shortly."
# What a column of whole numbers holds, on both databases.
LARGEST_NUMBER = 2**63 - 1
# A PostgreSQL that is gone, or hangs, must be noticed within seconds: the operating system would wait for minutes. So
# must it notice us: what a node that is gone, or frozen, had locked would stay locked, and hold all others up.
NOTICE_A_SILENT_SERVER: Mapping[str, Any] = {
    "connect_timeout": 3,
    "tcp_user_timeout": 3000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
CONNECT_OPTIONS: Mapping[str, Any] = {
    **NOTICE_A_SILENT_SERVER,
    "options": (
        "-c statement_timeout=5s -c lock_timeout=3s -c idle_in_transaction_session_timeout=6s "
        "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=2 -c tcp_user_timeout=5000"
    ),
}


def database_url(data_dir: Path, configured: str | None) -> URL:
    """The database's address: the configured one, or SQLite in the data directory.

    Raises ``ValueError`` for anything but SQLite and PostgreSQL.
    """
    usable = "OWNKEY_DATABASE_URL must be postgresql://… or sqlite:///file"
    try:
        url = make_url(configured) if configured else URL.create("sqlite", database=str(data_dir / "ownkey.db"))
    except (ArgumentError, ValueError):  # what they say may have the password in it
        raise ValueError(usable) from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise ValueError(usable)


class Database:
    """The application's database: ``read()`` sees, ``transaction()`` changes."""

    def __init__(self, url: URL, synchronous: str = "FULL") -> None:
        self.url = url
        self.dialect = url.get_backend_name()
        self.synchronous = synchronous
        # While this process meters calls, a change waits its turn among their batches, so that its reply
        # comes after every call admitted before it has been sent (see metering/writer.py).
        self.turn: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext
        self.engine = self._engine()

    def _engine(self) -> AsyncEngine:
        if self.dialect == "sqlite":
            engine = create_async_engine(
                self.url.set(drivername="sqlite+aiosqlite"), pool_size=4, max_overflow=8, hide_parameters=True
            )
            event.listen(engine.sync_engine, "connect", self._prepare_sqlite)
            event.listen(engine.sync_engine, "begin", begin_sqlite)
            return engine
        return create_async_engine(
            self.url,
            pool_size=5,
            max_overflow=5,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=CONNECT_OPTIONS,
        )

    def _prepare_sqlite(self, connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own is deferred
        cursor = connection.cursor()
        for pragma in sqlite_pragmas(self.synchronous):
            cursor.execute(pragma)
        cursor.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Everything inside is committed together, or nothing of it. Raises ``Unavailable`` without a database."""
        turn = self.turn()  # says at once if the database is known to be away
        async with self._connection() as connection:
            await connection.execution_options(ownkey_write=True)
            # With the connection in hand: nothing is admitted in the turn, and pages may keep all connections for long.
            async with turn, connection.begin():
                yield connection

    @asynccontextmanager
    async def read(self, *, at_leisure: bool = False) -> AsyncIterator[AsyncConnection]:
        """One consistent view, for reading only. Raises ``Unavailable`` without a database.

        ``at_leisure`` is for an operator's command that reads everything there is, however long that takes.
        """
        async with self._connection() as connection:
            if self.dialect == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                if at_leisure and self.dialect == "postgresql":
                    for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                        await connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
                yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """One of the pool's, given back in the end. Raises ``Unavailable`` when there is none within seconds."""
        with _translated():
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(BUSY_SECONDS):
                        connection = await held.enter_async_context(self.engine.connect())
                except TimeoutError as error:
                    raise Unavailable(_AWAY) from error
                yield connection

    async def empty_log(self) -> None:
        """Have SQLite's write-ahead log forget what was deleted; it would keep it for a while.

        Best effort: while somebody reads, the log stays as it is until the next time.
        """
        if self.dialect == "sqlite":
            await asyncio.to_thread(_empty_log, str(self.url.database))

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


def sqlite_pragmas(synchronous: str) -> tuple[str, ...]:
    """What every SQLite connection of ours starts with."""
    return (
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",
        # A removed key's ciphertext is overwritten, not left in a free page.
        "PRAGMA secure_delete = ON",
    )


def _empty_log(path: str) -> None:
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path, timeout=1)) as log:
        log.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def begin_sqlite(connection: Any) -> None:
    """Begin a transaction of the kind that the connection's options ask for."""
    # A deferred BEGIN that turns into a write fails at once when somebody else is writing.
    write = connection.get_execution_options().get("ownkey_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


class _translated:
    """Turns a lost or missing database into ``Unavailable`` and an impossible value into ``InvalidRequest``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OperationalError | InterfaceError) or (
            isinstance(error, DBAPIError) and error.connection_invalidated
        ):
            raise Unavailable(_AWAY) from error
        # A NUL in a text, a number too large; SQLite's driver has no error of its own for that.
        if isinstance(error, DataError | OverflowError):
            raise InvalidRequest("The request has a value that cannot be stored.") from error
