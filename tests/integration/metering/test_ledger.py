"""That verifying recomputes every balance, and names the row that was changed behind the program's back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL, text

from ownkey import clock
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.metering import ledger
from ownkey.metering.reservations import Admission
from tests.integration.metering.desk import Desk, open_desk

pytestmark = pytest.mark.anyio

_EVENT = ", ".join(column.name for column in tables.usage_events.c if column.name not in ("id", "request_id"))
_ENTRY = ", ".join(column.name for column in tables.ledger_entries.c if column.name not in ("id", "request_id"))


@asynccontextmanager
async def _a_month(database: Database) -> AsyncIterator[tuple[Desk, Mapping[str, Admission]]]:
    """One with every kind of entry.

    1 the grant of 10,000; 2 the call ``one``, 200 tokens; 3 the call ``dead``, abandoned at 100 tokens; 4 its late
    adjustment by 200; 5 the call ``last``, 150. Beside them one call on an own key, and one that runs and holds 1,500.
    """
    async with open_desk(database) as desk:
        await desk.add_key("anthropic")
        calls = {"one": await desk.admitted()}
        await desk.settle(calls["one"], output=100)
        calls["dead"] = await desk.admitted()
        await desk.expire_leases()
        await desk.writer.reap()
        await desk.settle(calls["dead"], output=200)
        calls["own"] = await desk.admitted(desk.command(provider="anthropic"))
        await desk.settle(calls["own"], output=70)
        calls["last"] = await desk.admitted()
        await desk.settle(calls["last"], output=50)
        await desk.admitted()
        yield desk, calls


async def _change(database: Database, statement: str, **values: str) -> None:
    async with database.transaction() as tx:
        await tx.execute(text(statement), values)


async def test_entries_and_events_are_one_chain(database: Database) -> None:
    """Each has its position in the month and what is used after it; an own-key call has neither."""
    events = text("SELECT position, used_after FROM usage_events ORDER BY id")
    entries = text("SELECT kind, position, used_after FROM ledger_entries ORDER BY id")
    async with _a_month(database) as (desk, _), database.read() as tx:
        assert (await tx.execute(events)).all() == [(2, 200), (3, 300), (None, None), (5, 650)]
        assert (await tx.execute(entries)).all() == [("grant", 1, 0), ("adjustment", 4, 500)]
        assert await desk.balance() == (10_000, 650, 1_500)
        assert await ledger.verify(database) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE allowances SET used_tokens = used_tokens - 1", {("used", 650, 649)}),
        ("UPDATE allowances SET granted_tokens = granted_tokens + 5", {("granted", 10_000, 10_005)}),
        ("UPDATE allowances SET entries = entries - 1", {("entries", 5, 4)}),
        ("UPDATE allowances SET entries = entries + 1", {("entry 6", 1, 0)}),
        ("DELETE FROM reservations", {("reserved", 0, 1_500)}),
        # An event: edited, deleted, doubled, moved.
        ("UPDATE usage_events SET charged_tokens = 205 WHERE request_id = :one", {("one", 205, 200)}),
        (
            "UPDATE usage_events SET used_after = 205 WHERE request_id = :one",
            {("one", 200, 205), ("dead", 305, 300)},
        ),
        ("DELETE FROM usage_events WHERE request_id = :one", {("entry 2", 1, 0)}),
        ("DELETE FROM usage_events WHERE request_id IN (:one, :dead)", {("entries 2 to 3", 2, 0)}),
        ("DELETE FROM usage_events WHERE request_id = :last", {("entry 5", 1, 0), ("used", 500, 650)}),
        (
            f"INSERT INTO usage_events (request_id, {_EVENT}) SELECT 'copy', {_EVENT} FROM usage_events "
            "WHERE request_id = :one",
            {("copy", 3, 2)},
        ),
        (
            "UPDATE usage_events SET position = 9 WHERE request_id = :one",
            {("entry 2", 1, 0), ("entries 6 to 8", 3, 0), ("entries", 9, 5), ("used", 200, 650)},
        ),
        ("UPDATE usage_events SET charged_tokens = 5 WHERE request_id = :own", {("own", 0, 5)}),
        (
            "UPDATE usage_events SET billed_to = 'own_key', position = NULL, used_after = NULL WHERE request_id = :one",
            {("entry 2", 1, 0), ("one", 0, 200)},
        ),
        # A grant or an adjustment.
        ("UPDATE ledger_entries SET tokens = tokens + 1 WHERE kind = 'grant'", {("granted", 10_001, 10_000)}),
        ("DELETE FROM ledger_entries WHERE kind = 'grant'", {("entry 1", 1, 0), ("granted", 0, 10_000)}),
        ("UPDATE ledger_entries SET tokens = -100 WHERE kind = 'adjustment'", {("entry 4", 400, 500)}),
        ("DELETE FROM ledger_entries WHERE kind = 'adjustment'", {("entry 4", 1, 0)}),
        (
            f"INSERT INTO ledger_entries (request_id, {_ENTRY}) SELECT 'copy', {_ENTRY} FROM ledger_entries "
            "WHERE kind = 'adjustment'",
            {("entry 4", 5, 4)},
        ),
    ],
)
async def test_verifying_names_what_was_changed_behind_our_back(
    database: Database, damage: str, named: set[tuple[str, int, int]]
) -> None:
    """An edited, deleted or doubled row is found and named, with what it should be and what it is."""
    async with _a_month(database) as (desk, calls):
        ids = {name: call.request_id for name, call in calls.items()}
        await _change(database, damage, **{name: value for name, value in ids.items() if f":{name}" in damage})
        found = await ledger.verify(database)
        names = {value: name for name, value in ids.items()}
        assert {(names.get(one.subject, one.subject), one.expected, one.found) for one in found} == named
        assert {(one.organization_id, one.period) for one in found} == {
            (desk.organization_id, clock.period_of(clock.now()))
        }


async def test_an_event_that_was_moved_is_missed_in_both_months(database: Database) -> None:
    """Its old month has a gap, and in the month it was moved to it follows on nothing."""
    async with _a_month(database) as (_, calls):
        moved = "UPDATE usage_events SET period = '2026-01' WHERE request_id = :one"
        await _change(database, moved, one=calls["one"].request_id)
        found = [(one.period, one.subject, one.expected, one.found) for one in await ledger.verify(database)]
        assert sorted(found) == [
            ("2026-01", "entries", 2, 0),
            ("2026-01", "entry 1", 1, 0),
            ("2026-01", "used", 200, 0),
            (clock.period_of(clock.now()), "entry 2", 1, 0),
        ]


@pytest.mark.parametrize(
    "values", ["billed_to = 'own_key'", "position = NULL", "used_after = NULL", "position = NULL, used_after = NULL"]
)
async def test_the_database_refuses_an_event_without_its_place(database: Database, values: str) -> None:
    """A call that the allowance paid for is in the chain, one on an own key is not; the table's own checks hold it."""
    async with _a_month(database) as (_, calls):
        damage = f"UPDATE usage_events SET {values} WHERE request_id = :one"
        with pytest.raises(Exception, match="ck_usage_events"):
            await _change(database, damage, one=calls["one"].request_id)


@pytest.mark.postgres
async def test_a_verification_takes_the_time_it_needs(postgres_url: URL) -> None:
    """On PostgreSQL a page is told within seconds that the database is too slow; an operator who reads all is not."""
    database = Database(postgres_url)
    for at_leisure, limits in ((True, ("0", "0")), (False, ("5s", "6s"))):
        async with database.read(at_leisure=at_leisure) as tx:
            shown = "current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
            assert (await tx.exec_driver_sql(f"SELECT {shown}")).one() == limits
    await database.close()
