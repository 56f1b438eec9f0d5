"""When a call is admitted, and that the allowance cannot be overspent."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import URL, update

from ownkey import clock
from ownkey.credentials import token_hash
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import (
    AllowanceExhausted,
    Forbidden,
    NotAuthenticated,
    ProviderNotAvailable,
    RequestLimitReached,
)
from ownkey.metering import ledger
from ownkey.metering.batch import Batch
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import Admission, Caller, CurrentKey
from ownkey.metering.settlement import Release, Renew
from ownkey.metering.sqlite_store import SqliteStore
from tests.integration.metering.desk import open_desk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("room", [1, 7, 40])
async def test_simultaneous_calls_share_the_room_there_is(database: Database, room: int) -> None:
    """Of 200 calls at once with room for exactly k, k are admitted, and used is the sum of the ledger."""
    async with open_desk(database, monthly_tokens=room * 1_500) as desk:
        outcomes = await asyncio.gather(*[desk.ask() for _ in range(200)])
        admitted = [outcome for outcome in outcomes if isinstance(outcome, Admission)]
        assert len(admitted) == room
        assert {type(outcome) for outcome in outcomes} == {Admission, AllowanceExhausted}
        assert await desk.balance() == (room * 1_500, 0, room * 1_500)
        await asyncio.gather(*[desk.settle(admission, output=900) for admission in admitted])
        assert await desk.balance() == (room * 1_500, room * 1_000, 0)
        assert await ledger.verify(database) == []


async def test_a_refusal_says_when_and_who(database: Database) -> None:
    """A spent allowance names the reset time, the tokens left and who can act, and tells SDKs not to retry."""
    async with open_desk(database, monthly_tokens=100) as desk:
        outcome = await desk.ask()
        assert isinstance(outcome, AllowanceExhausted)
        reset = clock.rfc3339(clock.period_end(clock.period_of(clock.now())))
        assert reset in outcome.message
        assert "admin" in outcome.message
        assert outcome.detail == {"tokens_left": 100, "resets_at": reset, "who_can_act": "an admin or the owner"}
        assert (outcome.headers["x-should-retry"], outcome.headers["x-ownkey-billed-to"]) == ("false", "allowance")
        assert int(outcome.headers["retry-after"]) > 0


async def test_a_limit_is_lowered_to_what_is_left(database: Database) -> None:
    """When only part of the wanted output fits, the call gets a lower limit rather than a refusal."""
    async with open_desk(database, monthly_tokens=1_000) as desk:
        admission = await desk.admitted(desk.command(output_limit=5_000))
        assert (admission.reserved, admission.output_limit) == (1_000, 500)


async def test_a_call_without_limit_leaves_room_for_others(database: Database) -> None:
    """A call that set no limit may hold a quarter of what is left, so that one does not shut out the rest."""
    async with open_desk(database, monthly_tokens=40_000) as desk:
        free = await desk.admitted(desk.command(output_limit=None, output_maximum=4_000))
        assert (free.reserved, free.output_limit) == (4_500, None)
        limited = await desk.admitted(desk.command(output_limit=None, output_maximum=131_072))
        assert limited.output_limit == (40_000 - 4_500) // 4 - 500


async def test_a_call_that_cannot_be_limited_is_refused(database: Database) -> None:
    """What has no output limit to lower, such as an image, is admitted whole or not at all."""
    async with open_desk(database, monthly_tokens=1_000) as desk:
        outcome = await desk.ask(desk.command(output_limit=None, output_maximum=4_000, can_limit=False))
        assert isinstance(outcome, AllowanceExhausted)
        assert await desk.balance() == (1_000, 0, 0)


async def test_calls_that_generate_nothing_are_free(database: Database) -> None:
    """Listing models holds nothing and works when the allowance is spent."""
    async with open_desk(database, monthly_tokens=0) as desk:
        admission = await desk.admitted(desk.command(generates=False))
        assert (admission.reserved, admission.billed_to) == (0, "allowance")


async def test_an_own_key_holds_nothing(database: Database) -> None:
    """A call on the organization's own key is admitted without limit and without touching the allowance."""
    async with open_desk(database, monthly_tokens=0) as desk:
        key_id = await desk.add_key()
        admission = await desk.admitted()
        assert admission.key is not None
        assert (admission.key.id, admission.billed_to, admission.reserved) == (key_id, "own_key", 0)
        await desk.settle(admission, output=1_000_000)
        other = await desk.ask(desk.command(provider="anthropic"))
        assert isinstance(other, AllowanceExhausted)
        assert (await desk.balance())[1:] == (0, 0)
        assert await ledger.verify(database) == []


async def test_a_provider_without_any_key_is_not_available(database: Database) -> None:
    """Neither an own key nor a platform key: the refusal says so, and nothing is held."""
    async with open_desk(database) as desk:
        outcome = await desk.ask(desk.command(has_platform_key=False))
        assert isinstance(outcome, ProviderNotAvailable)


async def test_work_done_later_is_for_own_keys(database: Database) -> None:
    """A batch cannot be metered when it is handed in, so the allowance does not pay for it."""
    async with open_desk(database) as desk:
        assert isinstance(await desk.ask(desk.command(own_key_only="It is done later.")), Forbidden)
        await desk.add_key()
        assert isinstance(await desk.ask(desk.command(own_key_only="It is done later.")), Admission)


async def test_a_key_is_read_anew_for_every_call(database: Database) -> None:
    """A replaced key is never handed out again, and a removed one gives way to the allowance at once."""
    async with open_desk(database) as desk:
        first = await desk.add_key()
        assert (await desk.admitted()).key is not None
        async with database.transaction() as tx:
            await tx.execute(tables.provider_keys.delete())
        assert (await desk.admitted()).key is None
        second = await desk.add_key()
        key = (await desk.admitted()).key
        assert key is not None
        assert key.id == second != first


async def test_unknown_and_revoked_tokens(database: Database) -> None:
    """A token nobody issued and one that was revoked are the same to the caller; revoking works at once."""
    async with open_desk(database) as desk:
        assert isinstance(await desk.ask(desk.command(caller=Caller("nothing"))), NotAuthenticated)
        await desk.admitted()
        async with database.transaction() as tx:
            await tx.execute(update(tables.api_tokens).values(revoked_at=clock.now()))
        assert isinstance(await desk.ask(), NotAuthenticated)


async def test_a_token_is_bound_to_the_rights_of_its_maker(database: Database) -> None:
    """When the person who made a token stops being owner and is no member, the token stops working."""
    async with open_desk(database) as desk:
        async with database.transaction() as tx:
            await tx.execute(
                tables.users.insert().values(id="usr_other", email="other@acme.test", created_at=clock.now())
            )
            await tx.execute(update(tables.organizations).values(owner_id="usr_other"))
        assert isinstance(await desk.ask(), NotAuthenticated)
        async with database.transaction() as tx:
            await tx.execute(
                tables.memberships.insert().values(
                    organization_id=desk.organization_id,
                    workspace_id=desk.workspace_id,
                    user_id=desk.user_id,
                    role="developer",
                    created_at=clock.now(),
                )
            )
        assert isinstance(await desk.ask(), Admission)
        async with database.transaction() as tx:
            await tx.execute(update(tables.memberships).values(role="user"))
        assert isinstance(await desk.ask(), NotAuthenticated)


async def test_a_person_may_ask_as_a_member(database: Database) -> None:
    """The assistant asks for a signed-in person; who is no member of the workspace is refused."""
    async with open_desk(database) as desk:
        caller = Caller(user_id=desk.user_id, workspace_id=desk.workspace_id)
        admission = await desk.admitted(desk.command(caller=caller))
        assert (admission.user_id, admission.api_token_id) == (desk.user_id, None)
        stranger = Caller(user_id="usr_nobody", workspace_id=desk.workspace_id)
        assert isinstance(await desk.ask(desk.command(caller=stranger)), NotAuthenticated)


async def test_scope_plan_and_suspension_refuse(database: Database) -> None:
    """A token without the gateway scope, a plan without API access and a suspended organization are forbidden."""
    async with open_desk(database) as desk:
        async with database.transaction() as tx:
            await tx.execute(update(tables.api_tokens).values(scopes="usage.read"))
        assert isinstance(await desk.ask(), Forbidden)
        async with database.transaction() as tx:
            await tx.execute(update(tables.api_tokens).values(scopes="usage.read gateway"))
        desk.plans["without-api"] = desk.plans["tested"].model_copy(update={"api_access": False})
        await desk.subscribe("without-api")
        assert isinstance(await desk.ask(), Forbidden)
        await desk.subscribe("tested")
        assert isinstance(await desk.ask(), Admission)
        async with database.transaction() as tx:
            await tx.execute(update(tables.organizations).values(suspended_at=clock.now()))
        assert isinstance(await desk.ask(), Forbidden)


async def test_a_token_has_its_requests_of_the_month(database: Database) -> None:
    """Of ten calls at once with a limit of four, four are admitted; the refusal says when it works again."""
    async with open_desk(database, monthly_tokens=10**6, monthly_requests_per_token=4) as desk:
        outcomes = await asyncio.gather(*[desk.ask() for _ in range(10)])
        assert sum(isinstance(outcome, Admission) for outcome in outcomes) == 4
        assert sum(isinstance(outcome, RequestLimitReached) for outcome in outcomes) == 6
        again = await desk.ask()
        assert isinstance(again, RequestLimitReached)
        assert again.headers["x-should-retry"] == "false"


async def test_no_batch_reads_a_whole_table(sqlite_url: URL) -> None:
    """However many organizations there are, a batch finds its rows by their keys: no statement scans a table."""
    database = Database(sqlite_url)
    async with open_desk(database, monthly_requests_per_token=1_000) as desk:
        await desk.add_key("anthropic")
        store = SqliteStore(str(sqlite_url.database), "OFF")
        asked: list[str] = []
        store._db.set_trace_callback(asked.append)
        copies, token = Copies(), token_hash(desk.token)
        first, own = (desk.command(provider=name, caller=Caller(token)) for name in ("openai", "anthropic"))
        admissions = Batch(store, desk.plans, "node_2", copies).run([first, own, CurrentKey("org", "openai")])
        settles = [desk.settlement(one, 10) for one in admissions if isinstance(one, Admission)]
        Batch(store, desk.plans, "node_2", copies).run([*settles, *settles, Release("req_1"), Renew("req_2", 5)])
        store._db.set_trace_callback(None)
        assert len(settles) == 2
        statements = [one for one in asked if one.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))]
        plans = {one: [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {one}")] for one in statements}
        store.close()
        scans = {
            one: line
            for one, plan in plans.items()
            for line in plan
            if line.startswith("SCAN ") and "CONSTANT" not in line and line not in ("SCAN pairs", "SCAN facts")
        }
        assert statements
        assert scans == {}
    await database.close()
