"""That what was held is replaced by what was used, exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from sqlalchemy import URL, delete, text, update

from ownkey import clock
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import AllowanceExhausted, OwnkeyError, Unavailable
from ownkey.metering import allowances, ledger, usage_events
from ownkey.metering.batch import Batch
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import Admission, Caller
from ownkey.metering.settlement import Renew
from ownkey.metering.store import Store
from tests.integration.metering.desk import Desk, open_desk, open_store

pytestmark = pytest.mark.anyio


async def test_a_settlement_writes_event_entry_and_balance(database: Database) -> None:
    """One settled call is one usage event, one ledger entry and as much used."""
    async with open_desk(database) as desk:
        await desk.settle(await desk.admitted(), output=250)
        (event,) = await usage_events.events(database, desk.actor)
        assert (event.input_tokens, event.output_tokens, event.charged_tokens) == (100, 250, 350)
        assert (event.billed_to, event.outcome, event.workspace) == ("allowance", "finished", "General")
        assert await desk.balance() == (10_000, 350, 0)
        assert await ledger.verify(database) == []


async def test_a_repeated_settlement_changes_nothing(database: Database) -> None:
    """Settling twice, one after the other or in one batch, charges once."""
    async with open_desk(database) as desk:
        first, second = await desk.admitted(), await desk.admitted()
        await desk.settle(first, output=250)
        await asyncio.gather(desk.settle(first, output=250), desk.settle(second, output=50))
        await desk.settle(second, output=999)
        assert await desk.balance() == (10_000, 500, 0)
        assert len(await usage_events.events(database, desk.actor)) == 2


async def test_a_repeated_own_key_settlement_changes_nothing(database: Database) -> None:
    """An own-key call has no reservation; the unique id of its event makes its settlement idempotent."""
    async with open_desk(database) as desk:
        await desk.add_key()
        admission = await desk.admitted()
        await desk.settle(admission, output=250)
        await desk.settle(admission, output=250)
        (event,) = await usage_events.events(database, desk.actor)
        assert (event.billed_to, event.charged_tokens, event.output_tokens) == ("own_key", 0, 250)


async def test_a_released_reservation_leaves_no_trace(database: Database) -> None:
    """What was never sent to a provider costs nothing and is no event."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        desk.writer.release(admission.request_id)
        await desk.admitted()
        assert (await desk.balance())[1:] == (0, 1_500)
        assert await usage_events.events(database, desk.actor) == []


async def test_a_provider_that_makes_more_than_its_limit(database: Database) -> None:
    """The excess is charged, nothing is admitted afterwards, and the balance never looks smaller than it is."""
    async with open_desk(database, monthly_tokens=1_500) as desk:
        await desk.settle(await desk.admitted(), output=5_000)
        assert await desk.balance() == (1_500, 5_100, 0)
        assert isinstance(await desk.ask(), AllowanceExhausted)
        shown = await allowances.current(database, desk.actor, desk.plans["tested"])
        assert (shown.remaining, shown.exhausted) == (0, True)
        assert await ledger.verify(database) == []


async def test_a_dead_nodes_call_is_settled_at_what_was_seen(database: Database) -> None:
    """After the lease ran out a call is charged its input and the output last noted, marked estimated, once."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        desk.writer.renew([Renew(admission.request_id, 321)])
        await desk.expire_leases()
        assert await desk.writer.reap() == 1
        assert await desk.writer.reap() == 0
        (event,) = await usage_events.events(database, desk.actor)
        assert (event.outcome, event.estimated, event.charged_tokens) == ("abandoned", True, 421)
        assert await desk.balance() == (10_000, 421, 0)


async def test_weights_count_from_admission_to_the_end(database: Database) -> None:
    """What a model's tokens count on the plan counts in what is held, and in what a dead node's call is charged."""
    async with open_desk(database, weights={"a-*": {"input": 2, "output": 3}}) as desk:
        admission = await desk.admitted()
        assert admission.reserved == 500 * 2 + 1_000 * 3
        lowered = await desk.admitted(desk.command(output_limit=8_000))
        assert (lowered.output_limit, lowered.reserved) == (1_666, 1_000 + 1_666 * 3)
        desk.writer.renew([Renew(admission.request_id, 321)])
        await desk.expire_leases()
        assert await desk.writer.reap() == 2
        assert {event.charged_tokens for event in await usage_events.events(database, desk.actor)} == {1_163, 200}
        assert await desk.balance() == (10_000, 1_363, 0)
        assert await ledger.verify(database) == []


async def test_a_renewed_lease_is_not_reaped(database: Database) -> None:
    """A live call is left alone however long it runs."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        await desk.expire_leases()
        desk.writer.renew([Renew(admission.request_id, 5)])
        assert await desk.writer.reap() == 0


async def test_a_late_settlement_is_one_correction(database: Database) -> None:
    """A node that was taken for dead and settles after all corrects the charge once, and never adds a second."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        await desk.expire_leases()
        await desk.writer.reap()
        await desk.settle(admission, output=700)
        await desk.settle(admission, output=700)
        assert await desk.balance() == (10_000, 800, 0)
        assert await ledger.verify(database) == []


async def test_a_plan_change_counts_at_the_next_call(database: Database) -> None:
    """An upgrade is usable at once; a downgrade below what is used leaves nothing, and never a negative balance."""
    async with open_desk(database, monthly_tokens=1_500) as desk:
        desk.plans["large"] = desk.plans["tested"].model_copy(update={"code": "large", "monthly_tokens": 6_000})
        desk.plans["small"] = desk.plans["tested"].model_copy(update={"code": "small", "monthly_tokens": 200})
        await desk.settle(await desk.admitted(), output=1_400)
        assert isinstance(await desk.ask(), AllowanceExhausted)
        await desk.subscribe("large")
        running = await desk.admitted()
        await desk.subscribe("small")
        assert isinstance(await desk.ask(), AllowanceExhausted)
        await desk.settle(running, output=400)
        assert await desk.balance() == (200, 2_000, 0)
        assert await ledger.verify(database) == []


async def test_a_call_belongs_to_the_month_it_was_admitted_in(database: Database) -> None:
    """A settlement after the month's end charges the old month and leaves the new one untouched."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        period = clock.period_of(clock.now())
        async with database.transaction() as tx:
            for table in (tables.allowances, tables.reservations, tables.ledger_entries):
                await tx.execute(update(table).values(period="2026-01"))
        await desk.admitted()
        await desk.settle(admission, output=100)
        assert await desk.balance("2026-01") == (10_000, 200, 0)
        assert await desk.balance(period) == (10_000, 0, 1_500)
        assert await ledger.verify(database) == []


async def test_the_database_itself_refuses_overspending(database: Database) -> None:
    """Should the admission rule ever fail, the table's own check refuses the batch."""
    async with open_desk(database, monthly_tokens=1_500) as desk:
        await desk.admitted()
        with pytest.raises(Exception, match="never_overspent"):
            async with database.transaction() as tx:
                await tx.execute(update(tables.allowances).values(reserved_tokens=1_501))


async def test_a_command_the_database_refuses_does_not_take_the_others_with_it(database: Database) -> None:
    """In a batch with one impossible settlement, the other calls are admitted and settled."""
    async with open_desk(database) as desk:
        good, bad = await desk.admitted(), await desk.admitted()
        outcomes = await asyncio.gather(desk.settle(good, output=100), desk.settle(bad, output=2**70), desk.ask())
        assert outcomes[2] is not None
        assert (await desk.balance())[1] == 200


async def test_an_answer_that_cannot_be_delivered_leaves_the_others_answered(database: Database) -> None:
    """One client's failure, in the middle of a batch, holds up neither the batch's other calls nor the next batch."""

    def fails(outcome: object) -> None:
        raise ConnectionError("this client is gone")

    async with open_desk(database) as desk:
        before = asyncio.create_task(desk.ask())
        await asyncio.sleep(0)
        desk.writer.admit(desk.command(), fails)
        after = await asyncio.wait_for(desk.ask(), 5)
        assert isinstance(await before, Admission)
        assert isinstance(after, Admission)
        assert isinstance(await asyncio.wait_for(desk.ask(), 5), Admission)
        assert (await desk.balance())[2] == 4 * 1_500


async def test_a_change_waits_its_turn_between_batches(database: Database) -> None:
    """Nothing is admitted while a change is under way, and what was asked before it is answered before it."""
    async with open_desk(database, monthly_tokens=10**6) as desk:
        order: list[str] = []

        async def call(name: str) -> None:
            await desk.admitted()
            order.append(name)

        before = [asyncio.create_task(call("before")) for _ in range(3)]
        await asyncio.sleep(0)
        async with database.transaction() as tx:
            order.append("change begins")
            after = asyncio.create_task(call("after"))
            await asyncio.sleep(0.05)
            await tx.execute(delete(tables.sign_in_attempts))
            order.append("change ends")
        await asyncio.gather(after, *before)
        assert order == ["before"] * 3 + ["change begins", "change ends", "after"]


class Full:
    """A store that has no room for one thing more."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def count_requests(self, rows: object) -> None:
        raise RuntimeError("disk full")


async def test_a_batch_that_fails_leaves_nothing(database: Database) -> None:
    """If writing fails after the decision, the reservation is not there, and the same call can be asked again."""
    async with open_desk(database) as desk:
        store = open_store(database)
        full = cast("Store", Full(store))
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(Batch(full, desk.plans, "node_2", Copies()).run, [desk.command()])
        store.close()
        await desk.admitted()
        assert (await desk.balance())[2] == 1_500


async def test_sums_for_the_pages(database: Database) -> None:
    """Allowance and own-key usage are summed apart, by day, by member and by provider."""
    async with open_desk(database) as desk:
        await desk.settle(await desk.admitted(), output=100)
        await _as_person(desk, output=200)
        await desk.add_key()
        await desk.settle(await desk.admitted(), output=900)
        period = clock.period_of(clock.now())
        total = await usage_events.totals(database, desk.actor, period)
        assert (total.allowance_tokens, total.own_key_tokens, total.events) == (500, 1_000, 3)
        (day,) = await usage_events.by_day(database, desk.actor, period)
        assert (day.day.isoformat(), day.allowance_tokens, day.own_key_tokens) == ("2026-11-18", 500, 1_000)
        members = {
            m.kind: (m.allowance_tokens, m.own_key_tokens, m.requests)
            for m in await usage_events.by_member(database, desk.actor, period)
        }
        assert members == {"api_token": (200, 1_000, 2), "user": (300, 0, 1)}
        (provider,) = await usage_events.by_provider(database, desk.actor, period)
        assert (provider.provider, provider.requests) == ("openai", 3)
        stranger = await usage_events.totals(database, desk.actor.operator("org_other"), period)
        assert stranger.events == 0


async def _as_person(desk: Desk, output: int) -> None:
    caller = Caller(user_id=desk.user_id, workspace_id=desk.workspace_id)
    await desk.settle(await desk.admitted(desk.command(caller=caller)), output=output)


async def test_a_settlement_and_the_reaper_in_one_batch(database: Database) -> None:
    """A call whose lease ran out while its settlement was waiting is charged what it used, not what was last noted."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        await desk.expire_leases()
        _, reaped = await asyncio.gather(desk.settle(admission, output=700), desk.writer.reap())
        assert reaped == 0
        (event,) = await usage_events.events(database, desk.actor)
        assert (event.outcome, event.charged_tokens) == ("finished", 800)
        assert await desk.balance() == (10_000, 800, 0)


async def test_a_late_release_takes_the_charge_back(database: Database) -> None:
    """A call that was never sent costs nothing, even if it was taken for abandoned meanwhile."""
    async with open_desk(database) as desk:
        admission = await desk.admitted()
        await desk.expire_leases()
        await desk.writer.reap()
        desk.writer.release(admission.request_id)
        desk.writer.release(admission.request_id)
        await desk.writer.reap()
        assert await desk.balance() == (10_000, 0, 0)
        assert await ledger.verify(database) == []


async def test_a_database_that_hangs_is_away_within_a_second(database: Database) -> None:
    """Callers are told at once; settlements are answered and written when it is back; nothing stays held."""
    async with open_desk(database) as desk:
        running = await desk.admitted()
        async with database.engine.connect() as blocker:
            await blocker.execution_options(ownkey_write=True)
            async with blocker.begin():
                await blocker.execute(text("UPDATE allowances SET used_tokens = used_tokens"))
                started = asyncio.get_running_loop().time()
                refused, _ = await asyncio.gather(desk.ask(), desk.settle(running, output=300))
                assert isinstance(refused, Unavailable)
                assert desk.writer.down
                assert isinstance(await desk.ask(), Unavailable)
                assert asyncio.get_running_loop().time() - started < 3
        await until_back(desk)
        await desk.admitted()
        assert await desk.balance() == (10_000, 400, 1_500)
        assert await ledger.verify(database) == []


async def test_a_lone_call_is_metered_all_the_same(sqlite_url: URL) -> None:
    """With nobody else there it is done without the thread; a database that hangs is away within a second then, too."""
    database = Database(sqlite_url, synchronous="OFF")
    async with open_desk(database) as desk:
        await desk.admitted()  # the thread opens the connection
        desk.writer.is_alone = lambda: True
        running: list[Admission | OwnkeyError] = []
        desk.writer.admit(desk.command(), running.append)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        admission = running.pop()  # within this turn of the loop
        assert isinstance(admission, Admission)
        await desk.settle(admission, output=300)
        assert await desk.balance() == (10_000, 400, 1_500)
        async with database.engine.connect() as blocker:
            await blocker.execution_options(ownkey_write=True)
            async with blocker.begin():
                await blocker.execute(text("UPDATE allowances SET used_tokens = used_tokens"))
                assert isinstance(await desk.ask(), Unavailable)
                assert desk.writer.down
                for _ in range(20):  # the loop goes on while the thread asks for the database
                    started = asyncio.get_running_loop().time()
                    assert isinstance(await desk.ask(), Unavailable)
                    await asyncio.sleep(0.05)
                    assert asyncio.get_running_loop().time() - started < 0.5
        await until_back(desk)
        await desk.admitted()
        assert await ledger.verify(database) == []
    await database.close()


async def until_back(desk: Desk) -> None:
    """Wait until the writer has its database again."""
    for _ in range(100):
        if not desk.writer.down:
            return
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("model", ["", "NULL", 'a "quoted", {braced} one', "back\\slash\\", "é–🌉", "'; --", "%s"])
async def test_whatever_a_model_is_called_is_recorded_as_it_is(database: Database, model: str) -> None:
    """A name with signs that mean something to a database comes back unchanged, from the reservation to the event."""
    async with open_desk(database) as desk:
        abandoned = await desk.admitted(desk.command(model=model))
        await desk.expire_leases()
        await desk.writer.reap()
        settled = await desk.admitted(desk.command(model=model))
        event = desk.settlement(settled, output=1)._replace(model=model)
        future = asyncio.get_running_loop().create_future()
        desk.writer.settle(event, lambda: future.set_result(None))
        await future
        found = await usage_events.events(database, desk.actor)
        assert [(e.request_id, e.model) for e in found] == [(abandoned.request_id, model), (settled.request_id, model)]
