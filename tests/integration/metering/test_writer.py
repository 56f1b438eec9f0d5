"""The writer while the database hangs, in a batch or in a change: who is told what, and what is left undone."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from ownkey.db.engine import Database
from ownkey.errors import Unavailable
from ownkey.metering.postgres_store import FACTS_LOCK, PostgresStore
from ownkey.metering.reservations import Admission
from ownkey.metering.store import Foretold, StoreFailed
from tests.fixtures.databases import locked
from tests.integration.metering.desk import open_desk

pytestmark = pytest.mark.anyio


@pytest.mark.postgres
async def test_a_change_that_hangs_holds_up_nobody(postgres_url: URL) -> None:
    """While a change does not end, calls and other changes are told that the database is away; then all is served."""
    database = Database(postgres_url)
    async with open_desk(database) as desk:
        running = await desk.admitted()

        async def change() -> None:
            async with desk.writer.turn():
                pass

        async with desk.writer.turn():
            other = asyncio.create_task(change())
            assert isinstance(await desk.ask(), Unavailable)
            with pytest.raises(Unavailable):
                await other
            assert isinstance(await desk.ask(), Unavailable)
            told: list[object] = []
            desk.writer.current_key(desk.organization_id, "openai", told.append)
            assert isinstance(told[0], Unavailable)
            await desk.settle(running, output=50)  # is told at once, and written when it can be
        while desk.writer.down:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await change()
        assert isinstance(await desk.ask(), Admission)
        assert (await desk.balance())[1] == 150
    await database.close()


@pytest.mark.postgres
async def test_a_node_that_went_silent_in_a_batch_does_not_hold_up_the_others(postgres_url: URL) -> None:
    """What another node had locked when it froze is given back by the server, and all calls are served again."""
    database = Database(postgres_url)
    async with open_desk(database) as desk, open_desk(database) as other:
        running = await desk.admitted()
        frozen = PostgresStore(postgres_url)
        frozen.begin(lambda: Foretold(()), False)
        frozen.balances([(desk.organization_id, running.period)])
        await desk.settle(running, output=50)
        async with asyncio.timeout(12):
            while desk.writer.down or not isinstance(await desk.ask(other.command()), Admission):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await desk.balance())[1] == 150
        with pytest.raises(StoreFailed):
            frozen.commit()
        frozen.close()
    await database.close()


@pytest.mark.postgres
async def test_a_change_that_went_silent_is_undone(postgres_url: URL) -> None:
    """The server ends it, which is no other failure than a database that is away; the next change is made."""
    database = Database(postgres_url)

    async def change() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("UPDATE audit_end SET hash = 'of the silent'"))
            await asyncio.sleep(7)
            await tx.execute(text("UPDATE audit_end SET hash = 'of the late'"))

    with pytest.raises(Unavailable):
        await change()
    async with database.transaction() as tx:
        assert "of the" not in (await tx.execute(text("SELECT hash FROM audit_end"))).scalar_one()
    await database.close()


async def test_a_slow_disk_is_waited_for(sqlite_url: URL) -> None:
    """A change in a file that takes longer than a batch may refuses nobody: who asks meanwhile is answered after it."""
    database = Database(sqlite_url)
    async with open_desk(database) as desk:
        async with desk.writer.turn():
            asked = asyncio.create_task(desk.ask())
            await asyncio.sleep(1.3)
            assert not asked.done()
        assert isinstance(await asked, Admission)
    await database.close()


async def test_a_machine_that_stands_still_is_no_database_that_hangs(sqlite_url: URL) -> None:
    """What the process could not do because it did not run is held against nobody: who asked is admitted."""
    database = Database(sqlite_url)
    async with open_desk(database) as desk:
        await desk.admitted()
        with locked(Path(str(sqlite_url.database))) as free:
            asked = asyncio.create_task(desk.ask())
            await asyncio.sleep(0.1)
            threading.Timer(0.5, free).start()
            time.sleep(1.2)  # noqa: ASYNC251 - the loop stands still, and has the time's end and the answer at once
            assert isinstance(await asked, Admission)
    await database.close()


async def test_who_waited_for_a_batch_hears_what_is_away(sqlite_url: URL) -> None:
    """A call whose batch hangs gets the same words as one that comes while the database is known to be away."""
    database = Database(sqlite_url)
    async with open_desk(database) as desk:
        await desk.admitted()
        with locked(Path(str(sqlite_url.database))):
            waited, came_late = await desk.ask(), await desk.ask()
        assert isinstance(waited, Unavailable)
        assert str(waited) == str(came_late) == "The database is not available. Try again shortly."
    await database.close()


async def test_a_call_waits_for_no_queue_of_changes(database: Database) -> None:
    """However many changes wait, between two of them goes a batch."""
    async with open_desk(database) as desk:
        await desk.admitted()
        made = 0

        async def change() -> None:
            nonlocal made
            async with desk.writer.turn():
                await asyncio.sleep(0)
                made += 1

        changes = [asyncio.create_task(change()) for _ in range(200)]
        while not made:  # noqa: ASYNC110
            await asyncio.sleep(0)
        before = made
        await desk.admitted()
        assert made - before <= 3
        await asyncio.gather(*changes)
        assert made == 200


async def test_a_change_is_made_between_batches(database: Database) -> None:
    """What is asked during a change is answered after it, and one that ends in time holds nobody up for long."""
    async with open_desk(database) as desk:
        async with desk.writer.turn():
            asked = asyncio.create_task(desk.ask())
            await asyncio.sleep(0.05)
            assert not asked.done()
        assert isinstance(await asked, Admission)
        assert not desk.writer.down


async def test_a_change_that_waits_for_a_connection_holds_up_nobody(database: Database) -> None:
    """While pages keep all connections, calls are served; one who waits no longer leaves nothing behind."""
    async with open_desk(database) as desk:

        async def change() -> None:
            async with database.transaction() as tx:
                await tx.execute(text("UPDATE audit_end SET hash = hash"))

        async with AsyncExitStack() as pages:
            for _ in range(12 if database.dialect == "sqlite" else 10):
                await (await pages.enter_async_context(database.read())).execute(text("SELECT 1"))
            patient, impatient = asyncio.create_task(change()), asyncio.create_task(change())
            await asyncio.sleep(0.05)
            assert isinstance(await desk.ask(), Admission)
            assert not patient.done()
            impatient.cancel()
        await patient
        async with desk.writer.turn():
            impatient = asyncio.create_task(change())
            await asyncio.sleep(0.05)
            impatient.cancel()
        await change()
        assert isinstance(await desk.ask(), Admission)
        assert impatient.cancelled()
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_nobody_is_taken_for_dead_because_the_database_hung(database: Database) -> None:
    """The reaper that hung, or is asked for meanwhile, leaves alone those who could not renew their leases."""
    other = Database(database.url)
    async with open_desk(database) as desk:
        running = await desk.admitted()
        await desk.expire_leases()
        async with other.transaction() as tx:  # which locks every batch out
            if other.dialect == "postgresql":
                await tx.execute(text(f"SELECT pg_advisory_xact_lock({FACTS_LOCK})"))
            with pytest.raises(Unavailable):
                await desk.writer.reap()
            with pytest.raises(Unavailable):
                await desk.writer.reap()
        while desk.writer.down:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await desk.writer.reap() == 0
        assert (await desk.balance())[2] == running.reserved
        await desk.settle(running, output=50)
        assert (await desk.balance())[1:] == (150, 0)
    await other.close()


async def test_an_outage_is_said_once(sqlite_url: URL, capsys: pytest.CaptureFixture[str]) -> None:
    """However often a database that is away is asked whether it is back, its going and its return are a line each."""
    database, other = Database(sqlite_url), Database(sqlite_url)
    async with open_desk(database) as desk:
        async with other.transaction():
            assert isinstance(await desk.ask(), Unavailable)
            await asyncio.sleep(3)
        while desk.writer.down:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    said = "".join(capsys.readouterr())
    assert (said.count("the database does not answer"), said.count("the database is back")) == (1, 1)
    assert "the database is away" not in said
    await database.close()
    await other.close()
