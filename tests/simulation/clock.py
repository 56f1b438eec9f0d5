"""One virtual time for every loop of a world, and a clock of the database that may be set apart from it.

A loop is a real asyncio loop that never waits: the world turns the one whose next event is due first. A node that is
stopped is a loop that is not turned; a node that was killed is a loop that is thrown away.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from ownkey.metering.postgres_store import PostgresStore

_EPOCH_JULIAN_DAY = 2_440_587.5


class Clock:
    """Seconds since the world began, and what the database says is the time."""

    def __init__(self, begins: datetime) -> None:
        self.now = 0.0
        self._database = begins.timestamp()

    @property
    def database(self) -> float:
        """The database's clock: seconds since 1970."""
        return self._database + self.now

    @property
    def period(self) -> str:
        """The month that the database's clock is in."""
        return datetime.fromtimestamp(self.database, UTC).strftime("%Y-%m")

    def set_database(self, seconds: float) -> None:
        """Move the database's clock, forwards or backwards."""
        self._database += seconds


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop on the world's clock; ``turn`` runs what is due."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = self
        self._turning = self._ends = False
        self.failures: list[str] = []
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """The world's time."""
        return self._clock.now

    def due(self) -> float | None:
        """When the next event is, or None."""
        if self._ready:  # type: ignore[attr-defined]
            return self._clock.now
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return float(scheduled[0]._when) if scheduled else None

    def turn(self) -> None:
        """Run everything that is due."""
        events._set_running_loop(self)
        self._turning = True
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            self._turning = False
            events._set_running_loop(None)
            if self._ends:
                super().close()

    def close(self) -> None:
        """Do nothing more, not even what is due in this turn."""
        if not self._turning:
            super().close()
            return
        self._ends = True
        for handle in self._ready:  # type: ignore[attr-defined]
            handle.cancel()

    def select(self, timeout: float | None) -> Sequence[object]:
        """Nothing ever comes from outside."""
        return ()

    def _process_events(self, event_list: Sequence[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._ends:  # what unwinds in a node that has just been killed is no failure of its
            self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


class PostgresClock:
    """The virtual clock on PostgreSQL: a function that stands before the built-in one on a connection's search path."""

    def __init__(self, store: PostgresStore, clock: Clock) -> None:
        self._db = store._link._driver
        self._clock = clock
        self._db.execute("SET search_path = virtual, pg_catalog, public")

    @staticmethod
    def install(db: psycopg.Connection) -> None:
        """Make the function, in a schema that only a store of ours looks into."""
        db.execute("CREATE SCHEMA virtual")
        db.execute(
            "CREATE FUNCTION virtual.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS "
            "$$ SELECT to_timestamp(current_setting('virtual.now')::double precision) $$"
        )

    def tell(self) -> None:
        """Set what the next transaction takes for now."""
        self._db.execute("SELECT set_config('virtual.now', %s, false)", (f"{self._clock.database:.6f}",))
