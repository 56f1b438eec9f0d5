"""Alerts: once a month for each threshold, whoever finds it, mailed at least once and never in a storm."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text, update

from ownkey import clock
from ownkey.access import Actor, Role
from ownkey.accounts import workspaces
from ownkey.accounts.organizations import Created
from ownkey.db.engine import Database
from ownkey.db.tables import allowances, ledger_entries, organizations, subscriptions
from ownkey.db.usage_tables import allowance_alerts
from ownkey.housekeeping.alert_mail import mail_alerts
from ownkey.mail import Mailer
from ownkey.metering import alerts
from ownkey.metering.alerts import Lookout
from ownkey.node import Node
from ownkey.plans import DEFAULT_CATALOGUE
from ownkey.settings import read_settings
from tests import build
from tests.fakes.post import Post, serving
from tests.integration.metering.desk import open_desk

pytestmark = pytest.mark.anyio
THIS_MONTH = clock.period_of(clock.now())
# Whatever an entry follows: alerts do not look at that.
FOLLOWING = {"request_id": None, "position": 1, "used_after": 1}


def make_node(db: Database, folder: Path, smtp: str | None) -> Node:
    """A node whose mail goes to this server."""
    settings = read_settings(
        data_dir=folder,
        public_url="http://ownkey.test",
        app_name="Acme AI",
        smtp_url=SecretStr(f"smtp://{smtp}") if smtp else None,
    )
    return Node(settings, db, build.keyring(), DEFAULT_CATALOGUE, Mailer(settings))


async def stand(db: Database, created: Created, used: int, granted: int = 100_000, period: str = THIS_MONTH) -> None:
    """Have an organization stand there, with an entry in the ledger as a late settlement would leave it."""
    mine = {"organization_id": created.organization.id, "period": period}
    table = allowances.c
    async with db.transaction() as tx:
        there = update(allowances).where(table.organization_id == mine["organization_id"], table.period == period)
        excess = max(0, used - granted)
        values = {"granted_tokens": granted, "used_tokens": used, "excess_tokens": excess}
        if (await tx.execute(there.values(**values))).rowcount == 0:
            await tx.execute(insert(allowances).values(**mine, **values))
        await tx.execute(
            insert(ledger_entries).values(**mine, kind="adjustment", tokens=-1, **FOLLOWING, created_at=clock.now())
        )


async def found(db: Database, created: Created, period: str = THIS_MONTH) -> list[int]:
    """The thresholds that an organization was alerted of."""
    return [alert.threshold for alert in await alerts.list_alerts(db, Actor.operator(created.organization.id), period)]


async def look_twice(db: Database, lookout: Lookout) -> None:
    """An entry is looked at in the round after it was first seen."""
    await lookout.look(db)
    await lookout.look(db)


@pytest.mark.parametrize(
    ("granted", "used", "threshold"),
    [
        (100_000, 0, 0),
        (100_000, 49_999, 0),
        (100_000, 50_000, 50),
        (100_000, 79_999, 50),
        (100_000, 80_000, 80),
        (100_000, 99_000, 80),
        (100_000, 99_001, 100),
        (100_000, 100_000, 100),
        (100_000, 250_000, 100),
        # What is left here is less than a hundredth, but enough to work with.
        (20_000_000, 19_900_000, 80),
        (20_000_000, 19_999_000, 100),
        (3_000, 2_000, 50),
        (0, 0, 0),
        (0, 10, 0),
    ],
)
def test_thresholds(granted: int, used: int, threshold: int) -> None:
    """Half, four fifths, and all; all is also when what is left is too little for a plain answer."""
    assert alerts.passed(granted, used) == threshold


async def test_real_calls_are_found(database: Database) -> None:
    """What the ledger writes for calls is what the lookout sees: each threshold at the call that passes it."""
    async with open_desk(database, 10_000) as desk:
        lookout = Lookout()
        await lookout.look(database)
        seen = []
        for output in (4_000, 900, 3_000, 1_900):
            admission = await desk.admitted(desk.command(output_limit=output, input_ceiling=100))
            await desk.settle(admission, output - 100)
            await look_twice(database, lookout)
            seen.append([alert.threshold for alert in await alerts.list_alerts(database, desk.actor, THIS_MONTH)])
        assert seen == [[], [], [50], [50, 80]]


async def test_once_a_month_each(database: Database) -> None:
    """A threshold is alerted once in a month, whatever the balance does after it: a larger plan and a smaller again."""
    created = await build.organization(database)
    lookout = Lookout()
    await stand(database, created, 50_000)
    await lookout.look(database)
    assert await found(database, created) == [50]
    first = (await alerts.list_alerts(database, Actor.operator(created.organization.id), THIS_MONTH))[0]
    for granted in (2_000_000, 100_000):
        await stand(database, created, 50_000, granted)
        await look_twice(database, lookout)
    await stand(database, created, 81_000)
    await look_twice(database, lookout)
    [again, _] = await alerts.list_alerts(database, Actor.operator(created.organization.id), THIS_MONTH)
    assert again == first
    assert await found(database, created) == [50, 80]


async def test_the_first_look_finds_what_happened_before(database: Database) -> None:
    """A node that starts finds every allowance of this month that is due, without a new entry; not last month's."""
    due, not_due, late = [await build.organization(database) for _ in range(3)]
    await stand(database, due, 100_000)
    await stand(database, not_due, 10_000)
    last_month = clock.period_of(clock.period_start(THIS_MONTH) - timedelta(days=1))
    await stand(database, late, 100_000, period=last_month)
    await Lookout().look(database)
    assert await found(database, due) == [50, 80, 100]
    assert await found(database, not_due) == []
    assert await found(database, late, last_month) == []


async def test_only_what_changed_is_looked_at(database: Database) -> None:
    """After the first look an organization without a new entry is not looked at again."""
    created, quiet = await build.organization(database), await build.organization(database)
    lookout = Lookout()
    for organization in (created, quiet):
        await stand(database, organization, 10)
    await look_twice(database, lookout)
    async with database.transaction() as tx:  # a balance that changed without an entry, which nothing does
        await tx.execute(update(allowances).values(used_tokens=60_000))
    await stand(database, created, 60_000)
    await look_twice(database, lookout)
    await look_twice(database, lookout)
    assert await found(database, created) == [50]
    assert await found(database, quiet) == []


async def test_an_entry_that_commits_late_is_seen(postgres_url: object) -> None:
    """An entry whose number is lower than one that was seen already, but came later, is looked at in the next round."""
    database = Database(postgres_url)  # type: ignore[arg-type]
    created, other = await build.organization(database), await build.organization(database)
    lookout = Lookout()
    await look_twice(database, lookout)
    await stand(database, created, 60_000)
    async with database.engine.connect() as connection, connection.begin():
        await connection.execute(text("UPDATE allowances SET used_tokens = 85000"))
        await connection.execute(
            insert(ledger_entries).values(
                organization_id=created.organization.id, period=THIS_MONTH, kind="adjustment", tokens=-1,
                **FOLLOWING, created_at=clock.now(),
            )
        )  # fmt: skip
        await stand(database, other, 10)
        await lookout.look(database)
        assert await found(database, created) == []
    await lookout.look(database)
    assert await found(database, created) == [50, 80]
    await database.close()


async def test_many_nodes_mail_once(database: Database, tmp_path: Path) -> None:
    """Whichever of four nodes finds it: each person has one message, and it goes to the owner and every admin."""
    created = await build.organization(database, name="Acme")
    second = await workspaces.create(
        database, build.acting(created.owner, created, Role.OWNER), DEFAULT_CATALOGUE["enterprise"], "Second"
    )
    await build.member(database, created, Role.DEVELOPER)
    admin = await build.member(database, created, Role.ADMIN, email="a@example.com")
    elsewhere = await build.member(database, created, Role.ADMIN, email="b@example.com", workspace_id=second.id)
    await stand(database, created, 101_000_000, 200_000_000)
    post = Post()
    async with serving(post) as address:
        nodes = [make_node(database, tmp_path, address) for _ in range(4)]

        async def round_of(node: Node) -> None:
            await Lookout().look(node.db)
            await mail_alerts(node)

        for _ in range(2):
            await asyncio.gather(*map(round_of, nodes))
    people = [created.owner.email, admin.email, elsewhere.email]
    assert [message["To"] for message in post.messages] == people
    message = post.messages[0]
    assert message["Subject"] == f"Acme has used 50 % of its AI tokens of {clock.period_start(THIS_MONTH):%B %Y}"
    told = " ".join(message.get_content().split())
    assert "101,000,000 of the 200,000,000 AI tokens that its Enterprise plan includes" in told
    assert "http://ownkey.test/settings/integrations" in told
    [alert] = await alerts.list_alerts(database, Actor.operator(created.organization.id), THIS_MONTH)
    assert (alert.threshold, alert.recipients, alert.mailed_at is not None) == (50, 3, True)


async def test_one_message_for_a_jump(database: Database, tmp_path: Path) -> None:
    """Several thresholds passed between two rounds are one message, about the highest."""
    created = await build.organization(database, plan="free")
    await stand(database, created, 100_000)
    post = Post()
    async with serving(post) as address:
        node = make_node(database, tmp_path, address)
        await Lookout().look(database)
        for _ in range(3):
            await mail_alerts(node)
    assert [message["Subject"] for message in post.messages] == [
        f"{created.organization.name} has used all its AI tokens of {clock.period_start(THIS_MONTH):%B %Y}"
    ]
    assert await found(database, created) == [50, 80, 100]


async def test_a_mail_that_was_not_taken_is_tried_again(database: Database, tmp_path: Path) -> None:
    """A server that takes nothing, or a node that died, is tried again after ten minutes, not at once; for a day."""
    created = await build.organization(database, plan="free")
    await stand(database, created, 50_000)
    post = Post()
    async with serving(post) as address:
        node = make_node(database, tmp_path, address)
        await Lookout().look(database)
        post.full = True
        await mail_alerts(node)
        post.full = False
        await mail_alerts(node)
        assert post.received == []
        await earlier(database, tried_at=alerts.TRY_AGAIN)
        await mail_alerts(node)
        assert len(post.received) == 1
        async with database.transaction() as tx:
            await tx.execute(update(allowance_alerts).values(mailed_at=None))
        await earlier(database, tried_at=alerts.TRY_AGAIN, reached_at=alerts.GIVE_UP)
        await mail_alerts(node)
        assert len(post.received) == 1


async def test_a_node_takes_on_one_message_at_a_time(database: Database) -> None:
    """What a node has not come to yet is left to the others, so none is mailed late, or again because of that."""
    waiting = {(await build.organization(database, plan="free")).organization.id for _ in range(2)}
    for created in waiting:
        async with database.transaction() as tx:
            await tx.execute(
                insert(allowance_alerts).values(
                    organization_id=created, period=THIS_MONTH, threshold=50, reached_at=clock.now()
                )
            )
    claims = [await alerts.claim_unmailed(database) for _ in range(3)]
    assert {claim.organization_id for claim in claims if claim} == waiting
    assert claims[2] is None


async def earlier(db: Database, **by: timedelta) -> None:
    """Set times of all alerts to so long ago."""
    async with db.transaction() as tx:
        await tx.execute(update(allowance_alerts).values({name: clock.now() - span for name, span in by.items()}))


async def test_nothing_is_mailed_that_is_no_longer_so(database: Database, tmp_path: Path) -> None:
    """A larger plan that comes before the message, a suspension, and no mail server: no message."""
    upgraded, suspended = [await build.organization(database, plan="free") for _ in range(2)]
    for created in (upgraded, suspended):
        await stand(database, created, 85_000)
    await Lookout().look(database)
    async with database.transaction() as tx:
        await tx.execute(
            update(subscriptions)
            .where(subscriptions.c.organization_id == upgraded.organization.id)
            .values(plan="professional")
        )
        await tx.execute(
            update(organizations)
            .where(organizations.c.id == suspended.organization.id)
            .values(suspended_at=clock.now())
        )
    await mail_alerts(make_node(database, tmp_path, None))
    post = Post()
    async with serving(post) as address:
        await mail_alerts(make_node(database, tmp_path, address))
    assert post.received == []
    assert await found(database, upgraded) == [50, 80]
