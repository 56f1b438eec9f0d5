"""``ownkey usage``: what an organization has used of its allowance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from ownkey import clock
from ownkey.accounts import subscriptions
from ownkey.cli.installation import installation
from ownkey.cli.numbers import whole
from ownkey.cli.output import Json, show, to_json
from ownkey.cli.parameters import Month, Org
from ownkey.db.engine import LARGEST_NUMBER
from ownkey.metering import allowances, fallback_usage, usage_events
from ownkey.metering.prices import CURRENCY

app = App(name="usage", help="What an organization has used of its allowance.")
_PAGE = 1000


@app.default
async def allowance(org: Org, /, *, month: Month = None, json: Json = False) -> None:
    """Show a month's allowance: granted, used, reserved by running calls, and left; and what the calls cost.

    Costs are at the providers' list prices, in millionths of the currency. Requests whose price is not known are
    counted as unpriced and are in no cost. Fallback tokens are those of the used ones that served requests which an
    own key could not.
    """
    period = month or clock.period_of(clock.now())
    async with installation() as here:
        _, actor = await here.organization(org)
        plan = await subscriptions.plan_of(here.db, actor, here.catalogue)
        found = await allowances.current(here.db, actor, plan, period)
        totals = await usage_events.totals(here.db, actor, period)
        fallbacks = fallback_usage.together(await fallback_usage.by_provider(here.db, actor, period))
    document = {
        "period": found.period,
        "granted": found.granted,
        "used": found.used,
        "reserved": found.reserved,
        "remaining": found.remaining,
        "resets_at": found.resets_at,
        "own_key_tokens": totals.own_key_tokens,
        "events": totals.events,
        "own_key_cost_micros": totals.own_key_cost_micros,
        "own_key_unpriced_requests": totals.own_key_unpriced_requests,
        "allowance_cost_micros": totals.allowance_cost_micros,
        "allowance_unpriced_requests": totals.allowance_unpriced_requests,
        "currency": CURRENCY,
        "fallback_requests": fallbacks.requests,
        "fallback_tokens": fallbacks.tokens,
    }
    show(document, json)


@app.command
async def events(
    org: Org,
    /,
    *,
    month: Month = None,
    since: Annotated[int, whole("Only events after the one with this id.", most=LARGEST_NUMBER)] = 0,
    json: Annotated[bool, Parameter("--json", help="Accepted for uniformity; the output is JSON either way.")] = False,
) -> None:
    """Print usage events as JSON lines, oldest first: one for each attempt at a provider.

    Without `--month`, those of all months. Note the last id and pass it as `--since` to go on from there.
    """
    async with installation() as here:
        _, actor = await here.organization(org)
        while page := await usage_events.events(here.db, actor, month, since=since, limit=_PAGE):
            for event in page:
                print(to_json(asdict(event)))
            since = page[-1].id
