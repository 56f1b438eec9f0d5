"""What is granted can be used: reservations keep nothing from those who ask."""

from __future__ import annotations

import pytest
from sqlalchemy import URL

from tests.simulation.oracle import Request
from tests.simulation.provider import Script
from tests.simulation.world import World

GRANTED = 100_000
PLAN = (("tested", GRANTED),)


@pytest.mark.parametrize("limit", [400, None])
def test_in_sequence(world_url: URL, limit: int | None) -> None:
    """One call after the other uses at least 99 % of the allowance before the first is refused."""
    world = World(2, world_url, nodes=2, customers=1, plans=PLAN)
    used = use_up(world, limit)
    world.close()
    world.take_down()
    assert GRANTED * 0.99 <= used <= GRANTED


@pytest.mark.parametrize("limit", [2_000, None])
def test_after_a_burst(world_url: URL, limit: int | None) -> None:
    """After 200 calls at once on four nodes have settled, at least 98 % can be used; none of them made it too much."""
    world = World(3, world_url, nodes=4, customers=1, plans=PLAN)
    burst = [ask(world, slot % 4, limit) for slot in range(200)]
    world.run_for(30)
    admitted = sum(bool(request.held) for request in burst)
    used = use_up(world, limit)
    world.close()
    world.take_down()
    assert 0 < admitted < 200, "the burst was to be larger than the allowance"
    assert GRANTED * 0.98 <= used <= GRANTED


def ask(world: World, slot: int, limit: int | None) -> Request:
    """One call, whose answer is shorter than it might be."""
    script = Script(output=world.draw.randrange(50, 400), gap=0.01)
    return world.call(slot, "org_0", "openai", limit=limit, script=script)


def use_up(world: World, limit: int | None) -> int:
    """Ask until one is refused; returns what the month has used."""
    while True:
        request = ask(world, world.draw.randrange(len(world.nodes)), limit)
        world.run_for(1)
        assert request.client.ended
        if request.client.status == 429:
            ((_, balance),) = world.oracle.books.balances().items()
            assert balance.reserved == 0
            return balance.used
