"""Settings → Usage: the numbers of the month, for everyone, and only the organization's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from itertools import count

import pytest
from sqlalchemy import insert

from ownkey import clock
from ownkey.accounts import caps
from ownkey.credentials import Secret
from ownkey.db.tables import allowances, usage_events
from ownkey.metering import alerts, prices
from ownkey.metering.alerts import Lookout
from ownkey.metering.usage_events import DayUsage
from ownkey.node import Node
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.vault import provider_keys
from ownkey.web import charts, formatting
from ownkey.web.pages import usage
from tests.web.conftest import Acme, Browser

pytestmark = pytest.mark.anyio

PATH = "/settings/usage"
THIS_MONTH = clock.period_of(clock.now())
_numbers = count(1)


async def spend(
    node: Node,
    acme: Acme,
    tokens: int,
    *,
    billed_to: str = "allowance",
    provider: str = "openai",
    by: str = "user",
    period: str = THIS_MONTH,
) -> None:
    """Write a usage event as a settlement would."""
    async with node.db.transaction() as tx:
        await tx.execute(
            insert(usage_events).values(
                request_id=f"req_{next(_numbers)}",
                organization_id=acme.organization.id,
                workspace_id=acme.workspace.id,
                period=period,
                provider=provider,
                model="a-model",
                dialect="openai",
                billed_to=billed_to,
                user_id=acme.people[by].id,
                input_tokens=tokens,
                cached_input_tokens=0,
                cache_write_tokens=0,
                output_tokens=0,
                reasoning_tokens=0,
                charged_tokens=0 if billed_to == "own_key" else tokens,
                estimated=False,
                outcome="finished",
                started_at=max(clock.period_start(period), clock.now().replace(microsecond=0))
                if period == THIS_MONTH
                else clock.period_start(period),
                duration_ms=5,
                # What no page shows.
                position=None if billed_to == "own_key" else 1,
                used_after=None if billed_to == "own_key" else tokens,
            )
        )


async def stand(node: Node, acme: Acme, used: int, reserved: int = 0, period: str = THIS_MONTH) -> None:
    """Write the month's allowance row."""
    plan = node.catalogue["professional"]
    async with node.db.transaction() as tx:
        await tx.execute(
            insert(allowances).values(
                organization_id=acme.organization.id,
                period=period,
                granted_tokens=plan.monthly_tokens,
                used_tokens=used,
                reserved_tokens=reserved,
                excess_tokens=0,
            )
        )


@pytest.mark.parametrize("role", ["user", "developer", "admin", "owner"])
async def test_numbers(role: str, node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Everyone reads what is used, what remains, what is set aside, and when it resets; own keys stand apart."""
    await spend(node, acme, 1_234_567)
    await spend(node, acme, 777, billed_to="own_key", provider="anthropic")
    await stand(node, acme, 1_234_567, reserved=4_321)
    page = await client_for(role).page(PATH)
    assert "1,234,567 of 20,000,000 tokens used" in page.text
    assert "18,761,112 remaining" in page.text
    assert "4,321" in page.text
    assert "777" in page.text
    assert clock.rfc3339(clock.period_end(THIS_MONTH)) in page.html
    for name in ("OpenAI", "Anthropic"):
        assert f'<th scope="row">{name}</th>' in page.html


async def test_by_member_is_for_those_who_see_members(
    node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """Who used how much is on the page of admins and the owner, and on nobody else's."""
    await spend(node, acme, 500, by="developer")
    for role in ("admin", "owner"):
        assert "Developer Name" in (await client_for(role).page(PATH)).text
    assert "By member" not in (await client_for("user").page(PATH)).text


async def test_chart_and_table(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Days are drawn without script or inline style, and stand in a table as numbers."""
    await spend(node, acme, 500)
    await spend(node, acme, 250, billed_to="own_key")
    page = await client_for("user").page(PATH)
    assert page.html.count('class="bar-allowance"') == 1
    assert page.html.count('class="bar-own-key"') == 1
    assert page.inline_code == []
    assert "Numbers by day" in page.text


async def test_nothing_used_yet(client_for: Callable[[str], Browser]) -> None:
    """A month without usage says so."""
    assert "No usage in" in (await client_for("user").page(PATH)).text


async def test_another_month(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """An earlier month shows its own numbers, and what was granted then."""
    last = usage.months_back(THIS_MONTH)[1]
    await spend(node, acme, 4_242, period=last)
    await stand(node, acme, 4_242, period=last)
    page = await client_for("user").page(f"{PATH}?month={last}")
    assert "4,242 of 20,000,000 tokens used" in page.text
    assert "Ended on" in page.text
    assert "4,242" not in (await client_for("user").page(PATH)).text


@pytest.mark.parametrize(
    "month", ["2026-13", "november", "2026-1", "9999-01", "9999-12", "0000-01", "٢٠٢٦-11", "' OR 1=1", "2026-11-01"]
)
async def test_wrong_month(month: str, client_for: Callable[[str], Browser]) -> None:
    """What is no month, or has not begun, is a 400 page that says so."""
    reply = await client_for("user").get(PATH, params={"month": month})
    assert reply.status_code == 400
    assert "is not a month" in reply.text or "has not begun" in reply.text


@pytest.mark.parametrize(
    ("role", "way_out"),
    [
        ("user", "Ask Admin Name, Owner Name to connect a provider key"),
        ("developer", "Ask Admin Name, Owner Name to connect a provider key"),
        ("admin", "Connect your own provider key under Settings → Integrations to go on at once."),
        ("owner", "or choose a larger plan"),
    ],
)
async def test_used_up(role: str, way_out: str, node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """When the allowance is used up, the page says until when, and what this person can do."""
    await stand(node, acme, node.catalogue["professional"].monthly_tokens)
    text = (await client_for(role).page(PATH)).text
    assert "The allowance of this month is used up." in text
    assert way_out in text


async def test_used_up_with_an_own_key(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """With an own key AI goes on there, and the page says so."""
    await stand(node, acme, node.catalogue["professional"].monthly_tokens)
    openai = registry.PROVIDERS["openai"]
    await provider_keys.save(node.db, node.keyring, acme.actor("admin"), openai, Secret("sk-x" * 9), Health.ACTIVE)
    assert "AI goes on with your own key for OpenAI" in (await client_for("user").page(PATH)).text


async def test_before_it_is_used_up(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """From 80 % on the page says what will happen, and who can see to it that it does not."""
    await stand(node, acme, 16_000_000)
    assert "80 % of this month's tokens are used." in (await client_for("user").page(PATH)).text
    assert (
        "Admin Name, Owner Name can connect a provider key before that."
        in (await client_for("developer").page(PATH)).text
    )
    assert "and so it does on a larger plan" in (await client_for("owner").page(PATH)).text


async def test_alerts(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Everyone sees which alerts there were, and whether anybody was told by mail; other months have their own."""
    assert (await client_for("user").page(PATH)).text.count("Not reached") == 3
    await stand(node, acme, 20_000_000)
    await Lookout().look(node.db)
    page = await client_for("user").page(PATH)
    assert "Not reached" not in page.text
    assert "This installation sends no mail" in page.text
    [*_, last] = await alerts.list_alerts(node.db, acme.actor("user"), THIS_MONTH)
    await alerts.note_mailed(node.db, last, 2)
    assert "mailed to 2 people" in (await client_for("user").page(PATH)).text
    earlier = await client_for("user").page(f"{PATH}?month={usage.months_back(THIS_MONTH)[1]}")
    assert earlier.text.count("Not reached") == 3
    assert (await client_for("outsider").page(PATH)).text.count("Not reached") == 3


async def test_costs(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """What own keys served has a cost, by provider and by member; a price that is not known is never a sum of 0."""
    await prices.save(node.db, "1.0", {("openai", "a-model"): [(0, 1440, 0, None, 5_000_000, 0, 0, 0)]})
    await spend(node, acme, 2_000)
    assert "Cost on own keys Unknown" not in (await client_for("admin").page(PATH)).text
    await spend(node, acme, 300_000, billed_to="own_key")
    page = await client_for("admin").page(PATH)
    assert page.html.count("$1.50") == 3
    assert "at list prices" in page.text
    await spend(node, acme, 1_000, billed_to="own_key", provider="ollama", by="developer")
    page = await client_for("admin").page(PATH)
    assert "without 1 request of unknown price" in page.text
    assert page.html.count("Unknown price") == 2
    assert "$0" not in page.html
    await spend(node, acme, 1_000, billed_to="own_key", provider="ollama")
    assert "$1.50 and 1 request of unknown price" in (await client_for("admin").page(PATH)).text


@pytest.mark.parametrize(
    ("micros", "unpriced", "told"),
    [
        (0, 0, "$0.00"),
        (1, 0, "under $0.0001"),
        (100, 0, "$0.0001"),
        (12_345, 0, "$0.0123"),
        (999_949, 0, "$0.9999"),
        (999_999, 0, "$1.00"),
        (1_234_567, 0, "$1.23"),
        (12_345_678_901, 0, "$12,345.68"),
        (0, 3, "Unknown price"),
        (1_500_000, 2, "$1.50 and 2 requests of unknown price"),
    ],
)
def test_money(micros: int, unpriced: int, told: str) -> None:
    """Small costs are not rounded to nothing, and unknown ones are said to be so."""
    assert formatting.micros(micros, unpriced) == told


async def test_only_their_own(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Another organization sees none of it."""
    await spend(node, acme, 987_654)
    await stand(node, acme, 987_654)
    assert "987,654" not in (await client_for("outsider").page(PATH)).text


def test_months_back() -> None:
    """Twelve months are offered, newest first, across the turn of a year."""
    months = usage.months_back("2026-02")
    assert len(months) == 12
    assert list(months[:3]) == ["2026-02", "2026-01", "2025-12"]


@pytest.mark.parametrize(
    ("tokens", "top"), [(0, 100), (1, 100), (100, 100), (101, 200), (999, 1000), (1000, 1000), (1001, 2000)]
)
def test_scale(tokens: int, top: int) -> None:
    """The chart's scale is a round number that no bar passes."""
    assert charts.round_up(tokens) == top


def test_chart_geometry() -> None:
    """There is a place for every day of the month; bars of both kinds stand on each other and stay inside."""
    days = [DayUsage(date(2026, 2, 3), 600, 400), DayUsage(date(2026, 2, 28), 0, 50), DayUsage(date(2026, 3, 1), 9, 9)]
    chart = charts.by_day("2026-02", days)
    assert len(chart.bars) == 28
    assert chart.top == 1000
    third = chart.bars[2]
    assert (third.allowance_height, third.own_key_height) == (96, 64)
    assert third.own_key_y == 0
    assert third.own_key_y + third.own_key_height == third.allowance_y
    assert all(bar.x >= 0 and bar.x + bar.width <= chart.width for bar in chart.bars)
    assert chart.bars[-1].day - chart.bars[0].day == timedelta(days=27)


async def test_caps_on_whoever_looks(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A member sees their own cap and their workspace's, and what of them is used; others see none of a member's."""
    assert "Caps" not in (await client_for("user").page(PATH)).text
    owner = acme.actor("owner")
    await caps.set_cap(node.db, owner, "member", acme.people["user"].id, 5_000, None)
    await caps.set_cap(node.db, owner, "workspace", acme.workspace.id, None, 90_000)
    await spend(node, acme, 1_200)
    await spend(node, acme, 700, billed_to="own_key", by="developer")
    mine, theirs = [(await client_for(person).page(PATH)).text for person in ("user", "developer")]
    of_all = f"Everyone in {acme.workspace.name}, on own keys 700 of 90,000 tokens used"
    assert "You, of the allowance 1,200 of 5,000 tokens used" in mine
    assert of_all in mine
    assert of_all in theirs
    assert "You," not in theirs
    assert "Caps" not in (await client_for("user").page(f"{PATH}?month=2026-01")).text


async def test_a_plan_without_tokens(client_for: Callable[[str], Browser], node: Node) -> None:
    """Where a plan includes no tokens in any month, no reset is promised: only a key or another plan helps."""
    without = node.catalogue["professional"].model_copy(update={"monthly_tokens": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(node.catalogue, "professional", without)
        for path in (PATH, "/assistant"):
            text = (await client_for("owner").page(path)).text
            assert "The Professional plan includes no AI tokens. Connect your own provider key" in text
            assert "paused until" not in text
            assert "Resets on" not in text
