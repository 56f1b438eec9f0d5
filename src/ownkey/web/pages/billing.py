"""Settings → Billing: the plan, what the others include, and seats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import subscriptions
from ownkey.accounts.subscriptions import Interval
from ownkey.errors import InvalidRequest, PlanLimitReached
from ownkey.plans import Plan, plan_of
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render

_INTERVALS: tuple[Interval, ...] = ("month", "year")


@dataclass(frozen=True, slots=True)
class Seats:
    """How many people there are, how many the plan includes (None: any number), and what the others cost a month."""

    used: int
    included: int | None
    cents_each: int

    @property
    def extra(self) -> int:
        """The people beyond the included ones."""
        return 0 if self.included is None else max(0, self.used - self.included)

    @property
    def cents(self) -> int:
        """What the extra seats cost a month."""
        return self.extra * self.cents_each


async def show(request: Request) -> Response:
    """``GET /settings/billing``; with ``plan`` and ``interval``, the question before the change to that plan."""
    code = request.query_params.get("plan")
    if code is None:
        return await _page(request, None)
    node, signed_in = session.node_of(request), await session.require(request)
    return render(
        request,
        "billing_question.html",
        signed_in=signed_in,
        plan=await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue),
        new=plan_of(node.catalogue, code),
        interval=_interval(request.query_params),
        price=price,
        is_free=is_free,
    )


async def change_plan(request: Request) -> Response:
    """``POST /settings/billing``: to another plan, or from monthly to yearly."""
    form = await forms.read(request)
    node, signed_in = session.node_of(request), await session.require(request)
    code, interval = form.get("plan", ""), _interval(form)
    try:
        plan = await subscriptions.change(node.db, signed_in.actor, node.catalogue, code, interval)
    except (InvalidRequest, PlanLimitReached) as error:
        form.fail("", error.message)
        return await _page(request, form, error.status)
    rhythm = "" if is_free(plan) else ", billed yearly" if interval == "year" else ", billed monthly"
    return redirect(request, "/settings/billing", notice=f"You are on {plan.name} now{rhythm}.")


def price(plan: Plan, interval: Interval) -> int:
    """What a plan costs for a month or a year, in hundredths of its currency."""
    return plan.year_price_cents if interval == "year" else plan.month_price_cents


def is_free(plan: Plan) -> bool:
    """Whether a plan costs nothing either way, so that there is nothing to choose about when to pay."""
    return plan.month_price_cents == 0 == plan.year_price_cents


def unusual_counts(plan: Plan) -> list[str]:
    """What counts otherwise than one token as one, such as ``cached input counts 0.1``, ``gpt-5*: output counts 4``."""
    words = []
    for name, weight in plan.weights.items():
        whose, kinds = (f"{name}: ", weight) if isinstance(weight, Mapping) else ("", {name: weight})
        words += [f"{whose}{kind.replace('_', ' ')} counts {times:g}" for kind, times in kinds.items()]
    return words


def _interval(asked: Mapping[str, str]) -> Interval:
    return "year" if asked.get("interval") == "year" else "month"


async def _page(request: Request, form: Form | None, status: int = 200) -> Response:
    node, signed_in = session.node_of(request), await session.require(request)
    plan = await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue)
    people = await subscriptions.seats(node.db, signed_in.actor)
    return render(
        request,
        "billing.html",
        signed_in=signed_in,
        form=form,
        status=status,
        plan=plan,
        interval=await subscriptions.interval_of(node.db, signed_in.actor),
        intervals=_INTERVALS,
        plans=list(node.catalogue.values()),
        price=price,
        is_free=is_free,
        unusual_counts=unusual_counts,
        seats=Seats(people, plan.included_members, plan.seat_price_cents),
    )
