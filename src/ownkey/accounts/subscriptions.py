"""Subscription: which plan an organization is on."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select, update

from ownkey import clock
from ownkey.access import Action, Actor
from ownkey.accounts import memberships, workspaces
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import subscriptions
from ownkey.errors import NotFound, PlanLimitReached
from ownkey.plans import Catalogue, Plan, plan_or_nothing
from ownkey.plans import plan_of as plan_with_code

Interval = Literal["month", "year"]


async def plan_of(db: Database, actor: Actor, catalogue: Catalogue) -> Plan:
    """The plan of the actor's organization. One that the catalogue no longer has includes nothing.

    Raises ``NotFound`` without one.
    """
    async with db.read() as tx:
        return plan_or_nothing(catalogue, await _code(tx, actor.organization_id))


async def codes_in_use(db: Database) -> set[str]:
    """The codes of all plans that organizations are on, whether the catalogue has them or not."""
    async with db.read() as tx:
        return set(await tx.scalars(select(subscriptions.c.plan).distinct()))


async def interval_of(db: Database, actor: Actor) -> Interval:
    """Whether the actor's organization pays by the month or by the year."""
    mine = subscriptions.c.organization_id == actor.organization_id
    async with db.read() as tx:
        interval = await tx.scalar(select(subscriptions.c.interval).where(mine))
    return "year" if interval == "year" else "month"


async def change(
    db: Database, actor: Actor, catalogue: Catalogue, plan_code: str, interval: Interval = "month"
) -> Plan:
    """Put the actor's organization on another plan; the next request counts on it.

    Raises ``PlanLimitReached``, naming the reason, when the organization has more workspaces than the plan includes,
    or when the plan includes fewer members than the present one and than the organization has.
    """
    new = plan_with_code(catalogue, plan_code)
    detail = {"plan": new.code, "interval": interval}
    async with perform(db, actor, Action.SUBSCRIPTION_CHANGE, actor.organization_id, detail) as tx:
        before = await _code(tx, actor.organization_id, lock=True)
        detail["before"] = before
        await _require_fits(tx, actor.organization_id, catalogue.get(before), new)
        mine = subscriptions.c.organization_id == actor.organization_id
        values = {"plan": new.code, "interval": interval, "started_at": clock.now()}
        await tx.execute(update(subscriptions).where(mine).values(**values))
    return new


async def seats(db: Database, actor: Actor) -> int:
    """How many people the actor's organization has, its owner included."""
    async with db.read() as tx:
        return await memberships.count(tx, actor.organization_id)


async def _code(tx: Transaction, organization_id: str, *, lock: bool = False) -> str:
    query = select(subscriptions.c.plan).where(subscriptions.c.organization_id == organization_id)
    code: str | None = await tx.scalar(query.with_for_update() if lock else query)
    if code is None:
        raise NotFound
    return code


async def _require_fits(tx: Transaction, organization_id: str, old: Plan | None, new: Plan) -> None:
    spaces = await workspaces.count(tx, organization_id)
    if new.workspaces is not None and spaces > new.workspaces:
        raise PlanLimitReached(
            f"The {new.name} plan includes {_counted(new.workspaces, 'workspace')}; you have {spaces}. "
            "Keep your plan, or choose a larger one."
        )
    # Members beyond the included ones are extra seats; only a step down may not make more of them.
    steps_down = old is None or old.included_members is None or _fewer(new, old.included_members)
    people = await memberships.count(tx, organization_id)
    if steps_down and _fewer(new, people):
        included = _counted(new.included_members or 0, "member")
        raise PlanLimitReached(
            f"The {new.name} plan includes {included}; you have {people}. Remove members, or choose a larger plan."
        )


def _fewer(plan: Plan, number: int) -> bool:
    return plan.included_members is not None and plan.included_members < number


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
