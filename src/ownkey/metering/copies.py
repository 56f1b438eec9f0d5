"""Rows the writer has read before, and what they tell of the batch that comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ownkey.metering.capped import Cap, Tallies
from ownkey.metering.reservations import Admit, Caller, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.store import CallerRow, Foretold, Moment
from ownkey.metering.token_uses import TokenUses
from ownkey.plans import Plan

_MOST_COPIES = 200_000


class Known(NamedTuple):
    """A caller as remembered: its row, its plan, and whether it may call; if not, ``refusal_of`` says why."""

    row: CallerRow
    plan: Plan | None
    admissible: bool
    caps: tuple[Cap, ...] = ()


@dataclass(slots=True)
class Copies:
    """Rows read before, good for as long as the facts' version stands; the version is read in every transaction.

    ``uses`` is what the database has not been told yet, and stays.
    """

    version: int = -1
    period: str = ""
    callers: dict[Caller, Known | None] = field(default_factory=dict)
    keys: dict[tuple[str, str], KeyRow | None] = field(default_factory=dict)
    tallies: Tallies = field(default_factory=Tallies)
    uses: TokenUses = field(default_factory=TokenUses)

    def good_for(self, moment: Moment) -> None:
        """Forget everything if something changed since, or if it has become too much."""
        self.period = moment.period
        if moment.version != self.version:
            self.uses.hurry()
        if moment.version != self.version or len(self.callers) + len(self.keys) > _MOST_COPIES:
            self.callers.clear()
            self.keys.clear()
            self.version = moment.version

    def know(self, row: CallerRow, plan: Plan | None, admissible: bool) -> None:
        """Remember a caller."""
        found = (
            Cap("member", row.user_id or "", row.member_allowance, row.member_own_key),
            Cap("workspace", row.workspace_id, row.workspace_allowance, row.workspace_own_key),
        )
        caps = tuple([cap for cap in found if cap.allowance is not None or cap.own_key is not None])
        self.callers[row.caller] = Known(row, plan, admissible, caps)

    def all_on_own_keys(self, admits: Sequence[Admit]) -> bool:
        """Whether these calls, if nothing has changed since the last batch, all run on own keys and need no count."""
        if self.version < 0:
            return False
        for command in admits:
            if command.fallback is not None:
                return False
            known = self.callers.get(command.caller)
            if known is None or known.plan is None or known.plan.monthly_requests_per_token is not None:
                return False
            if self.keys.get((known.row.organization_id, command.provider)) is None:
                return False
        return True

    def foretell(self, reservations: Sequence[str], settles: Sequence[Settle], admits: Sequence[Admit]) -> Foretold:
        """What these commands will need, if nothing has changed since the last batch.

        Balances are foretold all or none: all that a batch locks it must lock at once, to do so in one order. After a
        batch that failed none are, so what was foretold wrong is not twice.
        """
        if self.version < 0:
            return Foretold(reservations)
        balances = {(command.organization_id, command.period) for command in settles if command.provider_key_id is None}
        limited: set[tuple[str, str]] = set()
        for command in admits:
            if command.caller not in self.callers:
                return Foretold(reservations)
            known = self.callers[command.caller]
            if known is None:
                continue
            organization_id, token = known.row.organization_id, known.row.api_token_id
            if command.fallback is not None or self.keys.get((organization_id, command.provider)) is None:
                balances.add((organization_id, self.period))
            if token and known.plan and known.plan.monthly_requests_per_token is not None:
                limited.add((token, self.period))
        return Foretold(reservations, sorted(balances), sorted(limited))
