"""What capped callers may still use, inside one transaction of the writer, which holds their allowances locked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ownkey import clock
from ownkey.errors import CapReached, OwnkeyError, Unavailable
from ownkey.metering.reservations import Admit, Hold, hold_for, until_reset
from ownkey.metering.settlement import Settle
from ownkey.metering.store import AbandonedRow, CallerRow, Moment, Rows, Store
from ownkey.metering.tallies import Tally
from ownkey.token_weights import TokenWeights


class Cap(NamedTuple):
    """The most tokens that a member or a workspace may use in a month; None: no cap of that kind."""

    scope: str
    subject_id: str
    allowance: int | None
    own_key: int | None


class Tallies:
    """The tallies of this month; they outlive the batches."""

    def __init__(self) -> None:
        self.period = ""
        self.of: dict[str, Tally] = {}

    def good_for(self, period: str) -> None:
        """Forget another month's."""
        if period != self.period:
            self.period = period
            self.of.clear()


class TokensUsed(NamedTuple):
    """What one call took of the allowance and on an own key, for whom, where and in which month."""

    organization_id: str
    user_id: str | None
    workspace_id: str
    period: str
    allowance: int
    own_key: int


def tokens_used(
    store: Store, events: Rows, own_key_events: Sequence[Settle], corrections: Sequence[tuple[AbandonedRow, int]]
) -> Sequence[TokensUsed]:
    """What a batch has settled and still has to write: events as their rows, and what late ones take beyond theirs.

    A call on an own key may come again, when nobody knew whether its event had reached the database.
    """
    written = store.settled([event.request_id for event in own_key_events]) if own_key_events else ()
    used = [
        TokensUsed(e.organization_id, e.user_id, e.workspace_id, e.period, 0, e.input_tokens + e.output_tokens)
        for e in own_key_events
        if e.request_id not in written
    ]
    for row in events:
        e = Settle._make(row[:-2])  # without position and used_after
        used.append(TokensUsed(e.organization_id, e.user_id, e.workspace_id, e.period, e.charged_tokens, 0))
    for late, tokens in corrections:
        used.append(TokensUsed(late.organization_id, late.user_id, late.workspace_id, late.period, tokens, 0))
    return used


class Capped:
    """The capped callers of one batch; ``settled`` is what it has still to write."""

    def __init__(self, store: Store, tallies: Tallies, moment: Moment, settled: Sequence[TokensUsed]) -> None:
        tallies.good_for(moment.period)
        self._store = store
        self._tallies = tallies
        self._now_ms = moment.now_ms
        self._settled = settled
        self._used: dict[str, dict[str, tuple[int, int]] | None] = {}
        self._held: dict[str, dict[str, int]] = {}

    def hold(
        self, command: Admit, row: CallerRow, caps: Sequence[Cap], free: int, weights: TokenWeights | None
    ) -> Hold | OwnkeyError:
        """The hold of a call on the allowance that fits under its caller's caps, too; what is held counts at once."""
        narrowest = self.room(row.organization_id, caps)
        if isinstance(narrowest, OwnkeyError):
            return narrowest
        left, cap = narrowest or (free, caps[0])
        hold = hold_for(command, min(free, left), weights)
        if hold is None:
            by_token = row.api_token_id is not None
            return reached(cap, left, command, self._tallies.period, own_key=False, by_token=by_token)
        self.reserved(row.organization_id, caps, hold.tokens)
        return hold

    def room(self, organization_id: str, caps: Sequence[Cap]) -> tuple[int, Cap] | OwnkeyError | None:
        """Tokens of the allowance that the narrowest of the caps leaves, and which it is; None without one."""
        narrowest: tuple[int, Cap] | None = None
        for cap in caps:
            if cap.allowance is None:
                continue
            used = self._used_of(organization_id)
            if used is None:
                return _counting()
            held = self._held_of(organization_id).get(cap.subject_id, 0)
            left = max(0, cap.allowance - used.get(cap.subject_id, (0, 0))[0] - held)
            if narrowest is None or left < narrowest[0]:
                narrowest = left, cap
        return narrowest

    def reserved(self, organization_id: str, caps: Sequence[Cap], tokens: int) -> None:
        """A call of this batch holds so much."""
        held = self._held.get(organization_id)
        if held is not None:
            for cap in caps:
                held[cap.subject_id] = held.get(cap.subject_id, 0) + tokens

    def own_key_refusal(self, command: Admit, row: CallerRow, caps: Sequence[Cap]) -> OwnkeyError | None:
        """Why a call on an own key is refused, or None. Running calls hold nothing and may pass a cap."""
        organization_id, by_token = row.organization_id, row.api_token_id is not None
        for cap in caps:
            if cap.own_key is None or not command.generates:
                continue
            used = self._used_of(organization_id)
            if used is None:
                return _counting()
            if used.get(cap.subject_id, (0, 0))[1] >= cap.own_key:
                return reached(cap, 0, command, self._tallies.period, own_key=True, by_token=by_token)
        return None

    def _used_of(self, organization_id: str) -> dict[str, tuple[int, int]] | None:
        if organization_id not in self._used:
            period = self._tallies.period
            tally = self._tallies.of.setdefault(organization_id, Tally())
            used = tally.read(self._store, organization_id, period, self._now_ms)
            for one in self._settled if used is not None else ():
                if one.organization_id == organization_id and one.period == period and used is not None:
                    for subject in (one.user_id, one.workspace_id):
                        if subject is not None:
                            before = used.get(subject, (0, 0))
                            used[subject] = before[0] + one.allowance, before[1] + one.own_key
            self._used[organization_id] = used
        return self._used[organization_id]

    def _held_of(self, organization_id: str) -> dict[str, int]:
        held = self._held.get(organization_id)
        if held is None:
            held = self._held[organization_id] = {}
            for person, workspace, tokens in self._store.held_by(organization_id, self._tallies.period):
                for subject in (person, workspace):
                    if subject is not None:
                        held[subject] = held.get(subject, 0) + tokens
        return held


def reached(cap: Cap, left: int, command: Admit, period: str, *, own_key: bool, by_token: bool) -> CapReached:
    """The refusal of a call that a cap leaves no room for: says whose cap it is, and who can lift it."""
    stamp = clock.rfc3339(clock.period_end(period))
    tokens = (cap.own_key if own_key else cap.allowance) or 0
    who, billed_to = "an admin or the owner", "own_key" if own_key else "allowance"
    if cap.scope == "workspace":
        whose = "This workspace"
    else:
        whose = "The person who made this API token" if by_token else "You"
    verb = "have" if whose == "You" else "has"
    kind = "tokens a month on your organization's own keys" if own_key else "AI tokens a month of the allowance"
    what = f"{whose} {verb} a cap of {tokens:,} {kind}; {left:,} are left"
    if left > 0:
        what += f", too few for this request of up to {command.input_ceiling:,} input tokens"
    return CapReached(
        f"{what}. The count starts anew at {stamp}. {who[0].upper()}{who[1:]} of your organization can raise or lift "
        "the cap at any time.",
        detail={
            "scope": cap.scope,
            "billed_to": billed_to,
            "cap_tokens": tokens,
            "tokens_left": left,
            "resets_at": stamp,
            "who_can_act": who,
        },
        headers={**until_reset(period), "x-ownkey-billed-to": billed_to},
    )


def _counting() -> Unavailable:
    return Unavailable("The usage of this month is being counted. Try again in a moment.", headers={"retry-after": "1"})
