"""Settings → Billing: plans side by side, seats, and changing the plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from ownkey import app
from ownkey.access import Role
from ownkey.accounts import memberships, subscriptions
from ownkey.db import tables
from ownkey.node import Node
from tests.web.conftest import Acme, Browser

pytestmark = pytest.mark.anyio

PATH = "/settings/billing"


async def test_plans_side_by_side(client_for: Callable[[str], Browser]) -> None:
    """Every plan stands in the table with all it includes, the current one marked, the others to choose."""
    page = await client_for("owner").page(PATH)
    assert "Professional Current plan" in page.text
    for row in (
        "AI tokens a month 100,000 2,000,000 20,000,000 200,000,000",
        "Workspaces 1 3 20 Unlimited",
        "Included members 1 5 25 100",
        "API access No Yes Yes Yes",
        "Price a month Free Choose $29 Choose $149 Current $999 Choose",
    ):
        assert row in page.text
    for each, rhythms in (("free", ["month"]), ("professional", ["year"]), ("enterprise", ["month", "year"])):
        chosen = [link for link in page.links if link.startswith(f"{PATH}?plan={each}&")]
        assert chosen == [f"{PATH}?plan={each}&interval={rhythm}" for rhythm in rhythms]


async def test_a_change_is_asked_for(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Choosing a plan leads to a question that names it and its price; only the answer to it changes anything."""
    browser = client_for("owner")
    overview = await browser.page(PATH)
    assert [form for form in overview.forms if form.action == PATH] == []
    page = await browser.page(f"{PATH}?plan=enterprise&interval=year")
    assert page.h1 == ["Change to Enterprise, billed yearly?"]
    assert "Acme is on Professional now. Enterprise costs $9,990 a year" in page.text
    form = page.form(PATH)
    assert (form.fields["plan"], form.fields["interval"], form.buttons) == ("enterprise", "year", ["Change plan"])
    assert (await subscriptions.plan_of(node.db, acme.actor("owner"), node.catalogue)).code == "professional"
    assert (await browser.page(f"{PATH}?plan=free&interval=year")).h1 == ["Change to Free?"]
    assert (await browser.get(f"{PATH}?plan=gold")).status_code == 400


async def test_what_tokens_count(client_for: Callable[[str], Browser], node: Node) -> None:
    """Where a plan weighs tokens its page says so, in the table and of the current plan; elsewhere nothing of it."""
    assert "counts as one" not in (await client_for("owner").page(PATH)).text
    weighed = {"cached_input": 0.1, "gpt-5*": {"output": 4}}
    changed = node.catalogue["professional"].model_copy(update={"weights": weighed})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(node.catalogue, "professional", changed)
        page = await client_for("owner").page(PATH)
    assert "but on this plan: cached input counts 0.1; gpt-5*: output counts 4." in page.text
    assert "One token counts as one, but – – cached input counts 0.1; gpt-5*: output counts 4 –" in page.text


async def test_change(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Choosing a plan puts the organization on it, monthly or yearly."""
    browser = client_for("owner")
    reply = await browser.send(PATH, {"plan": "enterprise", "interval": "year"})
    assert "You are on Enterprise now, billed yearly." in await browser.notice(reply)
    assert (await subscriptions.plan_of(node.db, acme.actor("owner"), node.catalogue)).code == "enterprise"
    assert await subscriptions.interval_of(node.db, acme.actor("owner")) == "year"
    assert "$9,990 a year" in (await browser.page(PATH)).text


async def test_a_downgrade_that_does_not_fit(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A plan with fewer members than there are is refused with the reason, on the page itself; nothing changes."""
    reply = await client_for("owner").send(PATH, {"plan": "free", "interval": "month"})
    assert reply.status_code == 409
    assert "The Free plan includes 1 member; you have 4." in reply.text
    assert (await subscriptions.plan_of(node.db, acme.actor("owner"), node.catalogue)).code == "professional"


@pytest.mark.parametrize("plan", ["", "gold", "free\r\n"])
async def test_no_such_plan(client_for: Callable[[str], Browser], plan: str) -> None:
    """An unknown plan is refused with the ones there are."""
    reply = await client_for("owner").send(PATH, {"plan": plan})
    assert reply.status_code == 400
    assert "free, starter, professional, enterprise" in reply.text


async def test_extra_seats(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Members beyond the included ones are shown as extra seats with their price."""
    await subscriptions.change(node.db, acme.operator(), node.catalogue, "starter")
    for number in range(3):
        email = f"new{number}@acme.test"
        plan = node.catalogue["starter"]
        await memberships.add(node.db, acme.operator(), email, Role.USER, acme.workspace.id, plan)
    text = (await client_for("owner").page(PATH)).text
    assert "Members 7 5 included" in text
    assert "Extra seats 2 $10 a month" in text


async def test_a_plan_taken_out_of_the_file(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """An organization whose plan is gone is named at the start, still opens every page, and can choose another plan."""
    async with node.db.transaction() as tx:
        mine = tables.subscriptions.c.organization_id == acme.organization.id
        await tx.execute(update(tables.subscriptions).where(mine).values(plan="gone"))
    with capture_logs() as logs:
        started = await app.open_node(node.settings)
        await started.db.close()
    assert [entry["plans"] for entry in logs if "plans" in entry] == [["gone"]]
    owner = client_for("owner")
    for name in ("workspace", "members", "integrations", "usage", "developer", "organization", "audit", "billing"):
        await owner.page(f"/settings/{name}")
    assert "AI is paused until you choose another one" in (await owner.page("/assistant")).text
    assert "AI is paused until the owner chooses another one" in (await client_for("user").page("/assistant")).text
    page = await owner.page(PATH)
    assert "gone (no longer offered) Current plan It includes no AI tokens any more." in page.text
    assert "no payment" not in page.text
    assert all(f'"Choose {plan.name}' in page.html for plan in node.catalogue.values())
    reply = await owner.send(PATH, {"plan": "starter"})
    assert "You are on Starter now" in await owner.notice(reply)
    assert "AI is paused" not in (await owner.page("/assistant")).text
