"""Settings → Workspace and Organization: names, members, switching, and new workspaces within the plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ownkey.access import Actor, Role
from ownkey.accounts import caps, memberships, organizations, subscriptions, workspaces
from ownkey.node import Node
from tests.web.conftest import Acme, Browser

pytestmark = pytest.mark.anyio

WORKSPACE, ORGANIZATION = "/settings/workspace", "/settings/organization"


async def test_what_a_user_sees(client_for: Callable[[str], Browser]) -> None:
    """Everyone sees where they are and as what; without the rights there is a sentence and no form."""
    page = await client_for("user").page(WORKSPACE)
    assert "Your role User" in page.text
    assert "Workspace admins can change the name." in page.text
    assert not [form for form in page.forms if form.action.startswith(WORKSPACE)]
    assert "admin@acme.test" not in page.html


async def test_what_an_admin_sees(client_for: Callable[[str], Browser]) -> None:
    """Admins also see the workspace's members with their roles, and the forms."""
    page = await client_for("admin").page(WORKSPACE)
    for name, role in (("Owner Name", "Owner"), ("User Name", "User"), ("Developer Name", "Developer")):
        assert name in page.text
        assert role in page.text
    assert page.form(WORKSPACE).buttons == ["Save"]
    assert page.form(f"{WORKSPACE}/new").buttons == ["Create workspace"]


@pytest.mark.parametrize(("path", "what"), [(WORKSPACE, "workspace"), (ORGANIZATION, "organization")])
async def test_rename(client_for: Callable[[str], Browser], path: str, what: str) -> None:
    """A new name is saved and shown; an empty one is refused beside its field."""
    browser = client_for("admin")
    reply = await browser.send(path, {"name": "Renamed & Co"})
    assert f"The {what}'s name is saved." in await browser.notice(reply)
    assert "Renamed & Co" in (await browser.page("/settings/account")).text
    reply = await browser.send(path, {"name": " "})
    assert reply.status_code == 422
    assert 'id="name-error"' in reply.text


async def test_create_and_switch(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """A new workspace is there at once, and switching moves the person's pages into it and goes on to ``next``."""
    browser = client_for("admin")
    reply = await browser.send(f"{WORKSPACE}/new", {"new_name": "Research"})
    assert "Research is ready." in await browser.notice(reply)
    assert "Switch to Research" in [word for form in (await browser.page(WORKSPACE)).forms for word in form.buttons]
    research = next(item for item in await workspaces.list_for(node.db, acme.actor("admin")) if item.name == "Research")
    reply = await browser.send("/workspace", {"workspace": research.id, "next": WORKSPACE})
    assert reply.headers["location"] == WORKSPACE
    assert "You are in Research now." in await browser.notice(reply)
    assert (await browser.page(WORKSPACE)).form(WORKSPACE).fields["name"] == "Research"


async def test_organizations_of_the_same_name(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """Where somebody is in two organizations of one name, their slugs tell them apart."""
    assert "(acme" not in (await client_for("user").page("/settings/account")).text
    made = await organizations.create(node.db, Actor.operator(), node.catalogue, "Acme", "else@where.test", "starter")
    there = Actor.operator(made.organization.id, made.workspace.id)
    await memberships.add(node.db, there, "user@acme.test", Role.ADMIN, made.workspace.id, node.catalogue["starter"])
    text = (await client_for("user").page("/settings/account")).text
    for slug in ("acme", "acme-2"):
        assert text.count(f"Acme ({slug})") == 2, slug  # in the menu, and in the list of the page


async def test_roles_are_of_the_workspace(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """An admin of one workspace who switches to another where they are a user has a user's pages there."""
    plan = node.catalogue["professional"]
    other = await workspaces.create(node.db, acme.operator(), plan, "Elsewhere")
    await memberships.add(node.db, acme.operator(), "admin@acme.test", Role.USER, other.id, plan)
    browser = client_for("admin")
    assert (await browser.get("/settings/audit")).status_code == 200
    reply = await browser.send("/workspace", {"workspace": other.id, "next": "/settings/audit"})
    assert reply.headers["location"] == WORKSPACE
    assert (await browser.get("/settings/audit")).status_code == 403


async def test_the_plan_is_full(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """With all workspaces of the plan in use the page says so instead of offering the form, and the server refuses."""
    await subscriptions.change(node.db, acme.operator(), node.catalogue, "starter")
    for name in ("Two", "Three"):
        await workspaces.create(node.db, acme.operator(), node.catalogue["starter"], name)
    page = await client_for("owner").page(WORKSPACE)
    assert "All workspaces of your plan are in use." in page.text
    assert "/settings/billing" in page.links
    assert not [form for form in page.forms if form.action == f"{WORKSPACE}/new"]
    reply = await client_for("admin").send(f"{WORKSPACE}/new", {"new_name": "Four"})
    assert reply.status_code == 409
    assert "The Starter plan includes 3 workspaces." in reply.text
    assert len(await workspaces.list_for(node.db, acme.actor("owner"))) == 3


async def test_organization(client_for: Callable[[str], Browser], acme: Acme) -> None:
    """The page names the owner, the plan, the slug, and every workspace."""
    page = await client_for("admin").page(ORGANIZATION)
    for words in ("Owner Owner Name", "Plan Professional", acme.organization.slug, acme.organization.id, "General"):
        assert words in page.text
    assert page.form(ORGANIZATION).fields["name"] == "Acme"


async def test_cap(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """An admin caps the workspace, sees the cap, and lifts it with empty fields; what is no number is refused."""
    browser, path = client_for("admin"), f"{WORKSPACE}/cap"
    reply = await browser.send(path, {"allowance_tokens": "5,000", "own_key_tokens": ""})
    assert "The workspace's cap is saved." in await browser.notice(reply)
    (cap,) = await caps.list_caps(node.db, acme.actor("admin"))
    assert (cap.scope, cap.allowance_tokens, cap.own_key_tokens) == ("workspace", 5000, None)
    assert (await browser.page(WORKSPACE)).form(path).fields["allowance_tokens"] == "5000"
    for wrong in ("many", "1.5", "5,00", ",", "1" + "0" * 15 + "1"):
        reply = await browser.send(path, {"allowance_tokens": wrong, "own_key_tokens": ""})
        assert reply.status_code == 422, wrong
        assert (await caps.list_caps(node.db, acme.actor("admin")))[0].allowance_tokens == 5000
    await browser.send(path, {"allowance_tokens": "6 000", "own_key_tokens": "1.000.000"})
    (cap,) = await caps.list_caps(node.db, acme.actor("admin"))
    assert (cap.allowance_tokens, cap.own_key_tokens) == (6_000, 1_000_000)
    await browser.send(path, {"allowance_tokens": "", "own_key_tokens": ""})
    assert not await caps.list_caps(node.db, acme.actor("admin"))
