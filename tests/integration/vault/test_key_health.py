"""Which keys are checked when, and what their admins are told: each once, by one node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import update

from ownkey.access import Actor, Role
from ownkey.credentials import Secret
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.vault import key_health
from ownkey.vault import provider_keys as keys
from ownkey.vault.key_health import CHECK_EVERY, DueCheck
from ownkey.vault.provider_keys import ProviderKey
from tests import build

pytestmark = pytest.mark.anyio

OPENAI, GROQ = registry.find("openai"), registry.find("groq")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
RING = build.keyring()
Clock = time_machine.Traveller


@pytest.fixture
def time() -> Iterator[Clock]:
    """A clock that stands until it is moved."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


async def connected(db: Database, *, health: Health = Health.ACTIVE, expires_at: datetime | None = None) -> ProviderKey:
    """The key of a new organization."""
    admin = await build.actor(db, await build.organization(db), Role.ADMIN)
    return await keys.save(
        db, RING, admin, OPENAI, Secret("sk-proj-0123456789abcdef"), health, "Said.", expires_at=expires_at
    )


async def note(db: Database, key: ProviderKey, health: Health, said: str | None = "") -> bool:
    """What a check or a call told."""
    return await key_health.note_health(db, key.id, key.organization_id, health, said)


async def told(db: Database) -> list[tuple[str, Health, Health]]:
    """Claim all changes that are to be told: key, before, now."""
    return [(each.key_id, each.before, each.health) for each in await key_health.claim_changes(db, 100)]


async def test_a_key_is_due_when_nothing_told_of_it_for_long(database: Database, time: Clock) -> None:
    """Six hours, a quarter more or less, after the last check or call; a claimed one is due again if nothing came."""
    quiet, busy = await connected(database), await connected(database)
    time.shift(CHECK_EVERY * 0.74)
    assert await key_health.claim_checks(database, 9) == []
    await note(database, busy, Health.ACTIVE)
    time.shift(CHECK_EVERY * 0.52)
    assert await key_health.claim_checks(database, 9) == [DueCheck(quiet.id, Health.ACTIVE)]
    assert await key_health.claim_checks(database, 9) == []
    time.shift(11 * MINUTE)
    assert await key_health.claim_checks(database, 9) == [DueCheck(quiet.id, Health.ACTIVE)]
    assert await note(database, quiet, Health.REJECTED)
    time.shift(11 * MINUTE)
    assert await key_health.claim_checks(database, 9) == []


async def test_what_may_pass_is_checked_sooner_and_less_and_less_often(database: Database, time: Clock) -> None:
    """A limited or unreachable key is checked within minutes, then after as long as it has been so, up to six hours."""
    key = await connected(database, health=Health.UNREACHABLE)
    waits = []
    for _ in range(12):
        waited = timedelta()
        while not await key_health.claim_checks(database, 1):
            time.shift(MINUTE)
            waited += MINUTE
        await note(database, key, Health.UNREACHABLE)
        waits.append(waited)
    assert waits[0] <= 7 * MINUTE
    assert CHECK_EVERY * 0.7 <= waits[-1] <= CHECK_EVERY * 1.3
    assert len(waits) == 12


async def test_the_longest_overdue_come_first_and_only_some(database: Database, time: Clock) -> None:
    """However many are due, a node takes few at once; suspended organizations' keys are left alone."""
    made = []
    for _ in range(4):
        made.append(await connected(database))
        time.shift(CHECK_EVERY * 0.6)  # more than the spread, so that the order is certain
    time.shift(CHECK_EVERY * 2)
    async with database.transaction() as tx:
        suspended = tables.organizations.c.id == made[1].organization_id
        await tx.execute(update(tables.organizations).where(suspended).values(suspended_at=NOON))
    assert [due.key_id for due in await key_health.claim_checks(database, 2)] == [made[0].id, made[2].id]
    assert [due.key_id for due in await key_health.claim_checks(database, 2)] == [made[3].id]


async def test_of_several_nodes_one_does_it(database: Database, time: Clock) -> None:
    """Eight nodes that look at the same moment: each check, change and reminder is given to exactly one."""
    made = [await connected(database, expires_at=NOON + 3 * DAY) for _ in range(5)]
    for key in made:
        await note(database, key, Health.REJECTED)
    time.shift(CHECK_EVERY * 2)
    nodes = [Database(database.url, synchronous="OFF") for _ in range(8)]
    try:
        wanted = sorted(key.id for key in made)
        for claim in (key_health.claim_checks, key_health.claim_changes, key_health.claim_reminders):
            found: list[Any] = await asyncio.gather(*(claim(node, 9) for node in nodes))
            assert sorted(each.key_id for few in found for each in few) == wanted, claim.__name__
    finally:
        for node in nodes:
            await node.close()


async def test_a_refusal_is_told_once_however_many_calls_notice(database: Database, time: Clock) -> None:
    """Whoever saved the key was shown its health; a change is told at once and not again."""
    key = await connected(database)
    assert await told(database) == []
    for _ in range(20):
        await note(database, key, Health.REJECTED, "Revoked.")
    assert await told(database) == [(key.id, Health.ACTIVE, Health.REJECTED)]
    assert await told(database) == []
    await note(database, key, Health.OUT_OF_CREDIT)
    assert await told(database) == [(key.id, Health.REJECTED, Health.OUT_OF_CREDIT)]


async def test_a_key_that_wavers_makes_no_storm(database: Database, time: Clock) -> None:
    """Refused and accepted in turn for an hour: told once; that it works again, when it has for ten minutes."""
    key, messages = await connected(database), []
    for _ in range(60):
        await note(database, key, Health.REJECTED)
        messages += await told(database)
        time.shift(MINUTE)
        await note(database, key, Health.ACTIVE)
        messages += await told(database)
        time.shift(MINUTE)
    assert messages == [(key.id, Health.ACTIVE, Health.REJECTED)]
    time.shift(10 * MINUTE)
    assert await told(database) == [(key.id, Health.REJECTED, Health.ACTIVE)]


@pytest.mark.parametrize("health", [Health.LIMITED, Health.UNREACHABLE])
async def test_what_may_pass_is_told_when_it_has_not(database: Database, time: Clock, health: Health) -> None:
    """A rate limit or an outage is told after ten minutes; one that was over before is not told at all."""
    key = await connected(database)
    await note(database, key, health)
    time.shift(9 * MINUTE)
    assert await told(database) == []
    await note(database, key, Health.ACTIVE)
    time.shift(30 * MINUTE)
    assert await told(database) == []
    await note(database, key, health)
    time.shift(5 * MINUTE)
    await note(database, key, health)  # the same goes on
    time.shift(6 * MINUTE)
    assert await told(database) == [(key.id, Health.ACTIVE, health)]


async def test_that_an_unverified_key_works_is_no_news(database: Database, time: Clock) -> None:
    """Saved unchecked, then used: nobody needs a message."""
    key = await connected(database, health=Health.UNVERIFIED)
    await note(database, key, Health.ACTIVE)
    time.shift(DAY)
    assert await told(database) == []


async def test_what_was_said_is_kept_when_nothing_new_was(database: Database, time: Clock) -> None:
    """``None`` leaves the provider's words."""
    key = await connected(database, health=Health.OUT_OF_CREDIT)
    time.shift(DAY)
    await note(database, key, Health.OUT_OF_CREDIT, None)
    [shown] = await keys.list_keys(database, Actor.operator(key.organization_id))
    assert (shown.said, shown.health_since, shown.last_checked_at) == ("Said.", NOON, NOON + DAY)


async def test_an_expiry_is_reminded_of_twice(database: Database, time: Clock) -> None:
    """Two weeks ahead and two days ahead, once each; a key given late gets the one that fits."""
    early = await connected(database, expires_at=NOON + 30 * DAY)
    late = await connected(database, expires_at=NOON + 1 * DAY)
    await connected(database)
    reminded = []
    for day in range(40):
        reminded += [(day, each.key_id) for each in await key_health.claim_reminders(database, 9)]
        reminded += [(day, each.key_id) for each in await key_health.claim_reminders(database, 9)]
        time.shift(DAY)
    assert reminded == [(0, late.id), (16, early.id), (28, early.id)]


async def test_a_replaced_key_begins_anew(database: Database, time: Clock) -> None:
    """Nothing is told or reminded of a key that is gone, and the new one has its own dates."""
    admin = await build.actor(database, await build.organization(database), Role.ADMIN)
    secret = Secret("sk-proj-0123456789abcdef")
    old = await keys.save(database, RING, admin, GROQ, secret, Health.ACTIVE, expires_at=NOON + DAY)
    await note(database, old, Health.REJECTED)
    new = await keys.save(database, RING, admin, GROQ, secret, Health.ACTIVE)
    assert (new.expires_at, old.expires_at) == (None, NOON + DAY)
    assert await told(database) == []
    assert await key_health.claim_reminders(database, 9) == []
    time.shift(CHECK_EVERY * 2)
    assert await key_health.claim_checks(database, 9) == [DueCheck(new.id, Health.ACTIVE)]
