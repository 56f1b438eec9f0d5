"""What the database has committed, read with plain SQL on a connection that nobody else uses."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import URL

_BALANCES = "SELECT organization_id, period, granted_tokens, used_tokens, reserved_tokens FROM allowances"
_RESERVATIONS = "SELECT request_id, organization_id, period, tokens, observed_tokens FROM reservations"
_EVENTS = (
    "SELECT id, request_id, organization_id, period, billed_to, provider_key_id, input_tokens, output_tokens, "
    "charged_tokens, estimated, outcome FROM usage_events WHERE id > {mark} ORDER BY id"
)
_ADJUSTMENTS = (
    "SELECT id, request_id, organization_id, period, tokens FROM ledger_entries "
    "WHERE kind = 'adjustment' AND id > {mark} ORDER BY id"
)


class Balance(NamedTuple):
    """One organization's month."""

    granted: int
    used: int
    reserved: int


class Open(NamedTuple):
    """An open reservation."""

    request_id: str
    organization_id: str
    period: str
    tokens: int
    observed: int


class Event(NamedTuple):
    """A usage event."""

    id: int
    request_id: str
    organization_id: str
    period: str
    billed_to: str
    provider_key_id: str | None
    input_tokens: int
    output_tokens: int
    charged_tokens: int
    estimated: bool
    outcome: str


class Adjustment(NamedTuple):
    """A correction in the ledger; its tokens are taken when negative."""

    id: int
    request_id: str
    organization_id: str
    period: str
    tokens: int


class Books:
    """A reader of the committed state. ``events`` and ``adjustments`` give those that were not read before."""

    def __init__(self, url: URL) -> None:
        self._db: Any
        if url.get_backend_name() == "sqlite":
            self._db = sqlite3.connect(str(url.database), isolation_level=None)
            mark = "?"
        else:
            address = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self._db = psycopg.connect(address, autocommit=True)
            mark = "%s"
        self._events, self._adjustments = _EVENTS.format(mark=mark), _ADJUSTMENTS.format(mark=mark)
        self._last_event = self._last_adjustment = 0

    def balances(self) -> dict[tuple[str, str], Balance]:
        """Every allowance, by organization and month."""
        return {(row[0], row[1]): Balance(*row[2:]) for row in self._all(_BALANCES)}

    def reservations(self) -> dict[str, Open]:
        """Every open reservation, by request."""
        return {row[0]: Open(*row) for row in self._all(_RESERVATIONS)}

    def events(self) -> Sequence[Event]:
        """New usage events."""
        found = [Event(*row) for row in self._all(self._events, (self._last_event,))]
        if found:
            self._last_event = found[-1].id
        return found

    def adjustments(self) -> Sequence[Adjustment]:
        """New corrections."""
        found = [Adjustment(*row) for row in self._all(self._adjustments, (self._last_adjustment,))]
        if found:
            self._last_adjustment = found[-1].id
        return found

    def reread(self) -> tuple[Sequence[Event], Sequence[Adjustment]]:
        """All of them again, to see that none was changed."""
        self._last_event = self._last_adjustment = 0
        return self.events(), self.adjustments()

    def close(self) -> None:
        """Give the connection back."""
        self._db.close()

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._db.execute(query, values).fetchall()
        return found
