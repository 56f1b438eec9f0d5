"""``ownkey plans``: what there is to subscribe to, and who is on what.

The database's libraries are loaded by the command that needs them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from ownkey.cli.configuration import configured
from ownkey.cli.output import Json, show
from ownkey.cli.parameters import Org
from ownkey.plans import read_catalogue

app = App(name="plans", help="What there is to subscribe to, and who is on what.")


@app.command(name="list")
def list_plans(*, json: Json = False) -> None:
    """List the plans: those of the operator's plans file, or the default."""
    catalogue = read_catalogue(configured().plans_file)
    if json:
        show([plan.model_dump() for plan in catalogue.values()], json)
        return
    show(
        [
            {
                "plan": plan.code,
                "name": plan.name,
                "tokens a month": plan.monthly_tokens,
                "workspaces": "unlimited" if plan.workspaces is None else plan.workspaces,
                "members": "unlimited" if plan.included_members is None else plan.included_members,
                "API": plan.api_access,
                "a month": _price(plan.month_price_cents, plan.currency),
                "a year": _price(plan.year_price_cents, plan.currency),
            }
            for plan in catalogue.values()
        ],
        json,
    )


@app.command(name="set")
async def set_plan(
    org: Org,
    plan: Annotated[str, Parameter(help="The plan's code.")],
    /,
    *,
    interval: Annotated[Literal["month", "year"], Parameter(help="How it is paid.")] = "month",
    json: Json = False,
) -> None:
    """Put an organization on a plan; it counts at the next call."""
    from ownkey.accounts import subscriptions
    from ownkey.cli.installation import installation

    async with installation() as here:
        organization, actor = await here.organization(org)
        chosen = await subscriptions.change(here.db, actor, here.catalogue, plan, interval)
    document = {
        "id": organization.id,
        "plan": chosen.code,
        "interval": interval,
        "monthly_tokens": chosen.monthly_tokens,
    }
    show(document, json)


def _price(cents: int, currency: str) -> str:
    return f"{cents / 100:,.2f} {currency}" if cents else "–"
