"""The writer's store on PostgreSQL: two round trips a batch, as long as what it needs was foretold.

The first takes, locks and reads; the second writes and commits. What was not foretold is asked for in between.
"""

# The protocol in store.py documents the methods; the statements are put together from constants only.
# ruff: noqa: D102, S608

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import URL

from ownkey.metering.postgres_link import Asked, Link
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
    AbandonedRow,
    CallerRow,
    Contended,
    EntryRow,
    Foretold,
    HeldRow,
    Moment,
    ReservationRow,
    Rows,
)
from ownkey.metering.tallies import Horizon, UsedRow

_AT_ONCE = 200
_MOST_REMEMBERED = 200_000
FACTS_LOCK = 7_310_580
_TEXT, _NUMBER, _TRUTH = "", "::bigint", "::boolean"
_RESERVATION_TYPES = (*[_TEXT] * 4, *[_NUMBER] * 3, *[_TEXT] * 5, _NUMBER, _TEXT, _NUMBER)
_EVENT_TYPES = (*[_TEXT] * 11, *[_NUMBER] * 6, _TRUTH, _TEXT, _NUMBER, _NUMBER)
_ENTRY_TYPES = (_TEXT, _TEXT, _TEXT, _NUMBER, _TEXT, _TEXT, *[_NUMBER] * 3)

# A parameter is a list of rows, or of texts.
_GIVEN = "jsonb_array_elements($1::jsonb) AS j"
_AMONG_GIVEN = "= ANY(ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))"


def _columns(types: Sequence[str]) -> str:
    return ", ".join(f"(j->>{number}){kind}" for number, kind in enumerate(types))


def _insertion(into: str, types: Sequence[str]) -> str:
    return f"INSERT INTO {into} SELECT {_columns(types)} FROM {_GIVEN}"


_BEGIN = "BEGIN"
_COMMIT = "COMMIT"
# Shared among batches; a change of the facts takes it alone (see the first migration). So no batch that has read what
# was before is still open when the change is committed, on whichever node.
_SHARE_FACTS = f"SELECT pg_advisory_xact_lock_shared({FACTS_LOCK})"
_MOMENT = (
    "SELECT version, to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM'), "
    "(extract(epoch FROM statement_timestamp()) * 1000)::bigint FROM facts"
)
_CALLERS = f"SELECT t.token_hash, {CALLER_COLUMNS} {TOKEN_JOINS} WHERE t.token_hash {_AMONG_GIVEN}"
_PERSON = PERSON_QUERY.format(user="$1::jsonb->>0", workspace="$1::jsonb->>1")
_KEYS = f"SELECT {KEY_COLUMNS} FROM {_GIVEN} JOIN provider_keys ON organization_id = j->>0 AND provider = j->>1"
_ADD_BALANCES = (
    "INSERT INTO allowances (organization_id, period, granted_tokens) "
    f"SELECT j->>0, j->>1, 0 FROM {_GIVEN} ORDER BY 1, 2 ON CONFLICT DO NOTHING"
)
_BALANCES = (
    "SELECT organization_id, period, granted_tokens, used_tokens, reserved_tokens, excess_tokens, entries "
    f"FROM {_GIVEN} JOIN allowances ON organization_id = j->>0 AND period = j->>1 "
    "ORDER BY organization_id, period FOR UPDATE OF allowances"
)
_CHANGE_BALANCES = (
    "UPDATE allowances SET granted_tokens = (j->>0)::bigint, used_tokens = (j->>1)::bigint, "
    "reserved_tokens = (j->>2)::bigint, excess_tokens = (j->>3)::bigint, entries = (j->>4)::bigint "
    f"FROM {_GIVEN} WHERE organization_id = j->>5 AND period = j->>6"
)
_REQUESTS = (
    f"SELECT api_token_id, period, requests FROM {_GIVEN} "
    "JOIN api_token_months ON api_token_id = j->>0 AND period = j->>1"
)
_COUNT_REQUESTS = (
    "INSERT INTO api_token_months AS months (api_token_id, period, organization_id, requests, last_used_at) "
    # What is kept of a token that is gone, as after a failover, must not stand in everybody's way.
    f"SELECT {_columns((_TEXT, _TEXT, _TEXT, _NUMBER, _NUMBER))} FROM {_GIVEN} "
    "WHERE EXISTS (SELECT 1 FROM api_tokens WHERE id = j->>0) ORDER BY 1, 2 "
    "ON CONFLICT (api_token_id, period) DO UPDATE SET requests = months.requests + excluded.requests, "
    "last_used_at = greatest(months.last_used_at, excluded.last_used_at)"
)
_ADD_RESERVATIONS = _insertion(f"reservations ({RESERVATION_COLUMNS}, node, lease_until)", _RESERVATION_TYPES)
_TAKE = f"DELETE FROM reservations WHERE request_id {_AMONG_GIVEN} RETURNING {HELD_COLUMNS}"
_TAKE_EXPIRED = (
    "DELETE FROM reservations WHERE request_id IN (SELECT request_id FROM reservations "
    f"WHERE lease_until < ($1::jsonb)::bigint ORDER BY request_id LIMIT {_AT_ONCE} FOR UPDATE SKIP LOCKED) "
    f"RETURNING {EXPIRED_COLUMNS}"
)
_RENEW = (
    "UPDATE reservations SET observed_tokens = (j->>0)::bigint, lease_until = (j->>1)::bigint "
    f"FROM {_GIVEN} WHERE request_id = j->>2"
)
_ADD_EVENTS = _insertion(f"usage_events ({CHARGED_EVENT_COLUMNS})", (*_EVENT_TYPES, _NUMBER, _NUMBER))
_ADD_EVENTS_ONCE = f"{_insertion(f'usage_events ({EVENT_COLUMNS})', _EVENT_TYPES)} ON CONFLICT (request_id) DO NOTHING"
_ABANDONED = f"{ABANDONED_QUERY} {_AMONG_GIVEN}"
_ADJUSTED = f"SELECT request_id FROM ledger_entries WHERE kind = 'adjustment' AND request_id {_AMONG_GIVEN}"
_SETTLED = f"SELECT request_id FROM usage_events WHERE request_id {_AMONG_GIVEN}"
_ADD_ENTRIES = _insertion(f"ledger_entries ({ENTRY_COLUMNS})", _ENTRY_TYPES)

_OF_CONNECTION = "organization_id = $1::jsonb->>0 AND {0}provider = $1::jsonb->>1 AND {0}period = $1::jsonb->>2"
_FALLBACK_SUM = f"SELECT tokens FROM fallback_months WHERE {_OF_CONNECTION.format('')}"
_OPEN_FALLBACKS = f"{OPEN_FALLBACKS_QUERY} f.{_OF_CONNECTION.format('f.')}"
_ADD_FALLBACKS = _insertion(f"fallback_calls ({FALLBACK_COLUMNS})", [_TEXT] * 6)
_ADD_TO_SUM = (
    f"INSERT INTO fallback_months AS months (organization_id, provider, period, tokens) SELECT "
    f"{_columns((_TEXT, _TEXT, _TEXT, _NUMBER))} FROM {_GIVEN} ON CONFLICT (organization_id, provider, period) "
    "DO UPDATE SET tokens = months.tokens + excluded.tokens"
)
_COUNT_FALLBACKS = f"UPDATE fallback_calls SET counted = true WHERE request_id {_AMONG_GIVEN}"

_EVENTS_OF = {"organization": "$1::jsonb->>0", "period": "$1::jsonb->>1", "after": "($1::jsonb->>2)::bigint"}
_HORIZON = (
    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, "
    "pg_snapshot_xmax(pg_current_snapshot())::text::bigint, coalesce((SELECT max(id) FROM usage_events), 0)"
)
_USED = (
    "SELECT user_id, workspace_id, settled, sum(charged)::bigint, sum(own)::bigint, max(id), count(*) FROM ("
    "SELECT id, user_id, workspace_id, id <= ($1::jsonb->>3)::bigint AS settled, charged_tokens AS charged, "
    "CASE billed_to WHEN 'own_key' THEN input_tokens + output_tokens ELSE 0 END AS own "
    f"FROM ({RECENT.format(**_EVENTS_OF)}) AS recent) AS events GROUP BY user_id, workspace_id, settled "
    f"UNION ALL SELECT {CORRECTED.format(**_EVENTS_OF, false='false', number='::bigint')}"
)
_HELD_BY = (
    "SELECT user_id, workspace_id, sum(tokens)::bigint FROM reservations "
    "WHERE organization_id = $1::jsonb->>0 AND period = $1::jsonb->>1 GROUP BY user_id, workspace_id"
)


class PostgresStore:
    """A store on a PostgreSQL connection of its own."""

    is_local = False

    def __init__(self, url: URL) -> None:
        self._link = Link(url)
        # What a batch writes in the end; it goes to the database together with the commit.
        self._writes: list[Asked] = []
        # What was foretold of this batch, and the rows of it.
        self._foretold = Foretold(())
        self._taken: Rows = ()
        self._locked: dict[tuple[str, str], tuple[object, ...]] = {}
        self._counted: Rows = ()
        # Allowances that are known to be there. None is ever deleted.
        self._there: set[tuple[str, str]] = set()

    def _ask(self, statement: str, value: object) -> Rows:
        return self._link.trip((statement, value))[0]

    def _write(self, statement: str, rows: Rows) -> None:
        if rows:
            self._writes.append((statement, rows))

    def begin(self, foretell: Callable[[], Foretold], reads_only: bool) -> Moment:
        self._writes.clear()
        reservations, balances, requests = foretell()
        if not self._there.issuperset(balances):
            balances = ()
        self._foretold = Foretold(reservations, balances, requests)
        asked: list[Asked] = [(_BEGIN, None), (_SHARE_FACTS, None), (_MOMENT, None)]
        asked += [(_TAKE, reservations)] if reservations else []
        asked += [(_BALANCES, balances)] if balances else []
        asked += [(_REQUESTS, requests)] if requests else []
        rows = iter(self._link.trip(*asked)[2:])
        moment = Moment(*next(rows)[0])
        self._taken = next(rows) if reservations else ()
        self._locked = self._found(balances, next(rows)) if balances else {}
        self._counted = next(rows) if requests else ()
        return moment

    def commit(self) -> None:
        self._link.trip(*self._writes, (_COMMIT, None))

    def rollback(self) -> None:
        self._link.rollback()

    def close(self) -> None:
        self._link.close()

    def callers(self, callers: Sequence[Caller]) -> Sequence[CallerRow]:
        persons = [caller for caller in callers if not caller.token_hash]
        hashes = [caller.token_hash for caller in callers if caller.token_hash]
        rows, *of_persons = self._link.trip(
            (_CALLERS, hashes), *[(_PERSON, (caller.user_id, caller.workspace_id)) for caller in persons]
        )
        found = [CallerRow(Caller(row[0]), *row[1:]) for row in rows]
        return found + [CallerRow(one, *row) for one, rows in zip(persons, of_persons, strict=True) for row in rows]

    def keys(self, wanted: Sequence[tuple[str, str]]) -> Sequence[KeyRow]:
        return [KeyRow(*row) for row in self._ask(_KEYS, wanted)]

    def balances(self, keys: Sequence[tuple[str, str]]) -> Rows:
        if not self._locked:
            new = [key for key in keys if key not in self._there]
            # Before any is locked, so that all are locked in one order.
            asked = [(_ADD_BALANCES, new)] if new else []
            self._locked = self._found(keys, self._link.trip(*asked, (_BALANCES, keys))[-1])
            if len(self._there) > _MOST_REMEMBERED:
                self._there.clear()
            self._there.update(keys)
        elif not self._locked.keys() >= set(keys):
            # To lock more now could be in the wrong order: another node may hold that and wait for these.
            raise Contended("a balance was not foretold")
        return [self._locked[key] for key in keys]

    def _found(self, keys: Sequence[tuple[str, str]], rows: Rows) -> dict[tuple[str, str], tuple[object, ...]]:
        if len(rows) < len(keys):
            self._there.clear()
            raise Contended("somebody removed an allowance")
        return {(row[0], row[1]): row for row in rows}

    def change_balances(self, rows: Rows) -> None:
        self._write(_CHANGE_BALANCES, rows)

    def requests_of(self, keys: Sequence[tuple[str, str]]) -> Rows:
        return self._counted if set(self._foretold.requests).issuperset(keys) else self._ask(_REQUESTS, keys)

    def count_requests(self, rows: Rows) -> None:
        self._write(_COUNT_REQUESTS, rows)

    def add_reservations(self, rows: Rows) -> None:
        self._write(_ADD_RESERVATIONS, rows)

    def take_reservations(self, request_ids: Sequence[str]) -> Sequence[HeldRow]:
        rows = self._taken if request_ids == self._foretold.reservations else self._ask(_TAKE, request_ids)
        return [HeldRow(*row) for row in rows]

    def take_expired(self, now_ms: int) -> Sequence[ReservationRow]:
        return [ReservationRow(*row) for row in self._ask(_TAKE_EXPIRED, now_ms)]

    def renew(self, rows: Rows) -> None:
        if rows:
            self._ask(_RENEW, rows)

    def add_events(self, rows: Rows) -> None:
        self._write(_ADD_EVENTS, rows)

    def add_events_once(self, rows: Sequence[Settle]) -> None:
        self._write(_ADD_EVENTS_ONCE, rows)

    def abandoned(self, request_ids: Sequence[str]) -> Sequence[AbandonedRow]:
        return [AbandonedRow(*row) for row in self._ask(_ABANDONED, request_ids)]

    def adjusted(self, request_ids: Sequence[str]) -> Sequence[str]:
        return [row[0] for row in self._ask(_ADJUSTED, request_ids)]

    def settled(self, request_ids: Sequence[str]) -> Sequence[str]:
        return [row[0] for row in self._ask(_SETTLED, request_ids)]

    def used_since(self, organization_id: str, period: str, after: int, old: int) -> tuple[Horizon, Sequence[UsedRow]]:
        horizon, rows = self._link.trip((_HORIZON, None), (_USED, (organization_id, period, after, old)))
        return Horizon(*horizon[0]), [UsedRow(*row) for row in rows]

    def held_by(self, organization_id: str, period: str) -> Sequence[tuple[str | None, str, int]]:
        return [(row[0], row[1], row[2]) for row in self._ask(_HELD_BY, (organization_id, period))]

    def add_entries(self, rows: Sequence[EntryRow]) -> None:
        self._write(_ADD_ENTRIES, rows)

    def fallback_sum(self, organization_id: str, provider: str, period: str) -> int:
        rows = self._ask(_FALLBACK_SUM, (organization_id, provider, period))
        return int(rows[0][0]) if rows else 0

    def open_fallbacks(self, organization_id: str, provider: str, period: str) -> Rows:
        return self._ask(_OPEN_FALLBACKS, (organization_id, provider, period))

    def add_fallbacks(self, rows: Rows) -> None:
        self._write(_ADD_FALLBACKS, rows)

    def count_fallbacks(self, connection: tuple[str, str, str], tokens: int, request_ids: Sequence[str]) -> None:
        self._write(_ADD_TO_SUM, [(*connection, tokens)])
        self._writes.append((_COUNT_FALLBACKS, list(request_ids)))
