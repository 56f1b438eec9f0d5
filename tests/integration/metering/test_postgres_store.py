"""What holds on PostgreSQL only: two round trips a batch, plans that find rows by keys, nodes that never deadlock."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
import psycopg
import pytest
from sqlalchemy import URL, delete, insert, text, update

from ownkey import clock
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.db.usage_tables import caps
from ownkey.errors import AllowanceExhausted, NotAuthenticated, Unavailable
from ownkey.metering import ledger, postgres_store
from ownkey.metering.batch import Batch, Command, Outcome, Reap
from ownkey.metering.copies import Copies
from ownkey.metering.postgres_link import Asked, Link
from ownkey.metering.postgres_store import PostgresStore
from ownkey.metering.reservations import Admission, Caller, CurrentKey, Fallback
from ownkey.metering.settlement import Release, Renew
from ownkey.metering.store import Contended, Rows, StoreFailed
from ownkey.plans import Plan
from tests.integration.metering.desk import Desk, open_desk

EXPIRE_SOME = (
    "UPDATE reservations SET lease_until = 1 "
    "WHERE request_id IN (SELECT request_id FROM reservations LIMIT 6 FOR UPDATE SKIP LOCKED)"
)
pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


class Node:
    """A node's store and copies; runs batches as its writer's thread does, and counts their round trips."""

    def __init__(self, url: URL, plans: dict[str, Plan], name: str = "node_1") -> None:
        self.store = PostgresStore(url)
        self.copies = Copies()
        self.plans = plans
        self.name = name
        self.trips: list[list[str]] = []
        self._trip = self.store._link.trip
        self.store._link.trip = self._counted  # type: ignore[method-assign]

    def _counted(self, *asked: Asked) -> list[Rows]:
        self.trips.append([statement for statement, _ in asked])
        return self._trip(*asked)

    def run(self, *commands: Command) -> list[Outcome]:
        """One batch."""
        self.trips.clear()
        return Batch(self.store, self.plans, self.name, self.copies).run(commands)


@contextmanager
def open_node(url: URL, desk: Desk, name: str = "node_1") -> Iterator[Node]:
    """A node of this desk's plans."""
    node = Node(url, desk.plans, name)
    try:
        yield node
    finally:
        node.store.close()


@pytest.fixture
async def database(postgres_url: URL) -> AsyncIterator[Database]:
    """A migrated, empty database on PostgreSQL."""
    database = Database(postgres_url)
    yield database
    await database.close()


@asynccontextmanager
async def open_desks(database: Database, count: int, monthly_tokens: int) -> AsyncIterator[list[Desk]]:
    """Several organizations on one database."""
    async with open_desk(database, monthly_tokens) as desk:
        if count == 1:
            yield [desk]
        else:
            async with open_desks(database, count - 1, monthly_tokens) as others:
                yield [desk, *others]


def admitted(outcomes: Sequence[Outcome]) -> list[Admission]:
    """The calls that were admitted."""
    return [outcome for outcome in outcomes if isinstance(outcome, Admission)]


async def test_a_batch_is_two_round_trips(database: Database, postgres_url: URL) -> None:
    """Once callers and keys are known, a batch of settlements and admissions is a trip to read and one to write."""
    async with open_desk(database, monthly_requests_per_token=100) as desk:
        await desk.add_key("anthropic")
        with open_node(postgres_url, desk) as node:
            calls = [desk.command(), desk.command(provider="anthropic")]
            running = admitted(node.run(*calls))
            assert len(node.trips) > 2
            for _ in range(3):
                ended = [desk.settlement(one, 10) for one in running]
                again = [desk.command(), desk.command(provider="anthropic")]
                running = admitted(node.run(*ended, *again))
                assert len(running) == 2
                assert len(node.trips) == 2
        assert await desk.balance() == (10_000, 330, 1_500)
        assert await ledger.verify(database) == []


async def test_every_statement_finds_its_rows_by_a_key(database: Database, postgres_url: URL) -> None:
    """However many rows there are when a plan is made, and for whatever parameter, no statement scans a table.

    But that of open calls, which are few, for callers with a cap: an index of its own would cost every call more.
    """
    async with open_desk(database, monthly_requests_per_token=1_000) as desk:
        await desk.add_key("anthropic")
        with open_node(postgres_url, desk) as node:
            person = Caller(user_id=desk.user_id, workspace_id=desk.workspace_id)
            calls = [desk.command(), desk.command(provider="anthropic"), desk.command(caller=person)]
            running = admitted(node.run(*calls, CurrentKey("org", "openai"), Renew("req_1", 5)))
            assert len(running) == 3
            node.run(*[desk.settlement(one, 10) for one in running[:2]])
            await desk.expire_leases()
            node.run(Reap(lambda: True))
            node.run(Release(running[2].request_id), desk.command())
            node.run(desk.command())
            async with database.transaction() as tx:
                await tx.execute(update(tables.provider_keys).values(fallback_tokens=9_000))
            failed = desk.command(provider="anthropic", fallback=Fallback("outage", "req_of_the_key"))
            (served,) = admitted(node.run(failed))
            node.run(desk.settlement(served, 10))
            node.run(msgspec.structs.replace(failed, request_id="req_again"))
            async with database.transaction() as tx:
                subject = {"organization_id": desk.organization_id, "scope": "member", "subject_id": desk.user_id}
                moment = {"created_at": clock.now(), "updated_at": clock.now()}
                await tx.execute(insert(caps).values(allowance_tokens=1_000_000, **subject, **moment))
            (on_own_key,) = admitted(node.run(desk.command(provider="anthropic")))
            node.run(desk.settlement(on_own_key, 10), desk.command())
            prepared = dict(node.store._link._prepared)
            plans = {
                statement: "\n".join(row[0] for row in node.store._link._driver.execute(f"EXPLAIN EXECUTE {one}"))
                for statement, name in prepared.items()
                if not statement.startswith(("BEGIN", "COMMIT", "SET "))
                for one in [f"{name.decode()}('[]')" if "$1" in statement else name.decode()]
            }
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE")
    known = {
        value
        for name, value in vars(postgres_store).items()
        if name.startswith("_") and isinstance(value, str) and value.startswith(verbs)
    }
    assert known - plans.keys() == set()
    scans = [line for plan in plans.values() for line in plan.splitlines() if "Seq Scan" in line]
    assert [line for line in scans if "on facts" not in line and "on reservations" not in line] == []
    assert not [plan for plan in plans.values() if "Hash Join" in plan or "Merge Join" in plan]


async def test_what_was_foretold_wrong_is_asked_again(database: Database, postgres_url: URL) -> None:
    """When an own key is removed, its calls need a balance that was not foretold: nothing is done, then all of it."""
    async with open_desks(database, 2, 10_000) as (one, other):
        key_id = await other.add_key()
        with open_node(postgres_url, one) as node:
            first = node.run(one.command(), other.command())
            assert [admission.billed_to for admission in admitted(first)] == ["allowance", "own_key"]
            async with database.transaction() as tx:
                await tx.execute(delete(tables.provider_keys).where(tables.provider_keys.c.id == key_id))
            with pytest.raises(Contended, match="not foretold"):
                node.run(one.command(), other.command())
            assert (await one.balance())[2] == 1_500
            again = admitted(node.run(one.command(), other.command()))
            assert [admission.billed_to for admission in again] == ["allowance", "allowance"]
            node.run(one.command(), other.command())
            assert len(node.trips) == 2
        assert ((await one.balance())[2], (await other.balance())[2]) == (4_500, 3_000)
        assert await ledger.verify(database) == []


async def test_the_writer_repeats_a_batch_that_was_foretold_wrong(database: Database) -> None:
    """Whoever asks hears nothing of it: both calls are admitted, each on what it may draw on now."""
    async with open_desks(database, 2, 10_000) as (one, other):
        key_id = await other.add_key()
        calls = [one.command(), other.command()]
        await asyncio.gather(*[one.admitted(call) for call in calls])
        async with database.transaction() as tx:
            await tx.execute(delete(tables.provider_keys).where(tables.provider_keys.c.id == key_id))
        calls = [one.command(), other.command()]
        admissions = await asyncio.gather(*[one.admitted(call) for call in calls])
        assert [admission.billed_to for admission in admissions] == ["allowance", "allowance"]
        assert ((await one.balance())[2], (await other.balance())[2]) == (3_000, 1_500)


async def test_a_new_month_begins_in_the_middle(database: Database, postgres_url: URL) -> None:
    """What was foretold for the month before is no reason to admit a call there."""
    async with open_desk(database) as desk:
        with open_node(postgres_url, desk) as node:
            (before,) = admitted(node.run(desk.command()))
            node.copies.period = "2026-10"
            node.store._there.add((desk.organization_id, "2026-10"))
            with pytest.raises(Contended):
                node.run(desk.settlement(before, 10), desk.command())
            (after,) = admitted(node.run(desk.settlement(before, 10), desk.command()))
            assert after.period == before.period
        assert await desk.balance() == (10_000, 110, 1_500)


async def test_an_allowance_that_somebody_removed_is_made_again(database: Database, postgres_url: URL) -> None:
    """A row that was known to be there is not taken for granted: the batch is done again, with a new one."""
    async with open_desk(database) as desk:
        with open_node(postgres_url, desk) as node:
            node.run(desk.command())
            async with database.transaction() as tx:
                await tx.execute(delete(tables.allowances))
            with pytest.raises(Contended, match="removed"):
                node.run(desk.command())
            assert len(admitted(node.run(desk.command()))) == 1
        assert (await desk.balance())[2] == 1_500


async def test_a_change_on_another_node_waits_for_the_batch_and_is_seen_by_the_next(
    database: Database, postgres_url: URL
) -> None:
    """A token is revoked either after the batch that read it, or before the batch that refuses it; never during one."""
    revoked = "UPDATE api_tokens SET revoked_at = 1"
    address = postgres_url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with open_desk(database) as desk:
        with open_node(postgres_url, desk) as node, psycopg.connect(address, autocommit=True) as elsewhere:
            elsewhere.execute("SET lock_timeout = '100ms'")
            node.run(desk.command())
            write = node.store.commit

            def commit() -> None:
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    elsewhere.execute(revoked)
                write()

            node.store.commit = commit  # type: ignore[method-assign]
            assert len(admitted(node.run(desk.command()))) == 1
            node.store.commit = write  # type: ignore[method-assign]
            elsewhere.execute(revoked)
            assert [type(outcome) for outcome in node.run(desk.command())] == [NotAuthenticated]


async def test_two_nodes_share_the_room_there_is(database: Database, postgres_url: URL) -> None:
    """Of 400 calls at once on two nodes with room for exactly 40, 40 are admitted."""
    async with open_desk(database, monthly_tokens=40 * 1_500) as desk:

        def ask(node: Node) -> list[Outcome]:
            return [outcome for _ in range(20) for outcome in _insist(node, [desk.command() for _ in range(10)])]

        with open_node(postgres_url, desk, "node_1") as one, open_node(postgres_url, desk, "node_2") as other:
            first, second = await asyncio.gather(*[asyncio.to_thread(ask, node) for node in (one, other)])
        outcomes = first + second
        assert len(outcomes) == 400
        assert len(admitted(outcomes)) == 40
        assert {type(outcome) for outcome in outcomes} == {Admission, AllowanceExhausted}
        assert await desk.balance() == (60_000, 0, 60_000)


def _insist(node: Node, commands: Sequence[Command]) -> list[Outcome]:
    """As the writer does; but nodes that wait for each other are an error here."""
    while True:
        try:
            return node.run(*commands)
        except Contended as error:
            assert "foretold" in str(error)  # noqa: PT017 - the other outcome is to try again


async def test_nodes_never_wait_for_each_other(database: Database, postgres_url: URL) -> None:
    """Three nodes with batches of all kinds over the same organizations, while facts change: no deadlock, no error."""
    async with open_desks(database, 5, 10**9) as desks:
        ended = asyncio.Event()

        def work(node: Node, seed: int) -> None:
            dice = random.Random(seed)  # noqa: S311
            running: list[Admission] = []
            for turn in range(120):
                asking = dice.sample(desks, dice.randint(1, 5))
                now, running = running[::2], running[1::2]
                commands: list[Command] = [
                    Release(one.request_id) if dice.random() < 0.02 else _settlement(desks, one) for one in now
                ]
                if turn % 3 == 0:
                    commands += [Renew(one.request_id, 3) for one in running]
                if turn % 3 == 1:
                    commands.append(Reap(lambda: True))
                new = admitted(_insist(node, [*commands, *[desk.command() for desk in asking]]))
                assert len(new) == len(asking)
                running += new
            _insist(node, [_settlement(desks, one) for one in running])

        async def change() -> None:
            while not ended.is_set():
                async with database.engine.begin() as tx:  # as another node does: in nobody's turn here
                    await tx.execute(update(tables.organizations).values(name="Renamed"))
                    await tx.execute(text(EXPIRE_SOME))
                await asyncio.sleep(0.01)

        with (
            open_node(postgres_url, desks[0], "node_1") as one,
            open_node(postgres_url, desks[0], "node_2") as two,
            open_node(postgres_url, desks[0], "node_3") as three,
        ):
            changes = asyncio.create_task(change())
            await asyncio.gather(*[asyncio.to_thread(work, node, seed) for seed, node in enumerate((one, two, three))])
            ended.set()
            await changes
            await asyncio.to_thread(one.run, Reap(lambda: True))
        assert [(await desk.balance())[2] for desk in desks] == [0] * 5
        assert await ledger.verify(database) == []


def _settlement(desks: Sequence[Desk], admission: Admission) -> Command:
    (desk,) = [desk for desk in desks if desk.organization_id == admission.organization_id]
    return desk.settlement(admission, 10)


async def test_a_batch_larger_than_what_a_socket_holds(database: Database, postgres_url: URL) -> None:
    """Thousands of commands in one batch go out while their answers come in."""
    async with open_desk(database, monthly_tokens=10**9) as desk:
        with open_node(postgres_url, desk) as node:
            running = admitted(node.run(*[desk.command(model="m" * 1_000) for _ in range(4_000)]))
            assert len(running) == 4_000
            node.run(*[desk.settlement(one, 10) for one in running])
        assert await desk.balance() == (10**9, 4_000 * 110, 0)


async def test_a_connection_that_ends_is_an_error_and_not_a_wait(database: Database, postgres_url: URL) -> None:
    """A server that goes away between two trips, or in one, is noticed; nothing of the batch is kept."""
    async with open_desk(database) as desk:
        with open_node(postgres_url, desk) as node:
            node.run(desk.command())
            address = postgres_url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(address, autocommit=True) as elsewhere:
                victim = node.store._link._driver.info.backend_pid
                write = node.store.commit

                def commit() -> None:
                    elsewhere.execute("SELECT pg_terminate_backend(%s, 5000)", (victim,))
                    write()

                node.store.commit = commit  # type: ignore[method-assign]
                with pytest.raises(StoreFailed):
                    node.run(desk.command())
                with pytest.raises(StoreFailed):
                    node.run(desk.command())
        assert (await desk.balance())[2] == 1_500
        with open_node(postgres_url, desk) as node:
            assert len(admitted(node.run(desk.command()))) == 1


@contextmanager
def _silent(link: Link) -> Iterator[Link]:
    """From now on the connection takes what is sent and never answers."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        os.dup2(ours.fileno(), link._connection.socket)
        yield link


async def test_a_connection_that_is_silent_is_given_up(postgres_url: URL) -> None:
    """Whether it takes all that is sent or stops before, and also when nothing more than its end is asked for."""
    with _silent(Link(postgres_url)) as one, _silent(Link(postgres_url)) as two, _silent(Link(postgres_url)) as three:
        short, long, _ = await asyncio.gather(
            asyncio.to_thread(one.trip, ("SELECT 1", None)),
            asyncio.to_thread(two.trip, ("SELECT $1::jsonb", "long" * 10**6)),
            asyncio.to_thread(three.rollback),
            return_exceptions=True,
        )
        assert [(type(error), str(error)) for error in (short, long)] == [(StoreFailed, "silence")] * 2
        with pytest.raises(StoreFailed):
            three.trip(("SELECT 1", None))


async def test_the_writer_takes_another_connection_for_a_silent_one(database: Database) -> None:
    """Calls are refused until it has been given up; then they are served, and what has ended meanwhile is charged."""
    async with open_desk(database) as desk:
        running = await desk.admitted()
        store = desk.writer._store
        assert isinstance(store, PostgresStore)
        with _silent(store._link):
            await desk.settle(running, output=50)
            assert isinstance(await desk.ask(), Unavailable)
            async with asyncio.timeout(15):
                while desk.writer.down:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert isinstance(await desk.ask(), Admission)
        assert (await desk.balance())[1] == 150
