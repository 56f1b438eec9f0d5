"""One transaction of the writer: the settlements and admissions that were waiting, decided and made durable together.

Settlements come first, because they free room. The transaction holds every balance it touches locked, so plain
arithmetic decides each admission exactly, in order; what is written in the end is one statement a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownkey.errors import NotAuthenticated, OwnkeyError, Unavailable
from ownkey.metering.balances import Balance
from ownkey.metering.callers import not_on_allowance, refusal_of
from ownkey.metering.capped import Capped, tokens_used
from ownkey.metering.copies import Copies, Known
from ownkey.metering.fallbacks import Taken
from ownkey.metering.reservations import (
    LEASE_SECONDS,
    Admission,
    Admit,
    Caller,
    CurrentKey,
    Hold,
    KeyRow,
    exhausted,
    hold_for,
    request_limit_reached,
)
from ownkey.metering.settlement import Release, Renew, Settle
from ownkey.metering.store import AbandonedRow, CallerRow, EntryRow, Foretold, HeldRow, Moment, ReservationRow, Store
from ownkey.metering.token_uses import Made
from ownkey.metering.usage import Usage, charge
from ownkey.plans import Catalogue, Plan

_NO_HOLD = Hold(0, None)


@dataclass(frozen=True, slots=True)
class Reap:
    """Settle the reservations whose lease ran out: their node died.

    ``is_wanted`` is asked when it is about to be done, which may be long after it was asked for.
    """

    is_wanted: Callable[[], bool]


Command = Admit | CurrentKey | Settle | Release | Renew | Reap
Outcome = Admission | OwnkeyError | KeyRow | int | None


class Batch:
    """A transaction in the making. ``run`` answers each command at its place; nothing holds until it returns."""

    def __init__(self, store: Store, catalogue: Catalogue, node: str, copies: Copies) -> None:
        self.store = store
        self.catalogue = catalogue
        self.node = node
        self.copies = copies
        self.moment = Moment(0, "", 0)
        self.lease_until = 0
        self.balances: dict[tuple[str, str], Balance] = {}
        self.reservations: list[tuple[object, ...]] = []
        self.events: list[tuple[object, ...]] = []
        self.own_key_events: list[Settle] = []
        self.entries: list[EntryRow] = []
        self.corrections: list[tuple[AbandonedRow, int]] = []
        self.requests: dict[str, int] = {}
        self.made: dict[str, Made] = {}
        self.capped: Capped | None = None
        self.fallbacks: dict[tuple[str, str, str], Taken] = {}

    def run(self, commands: Sequence[Command]) -> list[Outcome]:
        """Do all commands in one transaction. Raises ``StoreFailed`` or the driver's error with nothing done.

        Everything is read first; then all balances are locked at once, in one order, so that the writers of two nodes
        never wait for each other; then it is decided, settlements first because they free room.
        """
        of: dict[type, list[Any]] = {Admit: [], Settle: [], Release: [], Renew: [], CurrentKey: [], Reap: []}
        for command in commands:
            of[type(command)].append(command)
        admits, settles, releases = of[Admit], of[Settle], of[Release]
        asked = [command.request_id for command in settles if command.provider_key_id is None]
        asked += [command.request_id for command in releases]

        def foretell() -> Foretold:
            # A renewal or the reaper locks reservations, and of what a release holds nothing is known yet: first those.
            if of[Renew] or of[Reap] or releases:
                return Foretold(asked)
            return self.copies.foretell(asked, settles, admits)

        try:
            reads_only = len(admits) == len(commands) and self.copies.all_on_own_keys(admits)
            self.moment = self.store.begin(foretell, reads_only)
            self.lease_until = self.moment.now_ms + LEASE_SECONDS * 1000
            self.copies.good_for(self.moment)
            self._renew(of[Renew])
            # A settlement that is here takes its reservation before the reaper looks for dead nodes' ones.
            taken = {row.request_id: row for row in self.store.take_reservations(asked)} if asked else {}
            wanted = any(command.is_wanted() for command in of[Reap])
            reaped = self.store.take_expired(self.moment.now_ms) if wanted else ()
            late = self._late(settles, releases, taken)
            callers = self._callers_of(admits)
            self._read_keys({(c.organization_id, c.provider) for c in of[CurrentKey]})
            self._lock(
                {row[1:3] for row in taken.values()}
                | {(row.organization_id, row.period) for row in reaped}
                | {row[1:3] for row, _ in late}
                | self._allowances_of(admits, callers)
            )
            self._settle(settles, taken, reaped)
            self._adjust(late)
            admitted = map(self._admit_one, admits, callers)
            outcomes = [
                next(admitted) if type(command) is Admit else self._outcome(command, len(reaped))
                for command in commands
            ]
            self._write()
            self.store.commit()
            self.copies.uses.written()
        except BaseException:
            self.copies.version = -1
            self.store.rollback()
            raise
        return outcomes

    def _outcome(self, command: Command, reaped: int) -> Outcome:
        if isinstance(command, CurrentKey):
            return self.copies.keys[command.organization_id, command.provider]
        return reaped if isinstance(command, Reap) else None

    def _renew(self, renewals: Sequence[Renew]) -> None:
        """First of all, so that a call that just showed life is not taken for abandoned."""
        self.store.renew([(command.observed, self.lease_until, command.request_id) for command in renewals])

    def _late(
        self, settles: Sequence[Settle], releases: Sequence[Release], taken: Mapping[str, HeldRow]
    ) -> list[tuple[AbandonedRow, int]]:
        """Calls that were taken for abandoned and end after all, with what they should be charged.

        Any other call whose reservation is gone was settled before: nothing to do.
        """
        charged = {
            c.request_id: c.charged_tokens for c in settles if c.provider_key_id is None and c.request_id not in taken
        }
        charged |= {command.request_id: 0 for command in releases if command.request_id not in taken}
        if not charged:
            return []
        found = self.store.abandoned(list(charged))
        adjusted = set(self.store.adjusted([row.request_id for row in found])) if found else set()
        return [(row, charged[row.request_id]) for row in found if row.request_id not in adjusted]

    def _settle(self, settles: Sequence[Settle], taken: dict[str, HeldRow], reaped: Sequence[ReservationRow]) -> None:
        for command in settles:
            if command.provider_key_id is not None:
                self.own_key_events.append(command)
            elif (held := taken.pop(command.request_id, None)) is not None:
                self._charge(held.period, held.tokens, command)
        for held in taken.values():  # released
            self.balances[held.organization_id, held.period].settle(held.tokens, 0)
        for row in reaped:
            self._charge(row.period, row.tokens, self._abandoned(row))

    def _charge(self, period: str, held: int, event: Settle) -> None:
        if event.period != period:  # the reservation knows better
            event = event._replace(period=period)
        balance = self.balances[event.organization_id, period]
        balance.settle(held, event.charged_tokens)
        balance.entries += 1
        self.events.append((*event, balance.entries, balance.used))

    def _abandoned(self, row: ReservationRow) -> Settle:
        """What a dead node's call is taken to have used: its input, and the output last seen."""
        usage = Usage(row.input_tokens, row.observed_tokens, estimated=True)
        plan = self.catalogue.get(row.plan)
        weights = plan.weights_for(row.model) if plan is not None else None
        return Settle(
            request_id=row.request_id,
            organization_id=row.organization_id,
            workspace_id=row.workspace_id,
            period=row.period,
            provider=row.provider,
            model=row.model,
            dialect=row.dialect,
            billed_to="allowance",
            provider_key_id=None,
            api_token_id=row.api_token_id,
            user_id=row.user_id,
            input_tokens=row.input_tokens,
            cached_input_tokens=0,
            cache_write_tokens=0,
            output_tokens=row.observed_tokens,
            reasoning_tokens=0,
            charged_tokens=min(charge(usage, "allowance", weights), row.tokens),
            estimated=True,
            outcome="abandoned",
            started_at=row.created_ms,
            duration_ms=max(0, self.moment.now_ms - row.created_ms),
        )

    def _adjust(self, late: Sequence[tuple[AbandonedRow, int]]) -> None:
        """Correct what a dead node's call was charged when it turns out not to be dead: once, in the ledger."""
        for row, charged in late:
            difference = charged - row.charged_tokens
            balance = self.balances[row.organization_id, row.period]
            balance.settle(0, difference)
            self.corrections.append((row, difference))
            self._enter(balance, "adjustment", -difference, row.request_id, "late settlement")

    def _callers_of(self, admits: Sequence[Admit]) -> list[Known | None]:
        if not admits:
            return []
        self._read_callers({command.caller for command in admits})
        known = self.copies.callers
        callers = [known[command.caller] for command in admits]
        pairs = {(k.row.organization_id, c.provider) for k, c in zip(callers, admits, strict=True) if k is not None}
        self._read_keys(pairs)
        limited = {
            (k.row.api_token_id, self.moment.period)
            for k in callers
            if k is not None and k.row.api_token_id and k.plan and k.plan.monthly_requests_per_token is not None
        }
        if limited:
            self.requests = {row[0]: row[2] for row in self.store.requests_of(list(limited))}
            for token, period in limited:
                self.requests[token] = self.requests.get(token, 0) + self.copies.uses.kept(token, period)
        return callers

    def _allowances_of(self, admits: Sequence[Admit], callers: Sequence[Known | None]) -> set[tuple[str, str]]:
        """The allowances that these calls may draw on; a call that an own key serves touches none."""
        keys, period = self.copies.keys, self.moment.period
        return {
            (known.row.organization_id, period)
            for known, command in zip(callers, admits, strict=True)
            if known is not None
            and (command.fallback is not None or keys[known.row.organization_id, command.provider] is None)
        }

    def _admit_one(self, command: Admit, known: Known | None) -> Admission | OwnkeyError:
        if known is None:
            return NotAuthenticated()
        row, plan = known.row, known.plan
        if plan is None:
            return Unavailable(f"The plan {row.plan!r} of this organization is not in the plans file.")
        if not known.admissible or plan.monthly_requests_per_token is not None:
            refusal = refusal_of(row, plan)
            if refusal is None and command.fallback is None:  # its first attempt was counted
                refusal = self._over_request_limit(row, plan)
            if refusal is not None:
                return refusal
        key = self.copies.keys[row.organization_id, command.provider]
        hold, remaining = _NO_HOLD, 0
        if key is None or command.fallback is not None:
            refusal = not_on_allowance(command)
            if refusal is not None:
                return refusal
            balance = self._granted_balance(row, plan)
            free, taken = balance.remaining, None
            if command.fallback is not None:
                taken = self._taken_by_fallbacks(row.organization_id, command.provider)
                free, key = min(free, taken.room(key)), None
            weights = plan.weights_for(command.model)
            room = hold_for(command, free, weights)
            if room is None:
                return exhausted(command, balance.remaining, self.moment.period)
            if known.caps and command.generates:
                within = self._caps().hold(command, row, known.caps, free, weights)
                if isinstance(within, OwnkeyError):
                    return within
                room = within
            hold = room
            balance.reserve(hold.tokens)
            self._reserve(command, row, hold.tokens)
            if taken is not None:
                taken.admit(command, hold.tokens)
            remaining = balance.remaining
        elif known.caps and (over := self._caps().own_key_refusal(command, row, known.caps)) is not None:
            return over
        token = row.api_token_id
        if token is not None and command.fallback is None:
            made = self.made.get(token)
            if made is None:
                exact = plan.monthly_requests_per_token is not None
                made = self.made[token] = Made(row.organization_id, self.moment.period, self.moment.now_ms, exact)
            made.requests += 1
        return Admission(
            command.request_id,
            row.organization_id,
            row.workspace_id,
            row.user_id,
            token,
            row.plan,
            key,
            self.moment.period,
            hold.tokens,
            hold.output_limit,
            remaining,
        )

    def _taken_by_fallbacks(self, organization_id: str, provider: str) -> Taken:
        """To be asked while the balance of the organization's month is locked, and all settlements are done."""
        connection = (organization_id, provider, self.moment.period)
        if connection not in self.fallbacks:
            self.fallbacks[connection] = Taken(self.store, connection, self.events, self.entries)
        return self.fallbacks[connection]

    def _caps(self) -> Capped:
        """To be asked when all settlements are done."""
        if self.capped is None:
            used = tokens_used(self.store, self.events, self.own_key_events, self.corrections)
            self.capped = Capped(self.store, self.copies.tallies, self.moment, used)
        return self.capped

    def _reserve(self, command: Admit, row: CallerRow, tokens: int) -> None:
        """A row for the store: ``RESERVATION_COLUMNS``, then node and lease."""
        self.reservations.append(
            (
                command.request_id,
                row.organization_id,
                row.workspace_id,
                self.moment.period,
                tokens,
                command.input_estimate,
                0,
                command.provider,
                command.model,
                command.dialect,
                row.api_token_id,
                row.user_id,
                self.moment.now_ms,
                self.node,
                self.lease_until,
            )
        )

    def _over_request_limit(self, row: CallerRow, plan: Plan) -> OwnkeyError | None:
        limit = plan.monthly_requests_per_token
        if limit is None or row.api_token_id is None:
            return None
        now = self.made.get(row.api_token_id)
        made = self.requests.get(row.api_token_id, 0) + (now.requests if now else 0)
        return request_limit_reached(limit, self.moment.period) if made >= limit else None

    def _granted_balance(self, row: CallerRow, plan: Plan) -> Balance:
        """The month's balance with what the plan grants now: a new month and a plan change take effect here."""
        balance = self.balances[row.organization_id, self.moment.period]
        if balance.granted != plan.monthly_tokens:
            difference = balance.grant(plan.monthly_tokens)
            self._enter(balance, "grant", difference, None, plan.code)
        return balance

    def _read_callers(self, callers: set[Caller]) -> None:
        copies = self.copies.callers
        unknown = [caller for caller in callers if caller not in copies]
        if unknown:
            copies.update(dict.fromkeys(unknown))
            for row in self.store.callers(unknown):
                plan = self.catalogue.get(row.plan)
                self.copies.know(row, plan, plan is not None and refusal_of(row, plan) is None)

    def _read_keys(self, pairs: set[tuple[str, str]]) -> None:
        unknown = [pair for pair in pairs if pair not in self.copies.keys]
        if unknown:
            self.copies.keys.update(dict.fromkeys(unknown))
            self.copies.keys.update(((row.organization_id, row.provider), row) for row in self.store.keys(unknown))

    def _lock(self, keys: Iterable[tuple[str, str]]) -> None:
        missing = sorted({key for key in keys if key not in self.balances})
        if missing:
            for organization_id, period, *figures in self.store.balances(missing):
                key = (organization_id, period)
                self.balances[key] = Balance(key, *figures)

    def _enter(self, balance: Balance, kind: str, tokens: int, request: str | None, note: str) -> None:
        """After the balance has been changed."""
        balance.entries += 1
        now = self.moment.now_ms
        self.entries.append(EntryRow(*balance.key, kind, tokens, request, note, now, balance.entries, balance.used))

    def _write(self) -> None:
        store = self.store
        store.change_balances(
            [
                (balance.granted, balance.used, balance.reserved, balance.excess, balance.entries, *balance.key)
                for balance in self.balances.values()
                if balance.touched
            ]
        )
        store.add_reservations(self.reservations)
        store.add_events(self.events)
        store.add_events_once(self.own_key_events)
        store.add_entries(self.entries)
        for taken in self.fallbacks.values():
            taken.write(store)
        store.count_requests(self.copies.uses.to_write(self.made, self.moment.now_ms))
