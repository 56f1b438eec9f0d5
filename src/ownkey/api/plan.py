"""The subscription: the organization's plan and the ones there are."""

from __future__ import annotations

from typing import Literal

from ownkey import plans
from ownkey.accounts import subscriptions
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Given, Page, Shown


class Plan(Shown):
    """A plan and what it includes; null is unlimited. Prices are in hundredths of the currency."""

    code: str
    name: str
    monthly_tokens: int
    workspaces: int | None
    included_members: int | None
    api_access: bool
    monthly_requests_per_token: int | None
    month_price_cents: int
    year_price_cents: int
    seat_price_cents: int
    currency: str


class Subscription(Shown):
    """The plan in force, how it is paid, and how many members take a seat."""

    plan: Plan
    interval: str
    members: int
    extra_seats: int


class PlanChange(Given):
    """Which plan to take."""

    plan: str
    interval: Literal["month", "year"] = "month"


async def list_plans(node: Here, actor: Caller) -> Page[Plan]:
    """List the plans, cheapest first."""
    return Page(items=[Plan.model_validate(plan) for plan in node.catalogue.values()])


async def show(node: Here, actor: Caller) -> Subscription:
    """Show the organization's plan."""
    plan: plans.Plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    members = await subscriptions.seats(node.db, actor)
    included = plan.included_members
    return Subscription(
        plan=Plan.model_validate(plan),
        interval=await subscriptions.interval_of(node.db, actor),
        members=members,
        extra_seats=0 if included is None else max(0, members - included),
    )


async def change(node: Here, actor: Caller, given: PlanChange) -> Subscription:
    """Change the plan; the next call counts on it. A plan too small for the organization is refused."""
    await subscriptions.change(node.db, actor, node.catalogue, given.plan, given.interval)
    return await show(node, actor)
