"""Calls that the allowance serves in place of a failing key: only by choice, and never past what was chosen."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select, update

from ownkey import clock
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.db.usage_tables import fallback_calls, fallback_months
from ownkey.errors import AllowanceExhausted, ProviderNotAvailable
from ownkey.metering import ledger
from ownkey.metering.reservations import Admission, Admit, Fallback
from tests.integration.metering.desk import Desk, open_desk

pytestmark = pytest.mark.anyio
HOLD = 1_500  # what one call of the desk holds
AFTER = Fallback("outage", "req_of_the_key")


async def choose(desk: Desk, tokens: int | None, base_url: str = "") -> None:
    """What the organization chose for its key."""
    async with desk.db.transaction() as tx:
        await tx.execute(
            update(tables.provider_keys)
            .where(tables.provider_keys.c.organization_id == desk.organization_id)
            .values(fallback_tokens=tokens, base_url=base_url)
        )


def second(desk: Desk, **changes: object) -> Admit:
    """A call that the key could not serve."""
    return desk.command(fallback=AFTER, **changes)


@pytest.mark.parametrize("chosen", [None, 0])
async def test_without_a_choice_nothing_is_admitted(database: Database, chosen: int | None) -> None:
    """However much of the allowance is left, a key whose organization chose never is not helped out."""
    async with open_desk(database) as desk:
        await desk.add_key()
        await choose(desk, chosen)
        outcomes = [await desk.ask(second(desk)), await desk.ask(second(desk, output_limit=0, input_ceiling=0))]
        assert isinstance(outcomes[0], AllowanceExhausted)
        assert isinstance(outcomes[1], AllowanceExhausted) or chosen == 0
        assert (await desk.balance())[1:] == (0, 0)


async def test_without_a_key_there_is_no_choice(database: Database) -> None:
    """A key that was removed meanwhile took the choice with it; so does an address of the organization's own."""
    async with open_desk(database) as desk:
        assert isinstance(await desk.ask(second(desk)), AllowanceExhausted)
        await desk.add_key()
        await choose(desk, 5_000, "https://llm.acme.test")
        assert isinstance(await desk.ask(second(desk)), AllowanceExhausted)
        await choose(desk, 5_000)
        assert isinstance(await desk.ask(second(desk, has_platform_key=False)), ProviderNotAvailable)
        assert (await desk.admitted(second(desk))).key is None


@pytest.mark.parametrize("room", [1, 7, 30])
async def test_simultaneous_calls_share_what_was_chosen(database: Database, room: int) -> None:
    """Of 50 calls at once with room for exactly k below the cap, k are admitted, whatever the allowance has left."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await choose(desk, room * HOLD)
        outcomes = await asyncio.gather(*[desk.ask(second(desk)) for _ in range(50)])
        admitted = [outcome for outcome in outcomes if isinstance(outcome, Admission)]
        assert (len(admitted), {admission.billed_to for admission in admitted}) == (room, {"allowance"})
        await asyncio.gather(*[desk.settle(admission, output=900) for admission in admitted])
        assert await desk.balance() == (1_000_000, room * 1_000, 0)
        # What they did not use can be used: room * 500 tokens.
        again = await asyncio.gather(*[desk.ask(second(desk)) for _ in range(50)])
        assert sum(one.reserved for one in again if isinstance(one, Admission)) == room * 500 // HOLD * HOLD + (
            room * 500 % HOLD if room * 500 % HOLD >= 500 + 16 else 0
        )
        assert await ledger.verify(database) == []


async def test_settling_and_admitting_in_one_batch_loses_nothing(database: Database) -> None:
    """What ends in the same transaction that admits the next call counts with what it took, not with nothing."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await choose(desk, 2 * HOLD)
        for _ in range(3):
            first = await desk.admitted(second(desk, output_limit=400))
            _, outcome = await asyncio.gather(desk.settle(first, output=400), desk.ask(second(desk, output_limit=0)))
            assert isinstance(outcome, Admission)
            desk.writer.release(outcome.request_id)
        # Three times 500 tokens are taken, and nothing is held: 1,500 are left.
        assert (await desk.admitted(second(desk, output_limit=5_000))).output_limit == 1_000
        assert isinstance(await desk.ask(second(desk)), AllowanceExhausted)


async def test_what_has_ended_is_added_up_once(database: Database) -> None:
    """Calls that ended are moved into the month's sum, so that the next admission reads the running ones only."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await choose(desk, 100_000)
        for _ in range(5):
            await desk.settle(await desk.admitted(second(desk)), output=100)
        last = await desk.admitted(second(desk))
        period = clock.period_of(clock.now())
        async with database.read() as tx:
            months = (await tx.execute(select(fallback_months.c.period, fallback_months.c.tokens))).all()
            open_ones = await tx.scalar(
                select(func.count()).select_from(fallback_calls).where(~fallback_calls.c.counted)
            )
        assert ([tuple(row) for row in months], open_ones) == ([(period, 1_000)], 1)
        assert last.reserved == HOLD


async def test_a_dead_node_leaves_nothing_stuck(database: Database) -> None:
    """A call whose node died is settled like any other, and counts with that until it is corrected."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await choose(desk, 3 * HOLD)
        lost = await desk.admitted(second(desk))
        await desk.expire_leases()
        assert await desk.writer.reap() == 1
        assert await desk.balance() == (1_000_000, 100, 0)
        await desk.admitted(second(desk, output_limit=3 * HOLD - 100 - 500))
        assert isinstance(await desk.ask(second(desk)), AllowanceExhausted)
        # It was not dead after all, and had made more.
        await desk.settle(lost, output=300)
        assert (await desk.balance())[1] == 400
        await choose(desk, 3 * HOLD + 300 + 516)
        assert (await desk.admitted(second(desk))).output_limit == 16


async def test_a_second_attempt_is_no_second_request(database: Database) -> None:
    """A token's monthly limit of requests counts what its program asked for."""
    async with open_desk(database, monthly_requests_per_token=2) as desk:
        await desk.add_key()
        await choose(desk, 5_000)
        for _ in range(2):
            first = await desk.admitted()
            assert first.key is not None
            await desk.settle(await desk.admitted(second(desk, output_limit=100)), output=1)
        assert not isinstance(await desk.ask(), Admission)


async def test_a_second_attempt_is_not_only_read(database: Database) -> None:
    """A batch of calls on own keys writes nothing, and may be told so; one that the allowance is to serve writes."""
    async with open_desk(database) as desk:
        await desk.add_key()
        await desk.admitted()
        assert desk.writer._copies.all_on_own_keys([desk.command()])
        assert not desk.writer._copies.all_on_own_keys([desk.command(), second(desk)])
