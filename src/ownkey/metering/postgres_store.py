"""The writer's connection to PostgreSQL: set-based statements over arrays, one round trip each."""

# The protocol in store.py documents the methods; the statements are put together from constants only.
# ruff: noqa: D102, S608

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable, SerializationFailure
from sqlalchemy import URL

from ownkey.db.engine import CONNECT_OPTIONS
from ownkey.metering.reservations import Caller, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.store import (
    ABANDONED_QUERY,
    CALLER_COLUMNS,
    ENTRY_COLUMNS,
    EVENT_COLUMNS,
    HELD_COLUMNS,
    KEY_COLUMNS,
    PERSON_QUERY,
    RESERVATION_COLUMNS,
    TOKEN_JOINS,
    AbandonedRow,
    CallerRow,
    Contended,
    EntryRow,
    HeldRow,
    Moment,
    ReservationRow,
    Rows,
    StoreFailed,
)

_AT_ONCE = 200
_MOST_REMEMBERED = 200_000
FACTS_LOCK = 7_310_580
_TEXT, _NUMBER = "text", "bigint"
_RESERVATION_TYPES = (*[_TEXT] * 4, *[_NUMBER] * 3, *[_TEXT] * 5, _NUMBER, _TEXT, _NUMBER)
_EVENT_TYPES = (*[_TEXT] * 11, *[_NUMBER] * 6, "boolean", _TEXT, _NUMBER, _NUMBER)
_ENTRY_TYPES = (_TEXT, _TEXT, _TEXT, _NUMBER, _TEXT, _TEXT, _NUMBER)


def _unnest(types: Sequence[str]) -> str:
    return f"unnest({', '.join(f'%s::{kind}[]' for kind in types)})"


def _array(values: Sequence[Any]) -> str:
    """A column as PostgreSQL writes an array. The driver's own conversion of lists costs ten times as much."""
    return f"{{{','.join([_element(value) for value in values])}}}"


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    if '"' in value or "\\" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def _columns(rows: Rows) -> list[str]:
    return [_array(column) for column in zip(*rows, strict=True)]


@cache
def _together(queries: tuple[str, ...]) -> str:
    """Several writes of different rows as one statement: what the driver does for each is most of their cost."""
    named = ", ".join(f"w{number} AS ({query})" for number, query in enumerate(queries))
    return f"WITH {named} SELECT"


_MOMENT = (
    "SELECT version, to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM'), "
    "(extract(epoch FROM statement_timestamp()) * 1000)::bigint FROM facts"
)
_CALLERS = f"SELECT t.token_hash, {CALLER_COLUMNS} {TOKEN_JOINS} WHERE t.token_hash = ANY(%s::text[])"
_PERSON = PERSON_QUERY.format(user="%s", workspace="%s")
_KEYS = (
    f"SELECT {KEY_COLUMNS} FROM provider_keys "
    f"WHERE (organization_id, provider) IN (SELECT * FROM {_unnest((_TEXT, _TEXT))})"
)
_MISSING = (
    f"SELECT EXISTS (SELECT FROM {_unnest((_TEXT, _TEXT))} AS wanted(o, p) "
    "LEFT JOIN allowances ON organization_id = o AND period = p WHERE organization_id IS NULL)"
)
_ADD_BALANCES = (
    f"INSERT INTO allowances (organization_id, period, granted_tokens) SELECT o, p, 0 "
    f"FROM {_unnest((_TEXT, _TEXT))} AS wanted(o, p) ORDER BY o, p ON CONFLICT DO NOTHING"
)
_BALANCES = (
    "SELECT organization_id, period, granted_tokens, used_tokens, reserved_tokens, excess_tokens FROM allowances "
    f"WHERE (organization_id, period) IN (SELECT * FROM {_unnest((_TEXT, _TEXT))}) "
    "ORDER BY organization_id, period FOR UPDATE"
)
_CHANGE_BALANCES = (
    "UPDATE allowances SET granted_tokens = g, used_tokens = u, reserved_tokens = r, excess_tokens = e "
    f"FROM {_unnest((_NUMBER, _NUMBER, _NUMBER, _NUMBER, _TEXT, _TEXT))} AS new(g, u, r, e, o, p) "
    "WHERE organization_id = o AND period = p"
)
_REQUESTS = (
    "SELECT api_token_id, period, requests FROM api_token_months "
    f"WHERE (api_token_id, period) IN (SELECT * FROM {_unnest((_TEXT, _TEXT))})"
)
_COUNT_REQUESTS = (
    "INSERT INTO api_token_months AS months (api_token_id, period, organization_id, requests, last_used_at) "
    f"SELECT * FROM {_unnest((_TEXT, _TEXT, _TEXT, _NUMBER, _NUMBER))} AS new(t, p, o, n, at) ORDER BY t, p "
    "ON CONFLICT (api_token_id, period) DO UPDATE SET requests = months.requests + excluded.requests, "
    "last_used_at = excluded.last_used_at"
)
_ADD_RESERVATIONS = (
    f"INSERT INTO reservations ({RESERVATION_COLUMNS}, node, lease_until) SELECT * FROM {_unnest(_RESERVATION_TYPES)}"
)
_TAKE = f"DELETE FROM reservations WHERE request_id = ANY(%s::text[]) RETURNING {HELD_COLUMNS}"
_TAKE_EXPIRED = (
    "DELETE FROM reservations WHERE request_id IN (SELECT request_id FROM reservations WHERE lease_until < %s "
    f"ORDER BY request_id LIMIT {_AT_ONCE} FOR UPDATE SKIP LOCKED) RETURNING {RESERVATION_COLUMNS}"
)
_RENEW = (
    "UPDATE reservations SET observed_tokens = n, lease_until = l "
    f"FROM {_unnest((_NUMBER, _NUMBER, _TEXT))} AS new(n, l, r) WHERE request_id = r"
)
_ADD_EVENTS = f"INSERT INTO usage_events ({EVENT_COLUMNS}) SELECT * FROM {_unnest(_EVENT_TYPES)}"
_ABANDONED = f"{ABANDONED_QUERY} = ANY(%s::text[])"
_ADJUSTED = "SELECT request_id FROM ledger_entries WHERE kind = 'adjustment' AND request_id = ANY(%s::text[])"
_ADD_ENTRIES = f"INSERT INTO ledger_entries ({ENTRY_COLUMNS}) SELECT * FROM {_unnest(_ENTRY_TYPES)}"


class PostgresStore:
    """A store on a PostgreSQL connection of its own."""

    def __init__(self, url: URL) -> None:
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            self._db = psycopg.connect(
                address, autocommit=True, prepare_threshold=1, application_name="ownkey metering", **CONNECT_OPTIONS
            )
            # Every statement finds its rows through a key. A plan made while a table was small would scan it for
            # ever after, so scans and the joins that need them are off on this connection.
            self._db.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        except psycopg.OperationalError as error:
            raise StoreFailed(type(error).__name__) from error
        # What a batch writes in the end; it goes to the database together with the commit, in one round trip.
        self._writes: list[tuple[str, Sequence[Any]]] = []
        # Allowances that are known to be there. None is ever deleted.
        self._there: set[tuple[str, str]] = set()

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _translated():
            cursor = self._db.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def _many(self, query: str, rows: Rows) -> None:
        if rows:
            self._all(query, _columns(rows))

    def _with_commit(self, query: str, rows: Rows) -> None:
        if rows:
            self._writes.append((query, _columns(rows)))

    def begin(self) -> Moment:
        self._writes.clear()
        with _translated(), self._db.pipeline():
            self._db.execute("BEGIN")
            # Shared among batches; a change of the facts takes it alone (see the first migration). So no batch that
            # has read what was before is still open when the change is committed, on whichever node.
            self._db.execute(f"SELECT pg_advisory_xact_lock_shared({FACTS_LOCK})")
            return Moment(*self._db.execute(_MOMENT).fetchall()[0])

    def commit(self) -> None:
        with _translated(), self._db.pipeline():
            if self._writes:
                values = [value for _, values in self._writes for value in values]
                self._db.execute(_together(tuple(query for query, _ in self._writes)), values)
            self._db.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._db.close()

    def callers(self, callers: Sequence[Caller]) -> Sequence[CallerRow]:
        hashes = [caller.token_hash for caller in callers if caller.token_hash]
        found = (
            [CallerRow(Caller(row[0]), *row[1:]) for row in self._all(_CALLERS, (_array(hashes),))] if hashes else []
        )
        for caller in callers:
            if not caller.token_hash:
                rows = self._all(_PERSON, (caller.user_id, caller.workspace_id))
                found += [CallerRow(caller, *row) for row in rows]
        return found

    def keys(self, wanted: Sequence[tuple[str, str]]) -> Sequence[KeyRow]:
        return [KeyRow(*row) for row in self._all(_KEYS, _columns(wanted))]

    def balances(self, keys: Sequence[tuple[str, str]]) -> Rows:
        columns = _columns(keys)
        # Before any is locked, so that all are locked in one order.
        if not self._there.issuperset(keys) and self._all(_MISSING, columns)[0][0]:
            self._all(_ADD_BALANCES, columns)
        found = self._all(_BALANCES, columns)
        if len(found) < len(keys):  # somebody removed one behind our back
            self._there.clear()
            self._all(_ADD_BALANCES, columns)
            return self._all(_BALANCES, columns)
        if len(self._there) > _MOST_REMEMBERED:
            self._there.clear()
        self._there.update(keys)
        return found

    def change_balances(self, rows: Rows) -> None:
        self._with_commit(_CHANGE_BALANCES, rows)

    def requests_of(self, keys: Sequence[tuple[str, str]]) -> Rows:
        return self._all(_REQUESTS, _columns(keys))

    def count_requests(self, rows: Rows) -> None:
        self._with_commit(_COUNT_REQUESTS, rows)

    def add_reservations(self, rows: Rows) -> None:
        self._with_commit(_ADD_RESERVATIONS, rows)

    def take_reservations(self, request_ids: Sequence[str]) -> Sequence[HeldRow]:
        return [HeldRow(*row) for row in self._all(_TAKE, (_array(request_ids),))]

    def take_expired(self, now_ms: int) -> Sequence[ReservationRow]:
        return [ReservationRow(*row) for row in self._all(_TAKE_EXPIRED, (now_ms,))]

    def renew(self, rows: Rows) -> None:
        self._many(_RENEW, rows)

    def add_events(self, rows: Sequence[Settle]) -> None:
        self._with_commit(_ADD_EVENTS, rows)

    def add_events_once(self, rows: Sequence[Settle]) -> None:
        self._with_commit(f"{_ADD_EVENTS} ON CONFLICT (request_id) DO NOTHING", rows)

    def abandoned(self, request_ids: Sequence[str]) -> Sequence[AbandonedRow]:
        return [AbandonedRow(*row) for row in self._all(_ABANDONED, (_array(request_ids),))]

    def adjusted(self, request_ids: Sequence[str]) -> Sequence[str]:
        return [row[0] for row in self._all(_ADJUSTED, (_array(request_ids),))]

    def add_entries(self, rows: Sequence[EntryRow]) -> None:
        self._with_commit(_ADD_ENTRIES, rows)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The driver's errors as the store's: what is in the way, what is gone. Refusals stay as they are."""
    try:
        yield
    except (DeadlockDetected, SerializationFailure, LockNotAvailable) as error:
        raise Contended(type(error).__name__) from error
    except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError):
        raise
    except psycopg.Error as error:  # away, hanging, read-only after a failover
        raise StoreFailed(type(error).__name__) from error
