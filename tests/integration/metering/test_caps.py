"""Caps of members and workspaces: what they refuse, and that no call passes one."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import URL, delete, insert

from ownkey import clock
from ownkey.accounts import caps as account_caps
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.db.usage_tables import caps
from ownkey.errors import CapReached, OwnkeyError, Unavailable
from ownkey.ids import new_id
from ownkey.metering import ledger, usage_events
from ownkey.metering.batch import Batch
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import Admission, Caller
from ownkey.metering.sqlite_store import SqliteStore
from tests.integration.metering.desk import Desk, open_desk

pytestmark = pytest.mark.anyio


async def cap(desk: Desk, scope: str, allowance: int | None = None, own_key: int | None = None) -> None:
    """Cap the desk's member or workspace."""
    now = clock.now()
    async with desk.db.transaction() as tx:
        await tx.execute(delete(caps).where(caps.c.scope == scope))
        await tx.execute(
            insert(caps).values(
                organization_id=desk.organization_id,
                scope=scope,
                subject_id=desk.user_id if scope == "member" else desk.workspace_id,
                allowance_tokens=allowance,
                own_key_tokens=own_key,
                created_at=now,
                updated_at=now,
            )
        )


@pytest.mark.parametrize("scope", ["member", "workspace"])
async def test_simultaneous_calls_never_pass_a_cap(database: Database, scope: str) -> None:
    """Of 50 calls at once under a cap with room for exactly 4, 4 are admitted; what they did not use is free again."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await cap(desk, scope, allowance=6_000)
        outcomes = await asyncio.gather(*[desk.ask() for _ in range(50)])
        admitted = [outcome for outcome in outcomes if isinstance(outcome, Admission)]
        assert sum(admission.reserved for admission in admitted) == 6_000
        assert {type(outcome) for outcome in outcomes} == {Admission, CapReached}
        await asyncio.gather(*[desk.settle(admission, output=900) for admission in admitted])
        again = await desk.admitted(desk.command(output_limit=5_000))
        assert again.reserved == 6_000 - 4 * 1_000
        assert isinstance(await desk.ask(), CapReached)
        assert await ledger.verify(database) == []


async def test_a_refusal_says_whose_cap_it_is_and_who_can_lift_it(database: Database) -> None:
    """It has its own code, says who can act, and tells SDKs not to try again; a lifted cap holds up nothing more."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await cap(desk, "member", allowance=5_000)
        await cap(desk, "workspace", allowance=100)
        outcome = await desk.ask()
        assert isinstance(outcome, CapReached)
        assert (outcome.code, outcome.status, outcome.headers["x-should-retry"]) == ("cap_reached", 429, "false")
        assert (outcome.detail["scope"], outcome.detail["cap_tokens"]) == ("workspace", 100)
        assert outcome.headers["x-ownkey-billed-to"] == outcome.detail["billed_to"] == "allowance"
        assert "An admin or the owner of your organization can raise or lift" in outcome.message
        async with desk.db.transaction() as tx:
            await tx.execute(delete(caps))
        assert isinstance(await desk.ask(), Admission)


async def test_usage_on_own_keys_is_capped_by_itself(database: Database) -> None:
    """Once the cap is reached the next call on an own key is refused; the month's allowance is another cap."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await cap(desk, "member", own_key=1_000)
        await desk.settle(await desk.admitted(), output=800)
        last = await desk.admitted()
        await desk.settle(last, output=800)
        refused = await desk.ask()
        assert isinstance(refused, CapReached)
        assert refused.detail["billed_to"] == "own_key"
        other = msgspec.structs.replace(desk.command(), provider="anthropic")
        assert isinstance(await desk.ask(other), Admission)


async def test_a_settlement_that_comes_again_counts_once(database: Database) -> None:
    """A call on an own key whose commit nobody heard of is settled again; beside it, what was used still fits."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await cap(desk, "member", own_key=1_000)
        first = await desk.admitted()
        await desk.settle(first, output=500)
        outcomes = await asyncio.gather(desk.settle(first, output=500), desk.ask())
        assert isinstance(outcomes[1], Admission)
        await asyncio.gather(desk.settle(first, output=500), desk.settle(outcomes[1], output=300))
        assert isinstance(await desk.ask(), CapReached)


async def test_a_cap_below_what_is_used_refuses_and_settles(database: Database) -> None:
    """A cap that is set below what is used refuses what comes, and what runs is settled as ever."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        running = await desk.admitted()
        await desk.settle(await desk.admitted(), output=900)
        await cap(desk, "member", allowance=10)
        assert isinstance(await desk.ask(), CapReached)
        await desk.settle(running, output=900)
        assert (await desk.balance())[1:] == (2_000, 0)


async def test_a_workspaces_cap_is_shared_by_its_members(database: Database) -> None:
    """What one of them uses is gone for the others; a member's cap is that member's alone."""
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await cap(desk, "workspace", allowance=3_500)
        async with desk.db.transaction() as tx:
            await tx.execute(insert(tables.users).values(id="usr_b", email="b@acme.test", created_at=clock.now()))
            values = {"user_id": "usr_b", "role": "user", "created_at": clock.now()}
            place = {"organization_id": desk.organization_id, "workspace_id": desk.workspace_id}
            await tx.execute(insert(tables.memberships).values(**values, **place))
        other = desk.command(caller=Caller(user_id="usr_b", workspace_id=desk.workspace_id))
        await desk.settle(await desk.admitted(), output=900)
        assert (await desk.admitted(other)).reserved == 1_500
        assert isinstance(await desk.ask(msgspec.structs.replace(other, request_id=new_id("req"))), Admission)
        assert isinstance(await desk.ask(), CapReached)


async def test_a_cap_counts_anew_each_month(sqlite_url: URL) -> None:
    """What was used in one month is not counted in the next."""
    database, moment = Database(sqlite_url), clock.period_end("2026-11").timestamp() - 60
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await cap(desk, "member", allowance=1_500)
        store, copies = SqliteStore(str(sqlite_url.database), "OFF", lambda: moment), Copies()

        def ask() -> object:
            return Batch(store, desk.plans, "node_2", copies).run([desk.command()])[0]

        admission = ask()
        assert isinstance(admission, Admission)
        Batch(store, desk.plans, "node_2", copies).run([desk.settlement(admission, 1_400)])
        assert isinstance(ask(), CapReached)
        moment += 120
        assert isinstance(ask(), Admission)
        store.close()
    await database.close()


async def test_who_has_no_cap_pays_nothing_for_it(sqlite_url: URL) -> None:
    """A batch of calls without caps reads neither what was used nor what is held; one with a cap does."""
    database = Database(sqlite_url)
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        store, copies = SqliteStore(str(sqlite_url.database), "OFF"), Copies()

        def sums() -> int:
            asked: list[str] = []
            store._db.set_trace_callback(asked.append)
            outcome = Batch(store, desk.plans, "node_2", copies).run([desk.command()])[0]
            store._db.set_trace_callback(None)
            assert isinstance(outcome, Admission)
            return sum("sum(" in statement for statement in asked)

        assert [sums(), sums()] == [0, 0]
        await cap(desk, "member", allowance=1_000_000)
        assert sums() == 2
        store.close()
    await database.close()


async def test_late_settlements_count_too(database: Database) -> None:
    """What a call of a node that was taken for dead really used counts: in the next decision, on pages and in sums.

    So does that it used nothing after all.
    """
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await cap(desk, "member", allowance=6_000)
        late = [await desk.admitted() for _ in range(4)]
        await desk.expire_leases()
        await desk.writer.reap()
        settling = [asyncio.ensure_future(desk.settle(admission, output=1_000)) for admission in late[:3]]
        desk.writer.release(late[3].request_id)
        # Perhaps in the very batch that corrects them: of 6,000 tokens 3,300 are used.
        while isinstance(outcome := await desk.ask(desk.command(output_limit=6_000)), Admission):
            await desk.settle(outcome, output=outcome.reserved - 100)
        assert isinstance(outcome, CapReached)
        await asyncio.gather(*settling)
        used = (await desk.balance())[1]
        assert 5_900 <= used <= 6_000
        period = clock.period_of(clock.now())
        (shown,) = await account_caps.list_caps(database, desk.actor)
        assert shown.allowance_used == used
        for found in (usage_events.by_day, usage_events.by_member, usage_events.by_provider):
            assert sum(one.allowance_tokens for one in await found(database, desk.actor, period)) == used
        assert (await usage_events.totals(database, desk.actor, period)).allowance_tokens == used
        assert await ledger.verify(database) == []


async def add_calls(desk: Desk, count: int) -> None:
    """Have so many calls on an own key be there, of one input token each, made elsewhere."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    counts = ", ".join(f"{kind}_tokens" for kind in ("cached_input", "cache_write", "reasoning", "charged", "output"))
    columns = (
        f"request_id, organization_id, workspace_id, period, provider, model, dialect, billed_to, user_id, {counts}, "
        "input_tokens, estimated, outcome, started_at, duration_ms"
    )
    elsewhere = Database(desk.db.url, synchronous="OFF")  # takes longer than a change of this node may
    async with elsewhere.transaction() as tx:
        await tx.exec_driver_sql(
            f"INSERT INTO usage_events ({columns}) {numbers} SELECT '{new_id('req')}_' || i, '{desk.organization_id}', "
            f"'{desk.workspace_id}', '{clock.period_of(clock.now())}', 'openai', 'm', 'openai', 'own_key', "
            f"'{desk.user_id}', 0, 0, 0, 0, 0, 1, false, 'finished', 0, 0 FROM n"
        )
    await elsewhere.close()


async def counted(desk: Desk) -> Admission | OwnkeyError:
    """The outcome of a call once the usage of the month has been counted."""
    for _ in range(100):
        outcome = await desk.ask()
        if not isinstance(outcome, Unavailable):
            break
        assert outcome.headers["retry-after"] == "1"
        await asyncio.sleep(0.1)
    return outcome


async def test_a_month_of_many_calls_is_counted_in_parts(database: Database) -> None:
    """A cap on whoever has made more calls than are read at once: they are asked to wait a moment, then it holds.

    The same when so many are made between two of theirs.
    """
    async with open_desk(database, monthly_tokens=1_000_000) as desk:
        await desk.add_key()
        await add_calls(desk, 60_000)
        await cap(desk, "member", own_key=90_100)
        assert isinstance(await desk.ask(), Unavailable)
        assert isinstance(await counted(desk), Admission)
        await add_calls(desk, 30_000)
        admission = await counted(desk)
        assert isinstance(admission, Admission)
        await desk.settle(admission, output=100)
        refused = await counted(desk)
        assert isinstance(refused, CapReached)
        assert refused.detail["cap_tokens"] == 90_100
