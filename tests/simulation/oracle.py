"""The invariants, checked at every committed state against what providers and clients saw.

It counts for itself: what was sent and produced comes from the provider's log, what was answered from the clients,
what was allowed from the world's own customers. For an organization and month with allowance A, U used, R reserved:

I1   nothing is negative, and no admission brings U + R above A; a lower plan or a provider's excess admits nothing.
I2   U is the sum of the events and corrections, R the sum of the open reservations.
I3   a reservation ends once: settled, released unsent, or taken for abandoned, which no call of a healthy node is.
I4   a finished call is charged what its provider reported, else an estimate that says so; before its reply ends.
I5   an interrupted one is charged at least what arrived, at most a little more than was produced, and its input.
I6   a call that was refused or never sent costs nothing.
I7   a call on an own key takes nothing; each call carries the key of its time, and none starts on one that is gone.
I8   what one organization does changes no number of another.
I9   a call belongs to the month of its admission, and a new month begins at nothing.
I10  no call is refused that fits.
I11  no change of anything but the plan changes what is granted, used or reserved.
I12  what is asked twice is done once, and what is written stays.
I13  no admission brings what a capped person or workspace has used and holds above the cap, and none is refused below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ownkey.errors import AllowanceExhausted, CapReached, NotAuthenticated, OwnkeyError
from ownkey.gateway.exchange import Exchange
from ownkey.metering.batch import Command, Outcome
from ownkey.metering.reservations import Admission, Admit
from ownkey.metering.settlement import Release, Renew, Settle
from ownkey.metering.store import StoreFailed
from tests.simulation.books import Adjustment, Balance, Books, Event, Open
from tests.simulation.client import MemoryClient
from tests.simulation.provider import Upstream

if TYPE_CHECKING:
    from tests.simulation.customer import Customer
    from tests.simulation.node import SimulatedNode
    from tests.simulation.world import World

LEASE_SECONDS = 20
# A node without trouble notes each live call once a second, so after this long its lease cannot have run out.
UNTROUBLED_SECONDS = 10
# After a fault, it takes a writer as long to see that the database is back.
TROUBLED_SECONDS = 2
# What an interrupted reply may be charged beyond what was produced, input aside.
SLACK = 256
PLAIN_ANSWER = 1_024


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Request:
    """What the world knows of a request."""

    id: str
    organization_id: str
    slug: str
    by_token: bool
    node: SimulatedNode
    started_at: float
    ceiling: int
    limit: int | None
    client: MemoryClient
    exchange: Exchange | None = None
    calls: list[Upstream] = field(default_factory=list)
    held: int | None = None
    admitted_in: str = ""
    arrived_when_noted: int = 0
    told_early: bool = False
    events: list[Event] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether its end is in the books, not only that its node was taken for dead."""
        return bool(self.adjustments) or any(event.outcome != "abandoned" for event in self.events)

    @property
    def charged(self) -> int:
        """What the books have taken for it altogether."""
        return sum(e.charged_tokens for e in self.events) - sum(a.tokens for a in self.adjustments)


class Oracle:
    """Watches one world. ``check`` raises the first violation that was found."""

    def __init__(self, world: World, books: Books) -> None:
        self.world = world
        self.books = books
        self.requests: dict[str, Request] = {}
        self.commands: list[Settle | Release] = []
        self.transitions = 0
        self.violations: list[str] = []
        self._balances: dict[tuple[str, str], Balance] = {}
        self._open: dict[str, Open] = {}
        self._used: dict[tuple[str, str], int] = {}
        # By events and corrections, of the allowance and on own keys: what caps count.
        self._made: dict[tuple[str, str, str], int] = {}
        self._notes: dict[tuple[str, int], int] = {}
        self._logged = 0

    def check(self) -> None:
        """Raise what was found wrong."""
        for loop in self.world.loops():
            if loop.failures:
                self.blame(f"an exception in a callback: {loop.failures[0]}")
        if self.violations:
            raise Violation(f"seed {self.world.seed}, step {self.world.steps}: {self.violations[0]}")

    def blame(self, what: str) -> None:
        """Something is wrong."""
        self.violations.append(f"at {self.world.clock.now:.3f} s: {what}")

    # What the nodes say they do

    def told(self, request_id: str) -> None:
        """A client was told that its reply is whole: what it used must be in the books, or the database is away."""
        self._attach_calls()
        request = self.requests[request_id]
        if request.calls and request.calls[0].whole and not request.is_settled:
            request.told_early = True
            if self.world.clock.now - request.node.last_trouble > TROUBLED_SECONDS:
                self.blame(f"I4: the reply of {request_id} left before its settlement")

    def settled(self, command: Settle) -> None:
        """An exchange asked to settle."""
        self.commands.append(command)

    def released(self, request_id: str) -> None:
        """A reservation was given back."""
        self.commands.append(Release(request_id))

    def noted(self, commands: Sequence[Renew]) -> None:
        """Live calls were noted: what had arrived by then must be charged if the node dies."""
        for command in commands:
            arrived = sum(call.at_least for call in self.requests[command.request_id].calls)
            self._notes[command.request_id, command.observed] = arrived

    def decided(self, commands: Sequence[Command], outcomes: Sequence[object]) -> None:
        """A batch has come to an end: whom it admitted and whom not, by what is true at this moment."""
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, OwnkeyError | StoreFailed):
                self.blame(f"{type(command).__name__} failed: {outcome!r}")
            if isinstance(command, Admit):
                self._judge(command, outcome)  # type: ignore[arg-type]

    def _judge(self, command: Admit, outcome: Outcome) -> None:
        request = self.requests[command.request_id]
        customer = self.world.customers[request.organization_id]
        if isinstance(outcome, Admission):
            if not customer.may_call(by_token=request.by_token):
                self.blame(f"I7: {command.request_id} was admitted for a caller who may not call")
            key = outcome.key.id if outcome.key else None
            if key != customer.key_id(command.provider):
                self.blame(f"I7: {command.request_id} was admitted with the key {key}")
            if key and customer.own_key_cap is not None and self._made_on_own_keys(customer.id) >= customer.own_key_cap:
                self.blame(f"I13: {command.request_id} was admitted beyond the cap of {customer.own_key_cap}")
        elif isinstance(outcome, NotAuthenticated) and customer.may_call(by_token=request.by_token):
            self.blame(f"{command.request_id} was refused though its caller may call")
        elif isinstance(outcome, AllowanceExhausted):
            if customer.key_id(command.provider):
                self.blame(f"{command.request_id} on an own key was refused for the allowance")
            balance = self._balances.get((request.organization_id, self.world.clock.period), Balance(0, 0, 0))
            remaining = customer.tokens - balance.used - balance.reserved
            if remaining >= request.ceiling + (PLAIN_ANSWER if request.limit is None else request.limit):
                self.blame(f"I10: {command.request_id} was refused with {remaining} tokens left")

        elif isinstance(outcome, CapReached):
            self._judge_capped(request, customer, customer.key_id(command.provider) is not None)

    def _judge_capped(self, request: Request, customer: Customer, on_own_key: bool) -> None:
        if on_own_key:
            cap, used = customer.own_key_cap, self._made_on_own_keys(customer.id)
            if cap is None or used < cap:
                self.blame(f"I13: {request.id} on an own key was refused with {used} used of {cap}")
            return
        period = self.world.clock.period
        cap, used = customer.allowance_cap, self._made.get((customer.id, period, "allowance"), 0)
        used += sum(row.tokens for row in self._open.values() if row[1:3] == (customer.id, period))
        wanted = request.ceiling + (PLAIN_ANSWER if request.limit is None else request.limit)
        if cap is None or cap - used >= wanted:
            self.blame(f"I13: {request.id} of {wanted} tokens was refused with {used} used of {cap}")

    def _made_on_own_keys(self, organization_id: str) -> int:
        return self._made.get((organization_id, self.world.clock.period, "own_key"), 0)

    # What is committed

    def committed(self) -> None:
        """Compare the state just committed with the one before and with what is true."""
        self.transitions += 1
        self._attach_calls()
        balances, opened = self.books.balances(), self.books.reservations()
        events, adjustments = self.books.events(), self.books.adjustments()
        admitted = {key: self._admit(row) for key, row in opened.items() if key not in self._open}
        for row in opened.values():
            self._observe(row)
        for event in events:
            self._event(event)
        for adjustment in adjustments:
            self._adjust(adjustment)
        self._endings(opened)
        self._sums(balances, opened, {key for key in admitted.values() if key})
        self._balances, self._open = balances, opened

    def _admit(self, row: Open) -> tuple[str, str] | None:
        """A new reservation; returns whose allowance it draws on."""
        request = self.requests[row.request_id]
        customer = self.world.customers[row.organization_id]
        if request.held is not None or request.events:
            self.blame(f"I3: {row.request_id} was reserved a second time")
        if row.organization_id != request.organization_id:
            self.blame(f"I8: {row.request_id} draws on another organization")
        if row.period != self.world.clock.period:
            self.blame(f"I9: {row.request_id} was admitted in {row.period}, not {self.world.clock.period}")
        if customer.key_id(request.slug) and row.tokens:
            self.blame(f"I7: {row.request_id} has an own key and holds tokens")
        request.held, request.admitted_in = row.tokens, row.period
        return (row.organization_id, row.period) if row.tokens else None

    def _observe(self, row: Open) -> None:
        if row.observed:
            request = self.requests[row.request_id]
            arrived = self._notes.get((row.request_id, row.observed))
            if arrived is None:
                self.blame(f"{row.request_id} is noted at {row.observed} tokens, which nobody said")
            else:
                request.arrived_when_noted = max(request.arrived_when_noted, arrived)

    def _event(self, event: Event) -> None:
        request = self.requests.get(event.request_id)
        if request is None:
            self.blame(f"an event of {event.request_id}, which nobody made")
            return
        if request.events:
            self.blame(f"I3: {event.request_id} was settled twice")
        request.events.append(event)
        if event.billed_to == "own_key":
            if event.charged_tokens:
                self.blame(f"I7: {event.request_id} on an own key was charged {event.charged_tokens}")
        elif request.held is None:
            self.blame(f"I3: {event.request_id} was settled without a reservation")
        elif event.period != request.admitted_in:
            self.blame(f"I9: {event.request_id} of {request.admitted_in} was charged in {event.period}")
        self._grow(event.organization_id, event.period, event.charged_tokens)
        counted = event.charged_tokens if event.billed_to == "allowance" else event.input_tokens + event.output_tokens
        self._make(event.organization_id, event.period, event.billed_to, counted)
        if event.organization_id != request.organization_id:
            self.blame(f"I8: {event.request_id} was charged to another organization")
        if event.outcome == "abandoned":
            self._abandoned(request, event)
        else:
            self._ended(request, event)

    def _adjust(self, adjustment: Adjustment) -> None:
        request = self.requests[adjustment.request_id]
        if request.adjustments or not request.events or request.events[0].outcome != "abandoned":
            self.blame(f"I12: {adjustment.request_id} was corrected without need")
        request.adjustments.append(adjustment)
        if adjustment.period != request.admitted_in:
            self.blame(f"I9: the correction of {adjustment.request_id} is in {adjustment.period}")
        self._grow(adjustment.organization_id, adjustment.period, -adjustment.tokens)
        self._make(adjustment.organization_id, adjustment.period, "allowance", -adjustment.tokens)

    def _grow(self, organization_id: str, period: str, tokens: int) -> None:
        key = (organization_id, period)
        self._used[key] = self._used.get(key, 0) + tokens

    def _make(self, organization_id: str, period: str, billed_to: str, tokens: int) -> None:
        key = (organization_id, period, billed_to)
        self._made[key] = self._made.get(key, 0) + tokens

    def _ended(self, request: Request, event: Event) -> None:
        """I4, I5, I6: an event of a call that its node saw end."""
        call = request.calls[-1] if request.calls else None
        if call is None:
            self.blame(f"I6: {event.request_id} was charged and never sent")
            return
        total = event.input_tokens + event.output_tokens
        if event.billed_to == "allowance" and event.charged_tokens != total:
            self.blame(f"{event.request_id}: {total} tokens, and {event.charged_tokens} charged")
        if event.outcome == "finished":
            self._finished(request, call, event, total)
        elif event.outcome == "refused":
            if total:
                self.blame(f"I6: {event.request_id} was refused and has {total} tokens")
        else:
            self._interrupted(request, call, event, total)

    def _finished(self, request: Request, call: Upstream, event: Event, total: int) -> None:
        if not call.whole:
            self.blame(f"I4: {event.request_id} is finished, its reply is not")
        if call.reported is not None:
            if (event.input_tokens, event.output_tokens) != call.reported or event.estimated:
                said = (event.input_tokens, event.output_tokens, event.estimated)
                self.blame(f"I4: {event.request_id} used {call.reported}, the event says {said}")
        elif not event.estimated or not call.at_least <= event.output_tokens <= call.produced + SLACK:
            self.blame(f"I4: {event.request_id} produced {call.produced}, estimated {event.output_tokens}")
        elif not 0 < event.input_tokens <= request.ceiling:
            self.blame(f"I4: {event.request_id} has an input of {event.input_tokens}")

    def _interrupted(self, request: Request, call: Upstream, event: Event, total: int) -> None:
        most = max(request.ceiling, call.input_tokens) + max(call.produced, call.arrived) + SLACK
        exact = call.reported == (event.input_tokens, event.output_tokens)
        if call.script.usage == "zero":
            most = max(most, 0)
        elif call.begun and not exact and event.output_tokens < call.at_least:
            self.blame(f"I5: {event.request_id}: {call.arrived} tokens arrived, charged {event.output_tokens}")
        if call.arrived and not total and call.script.usage != "zero":
            self.blame(f"I5: {event.request_id} began and was charged nothing")
        if total > most:
            self.blame(f"I5: {event.request_id} was charged {total}, more than {most}")
        if request.held is not None and total > max(request.held, call.input_tokens + call.produced):
            self.blame(f"I5: {event.request_id} was charged {total} and held {request.held}")

    def _abandoned(self, request: Request, event: Event) -> None:
        """I3, I5: an event of a call whose node was taken for dead."""
        node, now = request.node, self.world.clock.now
        if node.alive and now - node.last_trouble > UNTROUBLED_SECONDS and now >= node.paused_until:
            self.blame(f"I3: {event.request_id} was taken for abandoned while its node was well")
        assert request.held is not None
        if event.charged_tokens > request.held:
            self.blame(f"I5: {event.request_id} was abandoned at {event.charged_tokens} and held {request.held}")
        if event.charged_tokens < min(request.held, request.arrived_when_noted + 1):
            self.blame(f"I5: {event.request_id} was abandoned at {event.charged_tokens}, less than was noted")

    def _endings(self, opened: dict[str, Open]) -> None:
        """I3: a reservation that is gone has an event, or its call was never sent."""
        for request_id in self._open.keys() - opened.keys():
            request = self.requests[request_id]
            if not request.events and request.calls:
                self.blame(f"I3: {request_id} was sent, and its reservation has vanished")

    def _sums(
        self,
        balances: dict[tuple[str, str], Balance],
        opened: dict[str, Open],
        admitted: set[tuple[str, str]],
    ) -> None:
        """I1, I2, I8, I9, I11."""
        held: dict[tuple[str, str], int] = {}
        for row in opened.values():
            held[row.organization_id, row.period] = held.get((row.organization_id, row.period), 0) + row.tokens
        for key in balances.keys() | held.keys() | self._used.keys() | self._balances.keys():
            balance, before = balances.get(key, Balance(0, 0, 0)), self._balances.get(key, Balance(0, 0, 0))
            if (balance.used, balance.reserved) != (self._used.get(key, 0), held.get(key, 0)):
                self.blame(
                    f"I2: {key} has used {balance.used} and reserved {balance.reserved}; "
                    f"its events are {self._used.get(key, 0)}, its reservations {held.get(key, 0)}"
                )
            if balance.used < 0 or balance.reserved < 0:
                self.blame(f"I1: {key} has {balance}")
            tokens = self.world.customers[key[0]].tokens
            if key in admitted:
                if balance.used + balance.reserved > tokens:
                    self.blame(f"I1: {key} admitted up to {balance} of {tokens} tokens")
                cap, made = self.world.customers[key[0]].allowance_cap, self._made.get((*key, "allowance"), 0)
                if cap is not None and made + balance.reserved > cap:
                    self.blame(f"I13: {key} admitted up to {made} and {balance.reserved} of a cap of {cap}")
                if balance.granted != tokens:
                    self.blame(f"I1: {key} was granted {balance.granted}, its plan has {tokens}")
            elif balance.reserved > before.reserved:
                self.blame(f"I1: {key} went from {before} to {balance} without an admission")
            elif balance.granted not in (before.granted, tokens):
                self.blame(f"I11: {key} went from {before} to {balance} without a plan that grants it")

    def _attach_calls(self) -> None:
        """I7: new entries of the provider's log, each with the key that it may carry."""
        log = self.world.provider.log
        for call in log[self._logged :]:
            request = self.requests[call.request_id]
            if request.calls:
                self.blame(f"{call.request_id} was sent twice")
            request.calls.append(call)
            customer = self.world.customers[request.organization_id]
            if not customer.carried(call.slug, call.key, request.started_at, call.sent_at):
                self.blame(f"I7: {call.request_id} carries {call.key!r}, which was not the key then")
            platform = customer.is_platform(call.slug, call.key)
            if platform and (request.held or 0) < call.input_tokens + (call.limit or 0):
                self.blame(f"{call.request_id} was sent with a limit of {call.limit}, and holds {request.held}")
        self._logged = len(log)

    # When all is over

    def closed(self) -> None:
        """Everything has healed and settled: nothing is open, nobody waits, nothing is lost."""
        self._attach_calls()
        for request_id in self.books.reservations():
            self.blame(f"I3: {request_id} is still open")
        events, adjustments = self.books.reread()
        if list(events) != [e for r in self.requests.values() for e in r.events] and sorted(events) != sorted(
            e for r in self.requests.values() for e in r.events
        ):
            self.blame("I12: an event was changed after it was written")
        if sorted(adjustments) != sorted(a for r in self.requests.values() for a in r.adjustments):
            self.blame("I12: a correction was changed after it was written")
        for request in self.requests.values():
            self._end_of(request)
        self.check()

    def _end_of(self, request: Request) -> None:
        if request.node.alive and not request.client.answered:
            self.blame(f"{request.id} was never answered")
        if not request.calls:
            if request.charged and not (request.events and request.events[0].outcome == "abandoned"):
                self.blame(f"I6: {request.id} was never sent and is charged {request.charged}")
            return
        call = request.calls[0]
        completed = call.whole and request.client.ended
        on_allowance = self.world.customers[request.organization_id].is_platform(call.slug, call.key)
        if not request.events:
            if on_allowance or (completed and not request.told_early):
                self.blame(f"I3: {request.id} was sent and has no event")
            return
        if completed and on_allowance and call.reported is not None and not request.told_early:
            if request.charged != sum(call.reported):
                self.blame(f"I4: {request.id} used {call.reported} and was charged {request.charged}")
        elif request.charged < 0:
            self.blame(f"{request.id} was charged {request.charged}")
