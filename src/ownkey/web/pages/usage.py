"""Settings → Usage: the allowance of a month, who and what used it, and what own keys served."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from ownkey import clock
from ownkey.access import Action
from ownkey.accounts import caps
from ownkey.metering import alerts, allowances, fallback_usage, usage_events
from ownkey.metering.usage_events import ProviderUsage
from ownkey.web import charts, session, standing
from ownkey.web.rendering import render

_MONTHS_SHOWN = 12


async def show(request: Request) -> Response:
    """``GET /settings/usage?month=2026-11``: everyone. Raises ``InvalidRequest`` for what is no month so far."""
    signed_in = await session.require(request)
    node, actor = session.node_of(request), signed_in.actor
    this_month = clock.period_of(clock.now())
    period = clock.parse_begun_period(request.query_params.get("month") or this_month)
    now = await standing.of(node, signed_in)
    providers = await usage_events.by_provider(node.db, actor, period)
    days = await usage_events.by_day(node.db, actor, period)
    return render(
        request,
        "usage.html",
        signed_in=signed_in,
        standing=now,
        period=period,
        is_this_month=period == this_month,
        months=months_back(this_month),
        allowance=await allowances.current(node.db, actor, now.plan, period),
        alerts={alert.threshold: alert for alert in await alerts.list_alerts(node.db, actor, period)},
        thresholds=alerts.THRESHOLDS,
        can_mail=node.mailer.can_send,
        totals=_together(providers),
        fallbacks=await fallback_usage.by_provider(node.db, actor, period),
        days=days,
        chart=charts.by_day(period, days),
        # Who used how much is for those who may see the members.
        members=await usage_events.by_member(node.db, actor, period) if actor.may(Action.MEMBERSHIP_READ) else None,
        # Those that hold for whoever looks, this month.
        caps=await caps.on_actor(node.db, actor) if period == this_month else (),
        providers=providers,
        provider_names={slug: provider.name for slug, provider in node.providers.items()},
    )


def _together(providers: Sequence[ProviderUsage]) -> ProviderUsage:
    """What all providers come to. From their sums: adding up a month's events is the slow part of this page."""
    return ProviderUsage(
        "",
        sum(row.allowance_tokens for row in providers),
        sum(row.own_key_tokens for row in providers),
        sum(row.requests for row in providers),
        sum(row.own_key_cost_micros for row in providers),
        sum(row.own_key_unpriced_requests for row in providers),
    )


def months_back(period: str, count: int = _MONTHS_SHOWN) -> Sequence[str]:
    """A month and the ones before it, newest first."""
    months = [period]
    while len(months) < count:
        months.append(clock.period_of(clock.period_start(months[-1]) - timedelta(days=1)))
    return months
