"""The allowance of a month: granted, used, reserved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import allowances
from ownkey.plans import Plan


@dataclass(frozen=True, slots=True)
class Allowance:
    """The tokens an organization may use in a month, for showing. Admissions decide in ``metering/batch.py``."""

    period: str
    granted: int
    used: int
    reserved: int
    resets_at: datetime

    @property
    def remaining(self) -> int:
        """What is left to reserve; never negative, also after a downgrade below what is used."""
        return max(0, self.granted - self.used - self.reserved)

    @property
    def exhausted(self) -> bool:
        """Nothing is left."""
        return self.remaining == 0


async def current(db: Database, actor: Actor, plan: Plan, period: str | None = None) -> Allowance:
    """The allowance of the actor's organization in a month (default: this one)."""
    this_period = clock.period_of(clock.now())
    period = period or this_period
    table = allowances.c
    async with db.read() as tx:
        row = (
            await tx.execute(
                select(table.granted_tokens, table.used_tokens, table.reserved_tokens).where(
                    table.organization_id == actor.organization_id, table.period == period
                )
            )
        ).first()
    granted, used, reserved = (row[0], row[1], row[2]) if row else (plan.monthly_tokens, 0, 0)
    if period == this_period:
        granted = plan.monthly_tokens  # a plan change is written with the next call, and counts for it
    return Allowance(period, granted, used, reserved, clock.period_end(period))
