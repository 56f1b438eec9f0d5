"""The immutable record of each call, and the sums that pages and commands show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Row, case, cast, func, literal, select, true

from ownkey.access import Action, Actor
from ownkey.db.engine import Database
from ownkey.db.tables import api_tokens, memberships, usage_events, users, workspaces
from ownkey.db.usage_tables import CHARGED, corrected_events, fallback_calls, model_prices
from ownkey.metering.prices import APPLIES, COST, CURRENCY, UNPRICED

_DAY_MS = 86_400_000
_table = usage_events.c
_total = _table.input_tokens + _table.output_tokens


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What one attempt at a provider used, and who paid.

    ``cost_micros`` is what that costs at the provider's list price, in millionths of the currency, whoever pays it;
    None when the price is not known. ``fallback`` says why the allowance served a call that an own key could not
    (``rate_limit`` or ``outage``), and ``fallback_of`` is the request id of that attempt.
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


@dataclass(frozen=True, slots=True)
class Totals:
    """Tokens of a month: charged to the allowance, and served by own keys; the number of events, and their cost.

    Costs are at the providers' list prices, in millionths of a dollar, without the ``unpriced`` requests, whose price
    is not known.
    """

    allowance_tokens: int
    own_key_tokens: int
    events: int
    allowance_cost_micros: int
    allowance_unpriced_requests: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int


@dataclass(frozen=True, slots=True)
class DayUsage:
    """Tokens of one day (UTC)."""

    day: date
    allowance_tokens: int
    own_key_tokens: int


@dataclass(frozen=True, slots=True)
class MemberUsage:
    """Tokens and requests of one person, or of one API token."""

    label: str
    kind: str
    allowance_tokens: int
    own_key_tokens: int
    requests: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int


@dataclass(frozen=True, slots=True)
class ProviderUsage:
    """Tokens and requests at one provider (its slug)."""

    provider: str
    allowance_tokens: int
    own_key_tokens: int
    requests: int
    own_key_cost_micros: int
    own_key_unpriced_requests: int


def _sum(value: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL sums a bigint to a numeric; we want a whole number from both.
    return cast(func.coalesce(func.sum(value), 0), BigInteger)


_allowance = _sum(CHARGED)
_own_key = _sum(case((_table.billed_to == "own_key", _total), else_=0))


def _cost(billed_to: str) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """The cost of what was billed so, and how many of its events have no known price."""
    mine = _table.billed_to == billed_to
    return _sum(case((mine, COST), else_=0)), _sum(case((mine & UNPRICED, 1), else_=0))


_priced = corrected_events.outerjoin(model_prices, APPLIES)
_own_key_cost = _cost("own_key")


def _of(actor: Actor, period: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _table.organization_id == actor.organization_id, _table.period == period


async def totals(db: Database, actor: Actor, period: str) -> Totals:
    """The month's sums for the actor's organization."""
    costs = (*_cost("allowance"), *_own_key_cost)
    query = select(_allowance, _own_key, func.count(), *costs).select_from(_priced).where(*_of(actor, period))
    async with db.read() as tx:
        return Totals(*(await tx.execute(query)).one())


async def by_day(db: Database, actor: Actor, period: str) -> Sequence[DayUsage]:
    """Days of the month with usage, in order. A call counts on the day it started."""
    # Milliseconds divided as whole numbers, on both databases.
    day = cast(_table.started_at, BigInteger).op("/")(_DAY_MS).label("day")
    query = (
        select(day, _allowance, _own_key)
        .select_from(corrected_events)
        .where(*_of(actor, period))
        .group_by(day)
        .order_by(day)
    )
    async with db.read() as tx:
        rows = (await tx.execute(query)).all()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [DayUsage((epoch + timedelta(days=int(row[0]))).date(), row[1], row[2]) for row in rows]


async def by_member(db: Database, actor: Actor, period: str) -> Sequence[MemberUsage]:
    """Who used how much, most first: people, and API tokens by their name."""
    query = (
        select(users.c.email, users.c.name, api_tokens.c.name, _allowance, _own_key, func.count(), *_own_key_cost)
        .select_from(
            _priced.outerjoin(users, (users.c.id == _table.user_id) & _table.api_token_id.is_(None)).outerjoin(
                api_tokens, api_tokens.c.id == _table.api_token_id
            )
        )
        .where(*_of(actor, period))
        .group_by(users.c.email, users.c.name, _table.api_token_id, api_tokens.c.name)
        .order_by(_sum(_total).desc())
    )
    async with db.read() as tx:
        rows = (await tx.execute(query)).all()
    return [
        MemberUsage(token or name or email or "Unknown", "api_token" if token else "user", *sums)
        for email, name, token, *sums in rows
    ]


async def by_provider(db: Database, actor: Actor, period: str) -> Sequence[ProviderUsage]:
    """Usage at each provider, most first."""
    query = (
        select(_table.provider, _allowance, _own_key, func.count(), *_own_key_cost)
        .select_from(_priced)
        .where(*_of(actor, period))
        .group_by(_table.provider)
        .order_by(_sum(_total).desc())
    )
    async with db.read() as tx:
        return [ProviderUsage(*row) for row in (await tx.execute(query)).all()]


async def events(
    db: Database, actor: Actor, period: str | None = None, since: int = 0, limit: int = 1000
) -> Sequence[UsageEvent]:
    """The organization's events after the one with id ``since``, oldest first, at most ``limit``.

    Who may not see the members is told of their own events only whose they are, and of those in their own workspaces
    only where they were made; ``member`` is None and ``workspace`` empty in all others.
    """
    own, here = _told(actor)
    query = (
        select(
            usage_events,
            users.c.email.label("member"),
            func.coalesce(workspaces.c.name, "").label("workspace"),
            COST.label("cost_micros"),
            literal(CURRENCY).label("currency"),
            fallback_calls.c.reason.label("fallback"),
            fallback_calls.c.after_request_id.label("fallback_of"),
        )
        .select_from(
            _priced.outerjoin(users, (users.c.id == _table.user_id) & own)
            .outerjoin(workspaces, (workspaces.c.id == _table.workspace_id) & here)
            .outerjoin(fallback_calls, fallback_calls.c.request_id == _table.request_id)
        )
        .where(_table.organization_id == actor.organization_id, _table.id > since)
        .order_by(_table.id)
        .limit(limit)
    )
    if period:
        query = query.where(_table.period == period)
    async with db.read() as tx:
        return [_event(row) for row in (await tx.execute(query)).all()]


def _told(actor: Actor) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The events whose person, and those whose workspace, this actor may know: as the pages list people and places."""
    if actor.may(Action.MEMBERSHIP_READ):
        return true(), true()
    mine = select(memberships.c.workspace_id).where(
        memberships.c.organization_id == actor.organization_id, memberships.c.user_id == actor.user_id
    )
    here = _table.workspace_id.in_(mine) | (_table.workspace_id == actor.workspace_id)
    return _table.user_id == actor.user_id, here


def _event(row: Row[Any]) -> UsageEvent:
    return UsageEvent(**{name: row._mapping[name] for name in UsageEvent.__slots__})
