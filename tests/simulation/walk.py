"""A walk through a world: what happens next, drawn from the world's seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL

from tests.simulation.faults import Weather
from tests.simulation.oracle import Request
from tests.simulation.provider import Script
from tests.simulation.world import PLANS, SLUGS, World

# First moments of months: after 28, 29, 30 and 31 days, and of a year.
_MONTHS = (
    datetime(2027, 3, 1, tzinfo=UTC),
    datetime(2028, 3, 1, tzinfo=UTC),
    datetime(2026, 12, 1, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
)


class Walk:
    """Draws a world and what happens in it. ``weights`` leave some things out, so that others come to the fore."""

    def __init__(self, seed: int, url: URL) -> None:
        draw = random.Random(f"world {seed}")  # noqa: S311
        month = draw.choice(_MONTHS)
        begins = month - timedelta(seconds=draw.uniform(0, 90)) if draw.random() < 0.6 else month + timedelta(days=9)
        self.world = World(
            seed,
            url,
            nodes=draw.choice((1, 2, 2, 4)),
            customers=draw.choice((1, 2, 3)),
            begins=begins,
            weather=Weather.drawn(draw),
        )
        self.world.unreachable = draw.choice((0.0, 0.0, 0.05))
        self.patience = draw.choice((0.05, 0.3, 1.0))
        self.actions: list[tuple[Callable[[], None], float]] = [
            (action, weight) for action, weight, rare in self._possible() if not rare or draw.random() < 0.5
        ]

    def _possible(self) -> tuple[tuple[Callable[[], None], float, bool], ...]:
        """What may happen: how often, and whether some worlds know nothing of it."""
        return (
            (self._call, 40, False),
            (self._burst, 3, True),
            (self._leave, 6, False),
            (self._change_plan, 4, True),
            (self._change_key, 5, True),
            (self._change_cap, 3, True),
            (self._toggle_token, 2, True),
            (self._toggle_member, 2, False),
            (self._kill, 2, True),
            (self._pause, 2, True),
            (self._cut_off, 1.5, True),
            (self._outage, 1, True),
            (self._set_clock, 1, True),
            (self._turn_month, 1, True),
            (self._replay, 4, False),
            (self._reap, 2, False),
            (self._wait, 3, False),
        )

    def go(self, steps: int) -> World:
        """So many steps, then the end. Raises ``Violation``."""
        world = self.world
        actions, weights = zip(*self.actions, strict=True)
        for _ in range(steps):
            world.steps += 1
            (action,) = world.draw.choices(actions, weights)
            action()
            world.run_for(world.draw.expovariate(1 / self.patience))
        world.close()
        return world

    # What happens

    @property
    def _slot(self) -> int:
        """A node that is alive; the first one if none is, which then answers nobody."""
        alive = [slot for slot, node in enumerate(self.world.nodes) if node.alive]
        return self.world.draw.choice(alive) if alive else -1

    @property
    def _organization(self) -> str:
        return self.world.draw.choice(list(self.world.customers))

    def _call(self) -> None:
        draw, slot = self.world.draw, self._slot
        if slot >= 0:
            limit = draw.choice((None, 20, 100, 400, 1_500))
            self.world.call(
                slot,
                self._organization,
                draw.choice(SLUGS),
                stream=draw.random() < 0.7,
                limit=limit,
                words=draw.choice((1, 30, 150)),
                by_token=draw.random() < 0.7,
                script=self._script(limit or 1_024),
            )

    def _script(self, limit: int) -> Script:
        """Mostly a provider that does what it should."""
        draw = self.world.draw
        script = Script(
            input_share=draw.random(),
            output=max(1, round(limit * draw.choice((0.1, 0.5, 0.9, 2.0)))),
            pieces=draw.choice((1, 3, 12)),
            gap=draw.choice((0.005, 0.05, 0.4)),
            first_byte=draw.choice((0.005, 0.05, 0.5)),
        )
        luck = draw.random()
        if luck < 0.08:
            script.refusal = draw.choice((400, 401, 429, 500, 529))
        elif luck < 0.20:
            script.ending = draw.choice(("break", "break", "stall"))
            script.pieces = draw.choice((0, 1, 3)) if script.ending == "break" else 1
        elif luck < 0.22:
            script.first_byte = 1_000
        elif luck < 0.32:
            script.pieces, script.gap = 20, draw.choice((1.0, 2.5))
        script.usage = draw.choices(("good", "missing", "zero", "twice"), (75, 12, 4, 9))[0]
        if draw.random() < 0.04:
            script.excess = max(1, limit // 10)
        return script

    def _burst(self) -> None:
        for _ in range(self.world.draw.randrange(2, 16)):
            self._call()

    def _leave(self) -> None:
        waiting: list[Request] = [r for r in self.world.oracle.requests.values() if not r.client.answered]
        if waiting:
            self.world.leave(self.world.draw.choice(waiting))

    def _changes(self, change: Callable[[str], Callable[[], None]]) -> None:
        slot, organization = self._slot, self._organization
        if slot >= 0:
            self.world.change(slot, change(organization))

    def _change_plan(self) -> None:
        plan = self.world.draw.choice([code for code, _ in PLANS])
        self._changes(lambda organization: self.world.customers[organization].change_plan(plan))

    def _change_key(self) -> None:
        slug, remove = self.world.draw.choice(SLUGS), self.world.draw.random() < 0.5

        def change(organization: str) -> Callable[[], None]:
            customer = self.world.customers[organization]
            return customer.remove_key(slug) if remove else customer.set_key(slug)

        self._changes(change)

    def _change_cap(self) -> None:
        draw = self.world.draw
        scope = draw.choice(("member", "workspace"))
        allowance, own_key = draw.choice((None, None, 0, 700, 4_000)), draw.choice((None, None, 0, 700))
        self._changes(lambda organization: self.world.customers[organization].change_cap(scope, allowance, own_key))

    def _toggle_token(self) -> None:
        self._changes(lambda organization: self.world.customers[organization].toggle_token())

    def _toggle_member(self) -> None:
        self._changes(lambda organization: self.world.customers[organization].toggle_member())

    def _kill(self) -> None:
        slot = self._slot
        if slot >= 0:
            self.world.kill(self.world.nodes[slot], self.world.draw.choice((0.1, 3.0, 40.0)))

    def _pause(self) -> None:
        self.world.pause(self._slot, self.world.draw.choice((0.5, 3.0, 30.0, 60.0)))

    def _cut_off(self) -> None:
        self.world.cut_off(self._slot, self.world.draw.choice((0.2, 5.0, 35.0)))

    def _outage(self) -> None:
        self.world.outage(self.world.draw.choice((0.2, 5.0, 35.0)))

    def _set_clock(self) -> None:
        self.world.set_clock(self.world.draw.choice((-8.0, -1.0, 3.0, 45.0)))

    def _turn_month(self) -> None:
        clock = self.world.clock
        now = datetime.fromtimestamp(clock.database, UTC)
        following = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
        self.world.set_clock(following.timestamp() - clock.database - self.world.draw.choice((0.001, 0.5, 10.0)))

    def _replay(self) -> None:
        self.world.replay(self._slot)

    def _reap(self) -> None:
        self.world.reap(self._slot)

    def _wait(self) -> None:
        self.world.run_for(self.world.draw.uniform(2, 25))
