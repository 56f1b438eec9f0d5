"""That a ledger whose entries were not yet one chain is brought over, with all that was wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import ProgrammingError

from ownkey.db import schema
from ownkey.db.engine import Database
from ownkey.errors import Unavailable
from ownkey.metering import ledger
from tests.integration.metering.desk import Desk, open_desk

pytestmark = pytest.mark.anyio

_MONTH, _EARLIER = "2026-03", "2026-02"


@pytest.fixture
async def old(database_url: URL) -> AsyncIterator[Database]:
    """An empty database of before that."""
    _clear(database_url)
    schema.upgrade(database_url, "0003")
    database = Database(database_url, synchronous="OFF")
    yield database
    await database.close()


def _clear(url: URL) -> None:
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).unlink()
        return
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


async def _do(database: Database, statement: str, **values: object) -> None:
    async with database.engine.begin() as tx:
        await tx.execute(text(statement), values)


async def _entry(desk: Desk, kind: str, tokens: int, request: str | None = None, period: str = _MONTH) -> None:
    await _do(
        desk.db,
        "INSERT INTO ledger_entries (organization_id, period, kind, tokens, request_id, note, created_at) "
        "VALUES (:org, :period, :kind, :tokens, :request, '', 0)",
        **{"org": desk.organization_id, "period": period, "kind": kind, "tokens": tokens, "request": request},
    )


async def _event(desk: Desk, request: str, charged: int, billed_to: str = "allowance", period: str = _MONTH) -> None:
    await _do(
        desk.db,
        "INSERT INTO usage_events (request_id, organization_id, workspace_id, period, provider, model, dialect, "
        "billed_to, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, "
        "charged_tokens, estimated, outcome, started_at, duration_ms) VALUES (:request, :org, :wsp, :period, 'openai', "
        "'m', 'openai', :billed, 1, 0, 0, 1, 0, :charged, :estimated, 'finished', 0, 0)",
        **{"request": request, "org": desk.organization_id, "wsp": desk.workspace_id, "period": period},
        **{"billed": billed_to, "charged": charged, "estimated": False},
    )


async def _call(desk: Desk, request: str, charged: int, period: str = _MONTH) -> None:
    """As it was written then: the event, and an entry if it took something."""
    await _event(desk, request, charged, period=period)
    if charged:
        await _entry(desk, "usage", -charged, request, period)


async def _balance(desk: Desk, granted: int, used: int, reserved: int = 0, period: str = _MONTH) -> None:
    await _do(
        desk.db,
        "INSERT INTO allowances (organization_id, period, granted_tokens, used_tokens, reserved_tokens) "
        "VALUES (:org, :period, :granted, :used, :reserved)",
        **{"org": desk.organization_id, "period": period, "granted": granted, "used": used, "reserved": reserved},
    )


async def _fill(desk: Desk) -> None:
    """Two months: 700 and 1,130 used, with calls that took nothing, an own-key call, a correction and an upgrade."""
    await _call(desk, "req_free", 0, _EARLIER)
    await _entry(desk, "grant", 1_000, period=_EARLIER)
    await _call(desk, "req_0", 700, _EARLIER)
    await _balance(desk, 1_000, 700, period=_EARLIER)
    await _entry(desk, "grant", 1_000)
    await _call(desk, "req_1", 200)
    await _call(desk, "req_2", 0)
    await _event(desk, "req_own", 0, "own_key")
    await _call(desk, "req_3", 300)
    await _entry(desk, "grant", 1_000)
    await _call(desk, "req_4", 600)
    await _entry(desk, "adjustment", -30, "req_3")
    await _call(desk, "req_5", 0)
    await _balance(desk, 2_000, 1_130)


async def test_every_entry_gets_its_place(old: Database) -> None:
    """Events and entries are one chain in the order of the old ledger, and balances count them."""
    async with open_desk(old) as desk:
        await _fill(desk)
        await asyncio.to_thread(schema.upgrade, old.url)
        async with old.read() as tx:
            events = await tx.execute(
                text("SELECT request_id, charged_tokens, position, used_after FROM usage_events ORDER BY id")
            )
            assert events.all() == [
                ("req_free", 0, 1, 0),
                ("req_0", 700, 3, 700),
                ("req_1", 200, 2, 200),
                ("req_2", 0, 3, 200),
                ("req_own", 0, None, None),
                ("req_3", 300, 4, 500),
                ("req_4", 600, 6, 1_100),
                ("req_5", 0, 7, 1_100),
            ]
            entries = await tx.execute(
                text("SELECT period, kind, tokens, position, used_after FROM ledger_entries ORDER BY id")
            )
            assert entries.all() == [
                (_EARLIER, "grant", 1_000, 2, 0),
                (_MONTH, "grant", 1_000, 1, 0),
                (_MONTH, "grant", 1_000, 5, 500),
                (_MONTH, "adjustment", -30, 8, 1_130),
            ]
            counts = await tx.execute(text("SELECT period, entries FROM allowances ORDER BY period"))
            assert counts.all() == [(_EARLIER, 3), (_MONTH, 8)]
        assert await ledger.verify(old) == []


async def test_metering_goes_on(old: Database) -> None:
    """A month that began before the upgrade goes on after it: a late call, an adjustment, and the next call."""
    async with open_desk(old) as desk:
        await _fill(desk)
        await _do(old, "UPDATE usage_events SET outcome = 'abandoned' WHERE request_id = 'req_4'")
        await asyncio.to_thread(schema.upgrade, old.url)
        late = await desk.admitted()
        desk.writer.release("req_4")
        desk.writer.release("req_3")
        await _do(old, "UPDATE reservations SET period = :period", period=_MONTH)
        await _do(old, "UPDATE allowances SET reserved_tokens = 0 WHERE period > :period", period=_MONTH)
        await _do(
            old,
            "UPDATE allowances SET reserved_tokens = 1500, excess_tokens = 1500 WHERE period = :period",
            period=_MONTH,
        )
        await desk.settle(late, output=10)
        assert await desk.balance(_MONTH) == (2_000, 1_130 - 600 + 110, 0)
        assert await ledger.verify(old) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE allowances SET used_tokens = 1125 WHERE period = '2026-03'", {("used", 1_130, 1_125)}),
        ("UPDATE usage_events SET charged_tokens = 5 WHERE request_id = 'req_1'", {("req_1", 5, 200)}),
        ("UPDATE usage_events SET charged_tokens = 5 WHERE request_id = 'req_2'", {("req_2", 205, 200)}),
        ("DELETE FROM usage_events WHERE request_id = 'req_1'", {("entry 3", 1, 0)}),
        (
            "DELETE FROM ledger_entries WHERE kind = 'usage' AND request_id = 'req_1'",
            {("req_1", 200, 0), ("used", 930, 1_130)},
        ),
        (
            "INSERT INTO ledger_entries (organization_id, period, kind, tokens, request_id, note, created_at) "
            "SELECT organization_id, period, kind, tokens, request_id, note, created_at FROM ledger_entries "
            "WHERE kind = 'usage' AND request_id = 'req_1'",
            {("entry 9", 1, 0)},
        ),
        ("UPDATE ledger_entries SET tokens = -1 WHERE request_id = 'req_1'", {("req_1", 200, 1), ("used", 931, 1_130)}),
    ],
)
async def test_what_was_wrong_before_is_named_after(
    old: Database, damage: str, named: set[tuple[str, int, int]]
) -> None:
    """The upgrade repairs nothing that verifying would have found: an edited, deleted or doubled row is still named."""
    async with open_desk(old) as desk:
        await _fill(desk)
        await _do(old, damage)
        await asyncio.to_thread(schema.upgrade, old.url)
        found = await ledger.verify(old)
        assert {(one.subject, one.expected, one.found) for one in found} == named
        assert {(one.organization_id, one.period) for one in found} == {(desk.organization_id, _MONTH)}


async def test_an_upgrade_that_fails_changes_nothing(old: Database) -> None:
    """All or none: whatever stops it, the database is as it was, to be upgraded later."""
    async with open_desk(old) as desk:
        await _fill(desk)
        # Something is in the way of what the upgrade does in the end.
        if old.dialect == "sqlite":
            await _do(old, "CREATE TABLE old_entries (one INTEGER)")
        else:
            await _do(old, "ALTER TABLE ledger_entries DROP CONSTRAINT ck_ledger_entries_kind")
        with pytest.raises((Unavailable, ProgrammingError)):
            await asyncio.to_thread(schema.upgrade, old.url)
        assert not await asyncio.to_thread(schema.is_current, old.url)
        async with old.read() as tx:
            kinds = await tx.execute(text("SELECT count(*) FROM ledger_entries WHERE kind = 'usage'"))
            assert kinds.scalar_one() == 4
