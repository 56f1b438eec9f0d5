"""What the organization has used: the allowance of a month, sums, and every event."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from fastapi import Query

from ownkey import clock
from ownkey.accounts import subscriptions
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Page, Period, Shown
from ownkey.db.engine import LARGEST_NUMBER
from ownkey.metering import alerts, allowances, fallback_usage, usage_events
from ownkey.metering.prices import CURRENCY


class Allowance(Shown):
    """A month's tokens, and what those on own keys cost. ``remaining`` is what calls neither have used nor hold.

    Costs are at the providers' list prices, in millionths of ``currency``; requests whose price is not known are
    counted as unpriced and are in no cost. ``fallback_tokens`` are those of ``used`` that served requests which an own
    key could not.
    """

    period: str
    granted: int
    used: int
    reserved: int
    remaining: int
    resets_at: datetime
    own_key_tokens: int
    events: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int
    currency: str
    fallback_requests: int
    fallback_tokens: int


class Alert(Shown):
    """A share of the allowance, in per cent, that was used up: told once a month each for 50, 80 and 100.

    ``mailed_at`` is null while nobody was told by mail; an alert outdone by a higher one at once is mailed with that.
    """

    threshold: int
    reached_at: datetime
    mailed_at: datetime | None
    recipients: int


class Day(Shown):
    """Tokens of one day (UTC)."""

    day: date
    allowance_tokens: int
    own_key_tokens: int


class Member(Shown):
    """Tokens and requests of a person (``user``) or of a token (``api_token``), and the cost on own keys."""

    label: str
    kind: str
    allowance_tokens: int
    own_key_tokens: int
    requests: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int
    currency: str = CURRENCY


class Provider(Shown):
    """Tokens and requests at one provider, and the cost on own keys."""

    provider: str
    allowance_tokens: int
    own_key_tokens: int
    requests: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int
    currency: str = CURRENCY


class Event(Shown):
    """One attempt at a provider: what it used, and who paid.

    ``cost_micros`` is the cost at the provider's list price, in millionths of ``currency``; null: not known.
    ``fallback`` says why the allowance served a request that an own key could not, ``rate_limit`` or ``outage``, and
    ``fallback_of`` is the ``request_id`` of the attempt on that key. For who may not list members, ``member`` is null
    in events of others, and ``workspace`` empty where they are not themselves.
    """

    id: int
    request_id: str
    provider: str
    model: str
    dialect: str
    billed_to: str
    provider_key_id: str | None
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    charged_tokens: int
    estimated: bool
    outcome: str
    started_at: datetime
    duration_ms: int
    member: str | None
    workspace: str
    cost_micros: int | None
    currency: str
    fallback: str | None
    fallback_of: str | None


async def allowance(node: Here, actor: Caller, period: Period = None) -> Allowance:
    """Show the allowance of a month."""
    month = _month(period)
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    found = await allowances.current(node.db, actor, plan, month)
    totals = await usage_events.totals(node.db, actor, month)
    fallbacks = fallback_usage.together(await fallback_usage.by_provider(node.db, actor, month))
    return Allowance(
        period=found.period,
        granted=found.granted,
        used=found.used,
        reserved=found.reserved,
        remaining=found.remaining,
        resets_at=found.resets_at,
        own_key_tokens=totals.own_key_tokens,
        events=totals.events,
        own_key_cost_micros=totals.own_key_cost_micros,
        own_key_unpriced_requests=totals.own_key_unpriced_requests,
        currency=CURRENCY,
        fallback_requests=fallbacks.requests,
        fallback_tokens=fallbacks.tokens,
    )


async def list_alerts(node: Here, actor: Caller, period: Period = None) -> Page[Alert]:
    """List the alerts about a month's allowance, lowest first."""
    found = await alerts.list_alerts(node.db, actor, _month(period))
    return Page(items=[Alert.model_validate(alert) for alert in found])


async def by_day(node: Here, actor: Caller, period: Period = None) -> Page[Day]:
    """Sum a month by day; days without usage are left out."""
    found = await usage_events.by_day(node.db, actor, _month(period))
    return Page(items=[Day.model_validate(row) for row in found])


async def by_member(node: Here, actor: Caller, period: Period = None) -> Page[Member]:
    """Sum a month by person and by API token, most first."""
    found = await usage_events.by_member(node.db, actor, _month(period))
    return Page(items=[Member.model_validate(row) for row in found])


async def by_provider(node: Here, actor: Caller, period: Period = None) -> Page[Provider]:
    """Sum a month by provider, most first."""
    found = await usage_events.by_provider(node.db, actor, _month(period))
    return Page(items=[Provider.model_validate(row) for row in found])


async def events(
    node: Here,
    actor: Caller,
    period: Annotated[str | None, Query(description="Only this month, as `2026-11`.")] = None,
    since: Annotated[int, Query(ge=0, le=LARGEST_NUMBER, description="Only events after the one with this id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most this many.")] = 100,
) -> Page[Event]:
    """List events, oldest first. `next` is the `since` of the next page."""
    month = clock.parse_begun_period(period) if period else None
    found = await usage_events.events(node.db, actor, month, since=since, limit=limit)
    following = found[-1].id if len(found) == limit else None
    return Page(items=[Event.model_validate(event) for event in found], next=following)


def _month(period: str | None) -> str:
    return clock.parse_begun_period(period) if period else clock.period_of(clock.now())
