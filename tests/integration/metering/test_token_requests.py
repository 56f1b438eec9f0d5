"""That a token's requests of the month are counted: exactly where a plan limits them, and soon elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from sqlalchemy import delete, func, select

from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import OwnkeyError, RequestLimitReached
from ownkey.metering.batch import Batch, Command, Outcome, Reap
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import Admission
from ownkey.metering.store import Store
from tests.integration.metering.desk import Desk, open_desk, open_store

pytestmark = pytest.mark.anyio


async def _written(database: Database) -> int:
    async with database.read() as tx:
        return int(await tx.scalar(select(func.coalesce(func.sum(tables.api_token_months.c.requests), 0))) or 0)


def _admitted(outcomes: list[Admission | OwnkeyError]) -> list[bool]:
    assert all(isinstance(outcome, Admission | RequestLimitReached) for outcome in outcomes)
    return [isinstance(outcome, Admission) for outcome in outcomes]


async def test_a_stopped_node_has_written_every_request(database: Database) -> None:
    """Under a plan without a limit requests are counted in memory; a node that is stopped leaves none there."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        for _ in range(7):
            await desk.admitted()
        assert await _written(database) < 7
    assert await _written(database) == 7


async def test_a_token_that_is_gone_stands_in_nobodys_way(database: Database) -> None:
    """What is kept of it, as after a failover that lost it, is left out; all else is written and decided."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        async with open_desk(database, monthly_tokens=10**6) as gone:
            for number in range(6):
                await desk.admitted(desk.command(caller=(gone if number % 2 else desk).command().caller))
        async with database.transaction() as tx:
            for table in (tables.api_token_months, tables.api_tokens):
                await tx.execute(delete(table).where(table.c.organization_id == gone.organization_id))
        desk.writer._copies.uses._swept_ms -= 60_000  # as if a minute had passed
        await desk.admitted()
        await desk.admitted()
    assert await _written(database) == 5


async def test_a_limit_counts_what_was_made_before_it(database: Database) -> None:
    """A plan with a limit, taken in the middle of the month, counts every request of the month, and is exact."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        desk.plans["limited"] = desk.plans["tested"].model_copy(
            update={"code": "limited", "monthly_requests_per_token": 7}
        )
        for _ in range(5):
            await desk.admitted()
        await desk.subscribe("limited")
        assert sum(_admitted(await asyncio.gather(*[desk.ask() for _ in range(4)]))) == 2
        await desk.subscribe("tested")
        assert isinstance(await desk.ask(), Admission)
        await desk.subscribe("limited")
        assert isinstance(await desk.ask(), RequestLimitReached)
        assert await _written(database) == 7


async def test_a_limit_counts_what_was_made_on_another_node(database: Database) -> None:
    """After a change of plan, the next batch of another node writes what it has kept until then."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        desk.plans["limited"] = desk.plans["tested"].model_copy(
            update={"code": "limited", "monthly_requests_per_token": 7}
        )
        other = _Node(desk)
        for _ in range(5):
            await other.run(desk.command())
        assert await _written(database) < 5
        await desk.subscribe("limited")
        other.copies.uses._swept_ms -= 5_000  # as if some seconds had passed
        await other.run(Reap(lambda: True))
        assert sum(_admitted(await asyncio.gather(*[desk.ask() for _ in range(4)]))) == 2
        other.store.close()


async def test_a_batch_that_fails_keeps_what_was_kept(database: Database) -> None:
    """Requests in memory are forgotten after the commit that wrote them, not before."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        node = _Node(desk)
        for _ in range(3):
            await node.run(desk.command())
        store, node.store = node.store, cast("Store", _FullDisk(node.store))
        node.copies.uses.leave_nothing()
        with pytest.raises(RuntimeError):
            await node.run(desk.command())
        node.store = store
        node.copies.uses.leave_nothing()
        await node.run(Reap(lambda: True))
        assert await _written(database) == 3
        node.store.close()


class _FullDisk:
    """A store that can do everything but commit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def commit(self) -> None:
        raise RuntimeError("disk full")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Node:
    """Another node's writer, without its thread."""

    def __init__(self, desk: Desk) -> None:
        self.store: Store = open_store(desk.db)
        self.copies = Copies()
        self._plans = desk.plans

    async def run(self, *commands: Command) -> list[Outcome]:
        """One batch."""
        return await asyncio.to_thread(Batch(self.store, self._plans, "node_2", self.copies).run, commands)
