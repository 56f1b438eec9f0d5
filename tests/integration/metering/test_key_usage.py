"""What a key served in the last thirty days, as a basis for the decision to replace or remove it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import usage_events
from ownkey.metering import key_usage
from ownkey.metering.key_usage import KeyUsage

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


async def call(db: Database, key: str | None, days_ago: float, *, by: str | None = "usr_a", org: str = "org_a") -> None:
    """A call of 60 + 40 tokens."""
    at = NOW - timedelta(days=days_ago)
    async with db.transaction() as tx:
        await tx.execute(
            insert(usage_events).values(
                request_id=f"req_{org}_{key}_{days_ago}_{by}",
                organization_id=org,
                workspace_id="wsp",
                period=clock.period_of(at),
                provider="openai",
                model="m",
                dialect="openai",
                billed_to="own_key" if key else "allowance",
                provider_key_id=key,
                user_id=by,
                input_tokens=60,
                cached_input_tokens=0,
                cache_write_tokens=0,
                output_tokens=40,
                reasoning_tokens=0,
                charged_tokens=0 if key else 100,
                estimated=False,
                outcome="finished",
                started_at=at,
                duration_ms=1,
                position=None if key else 1,
                used_after=None if key else 100,
            )
        )


async def test_calls_people_and_tokens_of_each_key(database: Database) -> None:
    """Thirty days over three months, per key; not what is older, of the allowance, or of another organization."""
    for days_ago, by in ((0.5, "usr_a"), (20, "usr_b"), (29.9, "usr_a"), (1, None)):
        await call(database, "key_1", days_ago, by=by)
    await call(database, "key_2", 3)
    await call(database, "key_1", 30.1)
    await call(database, None, 2)
    await call(database, "key_3", 2, org="org_b")
    found = await key_usage.of_keys(database, Actor.operator("org_a"), NOW)
    assert found == {
        "key_1": KeyUsage(4, 2, 400, NOW - timedelta(days=29.9)),
        "key_2": KeyUsage(1, 1, 100, NOW - timedelta(days=3)),
    }
    assert await key_usage.of_keys(database, Actor.operator("org_c"), NOW) == {}


@pytest.mark.parametrize(
    ("usage", "left", "days"),
    [
        (KeyUsage(), 1000, None),
        (KeyUsage(10, 1, 1000, NOW - timedelta(days=10)), 1000, 10),
        (KeyUsage(10, 1, 1000, NOW - timedelta(days=10)), 99, 0),
        (KeyUsage(10, 1, 1000, NOW - timedelta(minutes=1)), 2500, 2),
        (KeyUsage(1, 1, 0, NOW), 1000, None),
        (KeyUsage(1, 1, 1, NOW - timedelta(days=30)), 0, 0),
    ],
)
def test_how_long_the_allowance_would_last(usage: KeyUsage, left: int, days: int | None) -> None:
    """At the rate since the first call, of at least a day, rounded down; unknown for a key nobody used."""
    assert usage.days_of(left, NOW) == days
