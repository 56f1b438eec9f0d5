"""The writer's connection to SQLite: one thread owns it, and ``BEGIN IMMEDIATE`` owns the file."""

# The protocol in store.py documents the methods; the statements are put together from constants only.
# ruff: noqa: D102, S608

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from ownkey.db.engine import sqlite_pragmas
from ownkey.metering.reservations import Caller, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.store import (
    ABANDONED_QUERY,
    CALLER_COLUMNS,
    CHARGED_EVENT_COLUMNS,
    ENTRY_COLUMNS,
    EVENT_COLUMNS,
    HELD_COLUMNS,
    KEY_COLUMNS,
    PERSON_QUERY,
    RESERVATION_COLUMNS,
    TOKEN_JOINS,
    AbandonedRow,
    CallerRow,
    EntryRow,
    Foretold,
    HeldRow,
    Moment,
    ReservationRow,
    Rows,
    StoreFailed,
)

_PERSON = PERSON_QUERY.format(user="?", workspace="?")
_ADD_BALANCE = "INSERT INTO allowances (organization_id, period, granted_tokens) VALUES (?, ?, 0)"
_CHANGE_BALANCE = (
    "UPDATE allowances SET granted_tokens = ?, used_tokens = ?, reserved_tokens = ?, excess_tokens = ?, entries = ? "
    "WHERE organization_id = ? AND period = ?"
)
_COUNT_REQUESTS = (
    "INSERT INTO api_token_months (api_token_id, period, organization_id, requests, last_used_at) "
    "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, "
    "last_used_at = max(last_used_at, excluded.last_used_at)"
)
_RESERVATIONS = f"reservations ({RESERVATION_COLUMNS}, node, lease_until)"
_RENEW = "UPDATE reservations SET observed_tokens = ?, lease_until = ? WHERE request_id = ?"
_EVENTS = f"usage_events ({EVENT_COLUMNS})"
_CHARGED_EVENTS = f"usage_events ({CHARGED_EVENT_COLUMNS})"
_ENTRIES = f"ledger_entries ({ENTRY_COLUMNS})"
_ADJUSTED = "SELECT request_id FROM ledger_entries WHERE kind = 'adjustment' AND request_id IN"
_AT_ONCE = 200
_ROWS_AT_ONCE = 64
_PRAGMAS = (
    # No secret is deleted through this connection, and overwriting what is would write twice as many pages.
    "PRAGMA secure_delete = OFF",
    # The pages of a batch are mostly those of the batch before: copied into the database less often, they are
    # copied once for many changes. The log grows to some 32 MB.
    "PRAGMA wal_autocheckpoint = 8000",
    "PRAGMA cache_size = -32768",
    # Whoever else writes must not hold up callers for long: they are told to try again.
    "PRAGMA busy_timeout = 1000",
)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


@cache
def _insertion(into: str, width: int, rows: int, conflict: str) -> str:
    return f"INSERT INTO {into} VALUES {', '.join([f'({_marks(width)})'] * rows)} {conflict}"


@cache
def _found(table: str, first: str, second: str, count: int) -> str:
    """From a table, the rows with so many pairs of values, each found by its key.

    A pair ``IN`` a list of values would read the whole table.
    """
    pairs = ", ".join(["(?, ?)"] * count)
    return f"FROM (VALUES {pairs}) AS pairs CROSS JOIN {table} ON {first} = pairs.column1 AND {second} = pairs.column2"


def _chunks(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]


def _caller(caller: Caller, *columns: Any) -> CallerRow:
    """A row with truth values for SQLite's 0 and 1."""
    token, scopes, revoked, user, disabled, role, is_owner, organization, workspace, suspended, archived, plan = columns
    return CallerRow(
        caller,
        token,
        scopes,
        bool(revoked),
        user,
        bool(disabled),
        role,
        bool(is_owner),
        organization,
        workspace,
        bool(suspended),
        bool(archived),
        plan,
    )


class SqliteStore:
    """A store on an SQLite file."""

    is_local = True

    def __init__(self, path: str, synchronous: str) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
            for pragma in (*sqlite_pragmas(synchronous), *_PRAGMAS):
                self._db.execute(pragma)
        except sqlite3.DatabaseError as error:
            raise StoreFailed(str(error)) from error

    def _asked(self, call: Callable[..., sqlite3.Cursor], *arguments: Any) -> sqlite3.Cursor:
        try:
            return call(*arguments)
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError as error:  # locked, disk full, read-only, not a database
            raise StoreFailed(str(error)) from error

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._asked(self._db.execute, query, values).fetchall()

    def _many(self, query: str, rows: Rows) -> None:
        if rows:
            self._asked(self._db.executemany, query, rows)

    def _insert(self, into: str, rows: Rows, conflict: str = "") -> None:
        """Insert rows, many a statement: a power of two, so that few statements are ever prepared."""
        start = 0
        while left := len(rows) - start:
            size = min(1 << (left.bit_length() - 1), _ROWS_AT_ONCE)
            part = rows[start : start + size]
            start += size
            self._asked(
                self._db.execute, _insertion(into, len(part[0]), size, conflict), tuple(chain.from_iterable(part))
            )

    def begin(self, foretell: Callable[[], Foretold]) -> Moment:
        self._asked(self._db.execute, "BEGIN IMMEDIATE")
        row = self._all(
            "SELECT version, strftime('%Y-%m', 'now'), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) "
            "FROM facts"
        )[0]
        return Moment(*row)

    def commit(self) -> None:
        self._asked(self._db.execute, "COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def callers(self, callers: Sequence[Caller]) -> Sequence[CallerRow]:
        found: list[CallerRow] = []
        query = f"SELECT t.token_hash, {CALLER_COLUMNS} {TOKEN_JOINS} WHERE t.token_hash IN "
        for part in _chunks([caller.token_hash for caller in callers if caller.token_hash]):
            rows = self._all(f"{query} ({_marks(len(part))})", part)
            found += [_caller(Caller(row[0]), *row[1:]) for row in rows]
        for caller in callers:
            if not caller.token_hash:
                rows = self._all(_PERSON, (caller.user_id, caller.workspace_id))
                found += [_caller(caller, *row) for row in rows]
        return found

    def keys(self, wanted: Sequence[tuple[str, str]]) -> Sequence[KeyRow]:
        found: list[KeyRow] = []
        for part in _chunks(wanted):
            query = f"SELECT {KEY_COLUMNS} {_found('provider_keys', 'organization_id', 'provider', len(part))}"
            rows = self._all(query, tuple(chain.from_iterable(part)))
            found += [KeyRow(*row) for row in rows]
        return found

    def balances(self, keys: Sequence[tuple[str, str]]) -> Rows:
        found: list[tuple[Any, ...]] = []
        columns = "organization_id, period, granted_tokens, used_tokens, reserved_tokens, excess_tokens, entries"
        for part in _chunks(keys):
            query = f"SELECT {columns} {_found('allowances', 'organization_id', 'period', len(part))}"
            found += self._all(query, tuple(chain.from_iterable(part)))
        new = set(keys).difference((row[0], row[1]) for row in found) if len(found) < len(keys) else ()
        self._many(_ADD_BALANCE, list(new))
        return found + [(*key, 0, 0, 0, 0, 0) for key in new]

    def change_balances(self, rows: Rows) -> None:
        self._many(_CHANGE_BALANCE, rows)

    def requests_of(self, keys: Sequence[tuple[str, str]]) -> Rows:
        found: list[tuple[Any, ...]] = []
        for part in _chunks(keys):
            where = _found("api_token_months", "api_token_id", "period", len(part))
            query = f"SELECT api_token_id, period, requests {where}"
            found += self._all(query, tuple(chain.from_iterable(part)))
        return found

    def count_requests(self, rows: Rows) -> None:
        self._many(_COUNT_REQUESTS, rows)

    def add_reservations(self, rows: Rows) -> None:
        self._insert(_RESERVATIONS, rows)

    def take_reservations(self, request_ids: Sequence[str]) -> Sequence[HeldRow]:
        taken: list[HeldRow] = []
        for part in _chunks(request_ids):
            # Not DELETE … RETURNING: on a table without row ids that costs this SQLite four times as much.
            where = f"FROM reservations WHERE request_id IN ({_marks(len(part))})"
            taken += map(HeldRow._make, self._all(f"SELECT {HELD_COLUMNS} {where}", part))
            self._asked(self._db.execute, f"DELETE {where}", part)
        return taken

    def take_expired(self, now_ms: int) -> Sequence[ReservationRow]:
        query = (
            "DELETE FROM reservations WHERE request_id IN (SELECT request_id FROM reservations "
            f"WHERE lease_until < ? LIMIT {_AT_ONCE}) RETURNING {RESERVATION_COLUMNS}"
        )
        return [ReservationRow(*row) for row in self._all(query, (now_ms,))]

    def renew(self, rows: Rows) -> None:
        self._many(_RENEW, rows)

    def add_events(self, rows: Rows) -> None:
        self._insert(_CHARGED_EVENTS, rows)

    def add_events_once(self, rows: Sequence[Settle]) -> None:
        self._insert(_EVENTS, rows, "ON CONFLICT (request_id) DO NOTHING")

    def abandoned(self, request_ids: Sequence[str]) -> Sequence[AbandonedRow]:
        found: list[AbandonedRow] = []
        for part in _chunks(request_ids):
            found += [AbandonedRow(*row) for row in self._all(f"{ABANDONED_QUERY} IN ({_marks(len(part))})", part)]
        return found

    def adjusted(self, request_ids: Sequence[str]) -> Sequence[str]:
        found: list[str] = []
        for part in _chunks(request_ids):
            query = f"{_ADJUSTED} ({_marks(len(part))})"
            found += [row[0] for row in self._all(query, part)]
        return found

    def add_entries(self, rows: Sequence[EntryRow]) -> None:
        self._insert(_ENTRIES, rows)
