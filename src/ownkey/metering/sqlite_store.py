"""The writer's connection to SQLite: one thread owns it, and ``BEGIN IMMEDIATE`` owns the file.

What this connection has read or written itself is remembered, and forgotten as soon as any other has committed:
SQLite's ``data_version`` says so inside the transaction. So in a process that is alone with its file a batch reads
nothing that it has written before.
"""

# The protocol in store.py documents the methods; the statements are put together from constants only.
# ruff: noqa: D102, S608

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from ownkey import clock
from ownkey.db.engine import sqlite_pragmas
from ownkey.metering.reservations import Caller, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.store import (
    ABANDONED_QUERY,
    CALLER_COLUMNS,
    CHARGED_EVENT_COLUMNS,
    CORRECTED,
    ENTRY_COLUMNS,
    EVENT_COLUMNS,
    EXPIRED_COLUMNS,
    FALLBACK_COLUMNS,
    HELD_COLUMNS,
    KEY_COLUMNS,
    OPEN_FALLBACKS_QUERY,
    PERSON_QUERY,
    RECENT,
    RESERVATION_COLUMNS,
    TOKEN_JOINS,
    USED_SUMS,
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
from ownkey.metering.tallies import Horizon, UsedRow

_PERSON = PERSON_QUERY.format(user="?", workspace="?")
_ADD_BALANCE = "INSERT INTO allowances (organization_id, period, granted_tokens) VALUES (?, ?, 0)"
_CHANGE_BALANCE = (
    "UPDATE allowances SET granted_tokens = ?, used_tokens = ?, reserved_tokens = ?, excess_tokens = ?, entries = ? "
    "WHERE organization_id = ? AND period = ?"
)
_COUNT_REQUESTS = (
    "INSERT INTO api_token_months (api_token_id, period, organization_id, requests, last_used_at) "
    # What is kept of a token that is gone, as after a restored backup, must not stand in everybody's way.
    "SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM api_tokens WHERE id = ?1) "
    "ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, "
    "last_used_at = max(last_used_at, excluded.last_used_at)"
)
_RESERVATIONS = f"reservations ({RESERVATION_COLUMNS}, node, lease_until)"
_RENEW = "UPDATE reservations SET observed_tokens = ?, lease_until = ? WHERE request_id = ?"
_EVENTS = f"usage_events ({EVENT_COLUMNS})"
_CHARGED_EVENTS = f"usage_events ({CHARGED_EVENT_COLUMNS})"
_ENTRIES = f"ledger_entries ({ENTRY_COLUMNS})"
_ADJUSTED = "SELECT request_id FROM ledger_entries WHERE kind = 'adjustment' AND request_id IN"
_SETTLED = "SELECT request_id FROM usage_events WHERE request_id IN"
_BALANCE_COLUMNS = "organization_id, period, granted_tokens, used_tokens, reserved_tokens, excess_tokens, entries"
_OF_CONNECTION = "organization_id = ? AND provider = ? AND period = ?"
_FALLBACK_SUM = f"SELECT tokens FROM fallback_months WHERE {_OF_CONNECTION}"
_OPEN_FALLBACKS = f"{OPEN_FALLBACKS_QUERY} f.organization_id = ? AND f.provider = ? AND f.period = ?"
_FALLBACKS = f"fallback_calls ({FALLBACK_COLUMNS})"
_COUNT_FALLBACKS = (
    "INSERT INTO fallback_months (organization_id, provider, period, tokens) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens"
)
_RECENT = RECENT.format(organization="?", period="?", after="?")
_CORRECTED = CORRECTED.format(organization="?", period="?", false="0", number="")
_USED = (
    f"SELECT user_id, workspace_id, 1, {USED_SUMS} FROM ({_RECENT}) GROUP BY user_id, workspace_id "
    f"UNION ALL SELECT {_CORRECTED}"
)
_HELD_BY = (
    "SELECT user_id, workspace_id, sum(tokens) FROM reservations WHERE organization_id = ? AND period = ? "
    "GROUP BY user_id, workspace_id"
)
_AT_ONCE = 200
_ROWS_AT_ONCE = 64
_MOST_REMEMBERED = 200_000
# The columns of a written reservation that its end asks for.
_held_of = itemgetter(*map(RESERVATION_COLUMNS.split(", ").index, HeldRow._fields))
_PRAGMAS = (
    # No secret is deleted through this connection, and overwriting what is would write twice as many pages.
    "PRAGMA secure_delete = OFF",
    # The pages of a batch are mostly those of the batch before: copied into the database less often, they are
    # copied once for many changes. The log grows to some 32 MB.
    "PRAGMA wal_autocheckpoint = 8000",
    # In KiB. A batch that splits a page has SQLite look through the whole cache when it commits, and what is not there
    # is in the kernel's: four times as much cost each call of a hundred thousand organizations a twentieth more.
    "PRAGMA cache_size = -8192",
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


@cache
def _reservations(what: str, count: int) -> str:
    return f"{what} FROM reservations WHERE request_id IN ({_marks(count)})"


def _chunks(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]


def _caller(caller: Caller, *columns: Any) -> CallerRow:
    """A row with truth values for SQLite's 0 and 1."""
    (
        token,
        scopes,
        revoked,
        user,
        disabled,
        role,
        is_owner,
        organization,
        workspace,
        suspended,
        archived,
        plan,
        *caps,
    ) = columns
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
        *caps,
    )


class SqliteStore:
    """A store on an SQLite file."""

    is_local = True

    def __init__(self, path: str, synchronous: str, now: Callable[[], float] = time.time) -> None:
        """``now`` gives the seconds since 1970: the clock of a database that is a file here is that of this machine."""
        self._now = now
        self._period, self._period_begins, self._period_ends = "", 0, 0
        # What was last read of the facts, how the file was marked then, and what is known of it since.
        self._version = 0
        self._data_version = -1
        self._balances: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._held: dict[str, HeldRow] = {}
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

    def _value(self, query: str) -> int:
        value: int = self._asked(self._db.execute, query).fetchone()[0]
        return value

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

    def begin(self, foretell: Callable[[], Foretold], reads_only: bool) -> Moment:
        if not reads_only:
            self._asked(self._db.execute, "BEGIN IMMEDIATE")
        data_version = self._value("PRAGMA data_version")
        if data_version != self._data_version or len(self._balances) > _MOST_REMEMBERED:
            if reads_only:
                return self.begin(foretell, reads_only=False)
            self._forget()
            self._version = self._value("SELECT version FROM facts")
            self._data_version = data_version
        now_ms = int(self._now() * 1000)
        if not self._period_begins <= now_ms < self._period_ends:
            self._period = clock.period_of(datetime.fromtimestamp(now_ms / 1000, UTC))
            self._period_begins = int(clock.period_start(self._period).timestamp()) * 1000
            self._period_ends = int(clock.period_end(self._period).timestamp()) * 1000
        return Moment(self._version, self._period, now_ms)

    def _forget(self) -> None:
        self._balances.clear()
        self._held.clear()

    def commit(self) -> None:
        if self._db.in_transaction:
            self._asked(self._db.execute, "COMMIT")

    def rollback(self) -> None:
        self._forget()
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
        known = self._balances
        for part in _chunks([key for key in keys if key not in known]):
            query = f"SELECT {_BALANCE_COLUMNS} {_found('allowances', 'organization_id', 'period', len(part))}"
            known.update(((row[0], row[1]), row) for row in self._all(query, tuple(chain.from_iterable(part))))
        new = [key for key in keys if key not in known]
        self._many(_ADD_BALANCE, new)
        known.update((key, (*key, 0, 0, 0, 0, 0)) for key in new)
        return [known[key] for key in keys]

    def change_balances(self, rows: Rows) -> None:
        self._many(_CHANGE_BALANCE, rows)
        for *figures, organization_id, period in rows:
            self._balances[organization_id, period] = (organization_id, period, *figures)

    def requests_of(self, keys: Sequence[tuple[str, str]]) -> Rows:
        found: list[tuple[Any, ...]] = []
        for part in _chunks(keys):
            where = _found("api_token_months", "api_token_id", "period", len(part))
            query = f"SELECT api_token_id, period, requests {where}"
            found += self._all(query, tuple(chain.from_iterable(part)))
        return found

    def count_requests(self, rows: Rows) -> None:
        if rows and not self._db.in_transaction:
            self._asked(self._db.execute, "BEGIN IMMEDIATE")
        self._many(_COUNT_REQUESTS, rows)

    def add_reservations(self, rows: Rows) -> None:
        self._insert(_RESERVATIONS, rows)
        for row in rows:
            held = HeldRow._make(_held_of(row))
            self._held[held.request_id] = held

    def take_reservations(self, request_ids: Sequence[str]) -> Sequence[HeldRow]:
        held = self._held
        for part in _chunks([request_id for request_id in request_ids if request_id not in held]):
            # Not DELETE … RETURNING: on a table without row ids that costs this SQLite four times as much.
            rows = self._all(_reservations(f"SELECT {HELD_COLUMNS}", len(part)), part)
            held.update((row[0], HeldRow._make(row)) for row in rows)
        taken = [held.pop(request_id) for request_id in request_ids if request_id in held]
        for part in _chunks([row.request_id for row in taken]):
            self._asked(self._db.execute, _reservations("DELETE", len(part)), part)
        return taken

    def take_expired(self, now_ms: int) -> Sequence[ReservationRow]:
        query = (
            "DELETE FROM reservations WHERE request_id IN (SELECT request_id FROM reservations "
            f"WHERE lease_until < ? LIMIT {_AT_ONCE}) RETURNING {EXPIRED_COLUMNS}"
        )
        taken = [ReservationRow(*row) for row in self._all(query, (now_ms,))]
        for row in taken:
            self._held.pop(row.request_id, None)
        return taken

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
        return self._among(_ADJUSTED, request_ids)

    def settled(self, request_ids: Sequence[str]) -> Sequence[str]:
        return self._among(_SETTLED, request_ids)

    def _among(self, query: str, request_ids: Sequence[str]) -> Sequence[str]:
        found: list[str] = []
        for part in _chunks(request_ids):
            found += [row[0] for row in self._all(f"{query} ({_marks(len(part))})", part)]
        return found

    def used_since(self, organization_id: str, period: str, after: int, old: int) -> tuple[Horizon, Sequence[UsedRow]]:
        rows = self._all(_USED, (organization_id, period, after, organization_id, period))
        return Horizon(0, 0, 0), [UsedRow(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]

    def held_by(self, organization_id: str, period: str) -> Sequence[tuple[str | None, str, int]]:
        return [(row[0], row[1], row[2]) for row in self._all(_HELD_BY, (organization_id, period))]

    def add_entries(self, rows: Sequence[EntryRow]) -> None:
        self._insert(_ENTRIES, rows)

    def fallback_sum(self, organization_id: str, provider: str, period: str) -> int:
        rows = self._all(_FALLBACK_SUM, (organization_id, provider, period))
        return int(rows[0][0]) if rows else 0

    def open_fallbacks(self, organization_id: str, provider: str, period: str) -> Rows:
        return self._all(_OPEN_FALLBACKS, (organization_id, provider, period))

    def add_fallbacks(self, rows: Rows) -> None:
        self._insert(_FALLBACKS, rows)

    def count_fallbacks(self, connection: tuple[str, str, str], tokens: int, request_ids: Sequence[str]) -> None:
        self._many(_COUNT_FALLBACKS, [(*connection, tokens)])
        self._many("UPDATE fallback_calls SET counted = TRUE WHERE request_id = ?", [(one,) for one in request_ids])
