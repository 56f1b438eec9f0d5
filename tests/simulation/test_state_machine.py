"""The same rules, drawn by Hypothesis, which finds the shortest way to a violation."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import URL

from tests.gateway.scale import scaled
from tests.simulation.faults import KINDS, Weather
from tests.simulation.provider import Script
from tests.simulation.world import PLANS, SLUGS, World

slots = st.integers(0, 3)
seconds = st.sampled_from((0.0, 0.01, 0.3, 2.0, 25.0))
scripts = st.builds(
    Script,
    refusal=st.sampled_from((0, 0, 0, 401, 429, 500)),
    output=st.sampled_from((1, 40, 400, 3_000)),
    excess=st.sampled_from((0, 0, 0, 10)),
    pieces=st.sampled_from((1, 3, 12)),
    gap=st.sampled_from((0.01, 0.4, 2.5)),
    usage=st.sampled_from(("good", "good", "missing", "zero", "twice")),
    ending=st.sampled_from(("whole", "whole", "break", "stall")),
)


class Metering(RuleBasedStateMachine):
    """A world, and everything that may happen in it, one rule each."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world: World

    @initialize(
        seed=st.integers(0, 2**32),
        kinds=st.sets(st.sampled_from(KINDS), max_size=3),
        near_the_end=st.booleans(),
    )
    def begin(self, seed: int, kinds: set[str], near_the_end: bool) -> None:
        """Four nodes, two customers, and some kinds of faults."""
        file = shutil.copy(self.template, Path(self.folder.name, "ownkey.db"))
        begins = datetime(2027, 2, 28, 23, 59, 50, tzinfo=UTC) if near_the_end else datetime(2027, 2, 8, tzinfo=UTC)
        url = URL.create("sqlite", database=str(file))
        self.world = World(seed, url, nodes=4, begins=begins, weather=Weather(**dict.fromkeys(kinds, 0.02)))

    @rule(
        slot=slots,
        organization=st.sampled_from(("org_0", "org_1")),
        slug=st.sampled_from(SLUGS),
        stream=st.booleans(),
        limit=st.sampled_from((None, 20, 400, 1_500)),
        by_token=st.booleans(),
        script=scripts,
        number=st.sampled_from((1, 1, 1, 12)),
        wait=seconds,
    )
    def call(
        self,
        slot: int,
        organization: str,
        slug: str,
        stream: bool,
        limit: int | None,
        by_token: bool,
        script: Script,
        number: int,
        wait: float,
    ) -> None:
        """A client asks, or twelve."""
        if self.world.nodes[slot].alive:
            for _ in range(number):
                self.world.call(slot, organization, slug, stream=stream, limit=limit, by_token=by_token, script=script)
        self.world.run_for(wait)

    @rule(number=st.integers(0, 3), wait=seconds)
    def leave(self, number: int, wait: float) -> None:
        """A client hangs up."""
        waiting = [request for request in self.world.oracle.requests.values() if not request.client.answered]
        if number < len(waiting):
            self.world.leave(waiting[number])
        self.world.run_for(wait)

    @rule(
        slot=slots,
        organization=st.sampled_from(("org_0", "org_1")),
        what=st.sampled_from(("plan", "set", "remove", "token", "member")),
        plan=st.sampled_from([code for code, _ in PLANS]),
        slug=st.sampled_from(SLUGS),
        wait=seconds,
    )
    def change(self, slot: int, organization: str, what: str, plan: str, slug: str, wait: float) -> None:
        """A plan, a key, a token or a member changes."""
        customer = self.world.customers[organization]
        if self.world.nodes[slot].alive:
            apply = {
                "plan": customer.change_plan(plan),
                "set": customer.set_key(slug),
                "remove": customer.remove_key(slug),
                "token": customer.toggle_token(),
                "member": customer.toggle_member(),
            }[what]
            self.world.change(slot, apply)
        self.world.run_for(wait)

    @rule(slot=slots, what=st.sampled_from(("kill", "pause", "cut off", "outage", "reap", "replay")), lasts=seconds)
    def trouble(self, slot: int, what: str, lasts: float) -> None:
        """A node dies, sleeps or loses the database; or something is done twice."""
        world = self.world
        {
            "kill": lambda: world.kill(world.nodes[slot], 0.1 + lasts),
            "pause": lambda: world.pause(slot, lasts),
            "cut off": lambda: world.cut_off(slot, lasts),
            "outage": lambda: world.outage(lasts),
            "reap": lambda: world.reap(slot),
            "replay": lambda: world.replay(slot),
        }[what]()
        world.run_for(0.1)

    @rule(jump=st.sampled_from((-8.0, 3.0, 45.0, 21 * 86_400.0)))
    def set_clock(self, jump: float) -> None:
        """The database's clock jumps, perhaps into the next month."""
        self.world.set_clock(jump)
        self.world.run_for(0.1)

    def teardown(self) -> None:
        """Everything heals, and is as it should be."""
        try:
            if hasattr(self, "world"):
                try:
                    if not self.world.oracle.violations:
                        self.world.close()
                finally:
                    self.world.take_down()
        finally:
            self.folder.cleanup()


@pytest.mark.prove
@pytest.mark.timeout(7_200)
def test_any_sequence_of_events(sqlite_template: Path) -> None:
    """I1 to I12 hold after any sequence of calls, changes, faults and jumps of the clock."""
    machine = type("Machine", (Metering,), {"template": sqlite_template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=scaled(15, 3_000),
            stateful_step_count=scaled(25, 50),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
