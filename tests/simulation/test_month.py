"""A call belongs to the month in which it was admitted, and a new month begins by itself."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL

from tests.simulation.provider import Script
from tests.simulation.world import SLUGS, World

PLAN = (("month", 10_000_000),)


def test_a_thousand_calls_across_midnight(world_url: URL) -> None:
    """Of 1,000 calls around a month's end, most of them ending after it, no token is in the wrong month."""
    straddle(world_url, datetime(2026, 12, 1, tzinfo=UTC), 1_000)


@pytest.mark.parametrize("first", [datetime(2027, 3, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)])
def test_after_february_and_in_a_leap_year(sqlite_url: URL, first: datetime) -> None:
    """A month of 28 or of 29 days ends like any other."""
    straddle(sqlite_url, first, 100)


def test_after_thirty_one_days_and_at_the_end_of_a_year(sqlite_url: URL) -> None:
    """So does a year."""
    straddle(sqlite_url, datetime(2027, 1, 1, tzinfo=UTC), 100)


def straddle(url: URL, first: datetime, number: int) -> None:
    """Admit so many calls in the ten seconds before and after the first moment of a month; compare both months."""
    world = World(1, url, nodes=4, begins=first - timedelta(seconds=10), plans=PLAN)
    before, after = (first - timedelta(days=1)).strftime("%Y-%m"), first.strftime("%Y-%m")
    draw, asked = world.draw, dict[str, str]()
    for index in range(number):
        # Not in the moment itself: which side of it the database takes a call for is settled by its clock alone.
        if index == number // 2:
            world.run_for(max(0.0, 10.05 - world.clock.now))
        script = Script(output=draw.randrange(1, 100), pieces=draw.randrange(1, 6), gap=draw.uniform(0.01, 3))
        organization = draw.choice(list(world.customers))
        request = world.call(draw.randrange(4), organization, draw.choice(SLUGS), limit=100, script=script)
        asked[request.id] = before if index < number // 2 else after
        if index == number // 2:
            world.run_for(0.5)
            assert request.held, "the first call of the month was not admitted within half a second"
        world.run_for(9.9 / (number // 2) if index < number // 2 else 0.01)
    world.close()
    truth: Counter[tuple[str, str]] = Counter()
    for call in world.provider.log:
        assert call.reported is not None
        request = world.oracle.requests[call.request_id]
        truth[request.organization_id, asked[call.request_id]] += sum(call.reported)
    balances = world.oracle.books.balances()
    ended_later = sum(e.period == before for r in world.oracle.requests.values() for e in r.events if r.client.ended)
    world.take_down()
    assert len(world.provider.log) == number
    assert ended_later
    assert {key: balance.used for key, balance in balances.items()} == dict(truth)
    assert all(balance.reserved == 0 for balance in balances.values())
