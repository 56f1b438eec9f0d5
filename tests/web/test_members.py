"""Settings → Members: roles, places, invitations; and what nobody can do here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from ownkey.access import Role
from ownkey.accounts import caps, invitations, memberships, workspaces
from ownkey.accounts.workspaces import Workspace
from ownkey.mail import Mailer
from ownkey.node import Node
from tests.fakes.post import Post, serving
from tests.web.conftest import PUBLIC_URL, Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

PATH = "/settings/members"


async def role_of(node: Node, acme: Acme, person: str, workspace: Workspace) -> Role | None:
    """Somebody's role in a workspace, as the database has it."""
    for member in await memberships.list_members(node.db, acme.operator()):
        if member.user.id == acme.people[person].id:
            return member.roles.get(workspace.id)
    return None


@pytest.fixture
async def second(node: Node, acme: Acme) -> Workspace:
    """A second workspace, made by the owner: of the others nobody is in it."""
    return await workspaces.create(node.db, acme.actor("owner"), node.catalogue["professional"], "Research")


@pytest.mark.parametrize("role", ["user", "developer"])
async def test_not_for_everyone(role: str, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Users and developers do not see members, and cannot change them by a direct form."""
    browser = client_for(role)
    assert (await browser.get(PATH)).status_code == 403
    target = f"{PATH}/{acme.people['admin'].id}"
    for path in (f"{target}/role", f"{target}/remove", f"{target}/workspaces", f"{PATH}/invitations"):
        reply = await browser.send(path, {"role": "user", "workspace": acme.workspace.id, "email": "x@example.com"})
        assert reply.status_code == 403, path


async def test_list(acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Everyone is listed: the owner as Owner, others with a role selector, oneself without one."""
    page = await client_for("admin").page(PATH)
    for role in ("user", "developer", "admin", "owner"):
        assert f"{role}@acme.test" in page.text
    assert "outsider@globex.test" not in page.text
    selectors = [form.action for form in page.forms if form.action.endswith("/role")]
    assert selectors == [f"{PATH}/{acme.people[role].id}/role" for role in ("developer", "user")]
    assert "Admin Name (you)" in page.text


async def test_change_role(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A role chosen is in effect at the person's next request, and the page confirms it."""
    user, admin = client_for("user"), client_for("admin")
    assert (await user.get("/settings/developer")).status_code == 403
    reply = await admin.send(
        f"{PATH}/{acme.people['user'].id}/role", {"role": "developer", "workspace": acme.workspace.id}
    )
    assert "User Name is now Developer in General." in await admin.notice(reply)
    assert (await user.get("/settings/developer")).status_code == 200
    assert await role_of(node, acme, "user", acme.workspace) is Role.DEVELOPER


@pytest.mark.parametrize("role", ["owner", "root", "", "ADMIN"])
async def test_roles_that_cannot_be_given(
    role: str, node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """Owner is not assignable, nor is anything that is no role."""
    reply = await client_for("owner").send(
        f"{PATH}/{acme.people['user'].id}/role", {"role": role, "workspace": acme.workspace.id}
    )
    assert reply.status_code == 400
    assert await role_of(node, acme, "user", acme.workspace) is Role.USER


async def test_nobody_changes_their_own_role(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """An admin cannot change their own role, and the owner has none to change."""
    for person, status in (("admin", 403), ("owner", 403)):
        reply = await client_for(person).send(
            f"{PATH}/{acme.people[person].id}/role", {"role": "user", "workspace": acme.workspace.id}
        )
        assert reply.status_code == status
    assert await role_of(node, acme, "admin", acme.workspace) is Role.ADMIN


async def test_admin_of_one_workspace_only(
    node: Node, acme: Acme, second: Workspace, client_for: Callable[[str], Browser]
) -> None:
    """An admin decides in workspaces they administer, and in no other of the organization."""
    plan = node.catalogue["professional"]
    await memberships.add(node.db, acme.actor("owner"), "user@acme.test", Role.USER, second.id, plan)
    admin, target = client_for("admin"), f"{PATH}/{acme.people['user'].id}"
    page = await admin.page(PATH)
    assert "Research" in page.text
    assert second.id not in page.html.replace("menu", "")
    fields = {"role": "admin", "workspace": second.id}
    assert (await admin.send(f"{target}/role", fields)).status_code == 403
    assert (await admin.send(f"{target}/remove", fields)).status_code == 403
    assert (await admin.send(f"{PATH}/invitations", {**fields, "email": "x@example.com"})).status_code == 422
    assert await role_of(node, acme, "user", second) is Role.USER


async def test_add_to_workspace(
    node: Node, acme: Acme, second: Workspace, client_for: Callable[[str], Browser]
) -> None:
    """Add to workspace picks workspaces and a role in each."""
    owner, target = client_for("owner"), f"{PATH}/{acme.people['developer'].id}/workspaces"
    listed = await owner.page(PATH)
    assert listed.form(target).method == "get"
    assert "Add to workspace" in listed.html
    page = await owner.page(target)
    assert "Research" in page.text
    reply = await owner.send(target, {"workspace": second.id, f"role-{second.id}": "admin"})
    assert "Developer Name was added to Research." in await owner.notice(reply)
    assert await role_of(node, acme, "developer", second) is Role.ADMIN
    assert (await owner.get(target)).status_code == 404  # there is nowhere left to add them to


async def test_add_to_many_workspaces_with_long_names(
    node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """However long what was done takes to tell, and in whichever script, as much as a cookie can hold is told."""
    plan, owner = node.catalogue["professional"], acme.actor("owner")
    made = [await workspaces.create(node.db, owner, plan, f"{n} {'プロジェクト管理部門' * 9}") for n in range(15)]
    fields: dict[str, str | list[str]] = {f"role-{one.id}": "user" for one in made}
    fields["workspace"] = [one.id for one in made]
    browser = client_for("owner")
    reply = await browser.send(f"{PATH}/{acme.people['user'].id}/workspaces", fields)
    cookie = next(each for each in reply.headers.get_list("set-cookie") if each.startswith("notice="))
    assert len(cookie) < 4096
    assert made[0].name in await browser.notice(reply)


async def test_add_to_no_workspace(acme: Acme, second: Workspace, client_for: Callable[[str], Browser]) -> None:
    """Adding somebody to nothing, or to another organization's workspace, is refused at the form."""
    owner, target = client_for("owner"), f"{PATH}/{acme.people['developer'].id}/workspaces"
    for fields in ({}, {"workspace": acme.other_workspace.id, f"role-{acme.other_workspace.id}": "user"}):
        reply = await owner.send(target, fields)
        assert reply.status_code == 422
        assert "Choose at least one workspace." in reply.text
    assert (await owner.send(target, {"workspace": second.id, f"role-{second.id}": "owner"})).status_code == 422


async def test_remove(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Removing asks first, and takes effect at the person's next request."""
    user, admin = client_for("user"), client_for("admin")
    target = f"{PATH}/{acme.people['user'].id}/remove"
    question = await admin.page(f"{target}?workspace={acme.workspace.id}")
    assert "Remove User Name from General?" in question.text
    assert "loses access to General" in (await admin.page(PATH)).text
    reply = await admin.send(target, question.form(target).fields)
    assert "User Name is no longer in General." in await admin.notice(reply)
    assert (await user.get("/settings/usage")).status_code == 403
    assert await role_of(node, acme, "user", acme.workspace) is None


async def test_the_owner_cannot_be_removed(acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Nothing on the page removes the owner or changes what they are."""
    target = f"{PATH}/{acme.people['owner'].id}"
    for path in (f"{target}/remove", f"{target}/role"):
        reply = await client_for("admin").send(path, {"role": "user", "workspace": acme.workspace.id})
        assert reply.status_code == 404, path


async def test_people_of_others_do_not_exist(acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Somebody of another organization is not found, as somebody who does not exist."""
    fields = {"role": "user", "workspace": acme.workspace.id}
    for user_id in (acme.people["outsider"].id, "usr_nobody"):
        for what in ("role", "remove", "workspaces"):
            reply = await client_for("owner").send(f"{PATH}/{user_id}/{what}", fields)
            assert reply.status_code == 404, what


async def test_invite(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """Without mail the one-time link is shown once, to copy; it leads to the invitation."""
    admin = client_for("admin")
    fields = {"email": "New@Example.com", "role": "developer", "workspace": acme.workspace.id}
    reply = await admin.send(f"{PATH}/invitations", fields)
    assert reply.status_code == 200
    found = re.search(re.escape(PUBLIC_URL) + r"/invitations/(\w+)", Page(reply.text).text)
    assert found
    offer = await invitations.look(node.db, found[1])
    assert (offer.invitation.email, offer.invitation.role) == ("new@example.com", Role.DEVELOPER)
    page = await admin.page(PATH)
    assert "new@example.com" in page.text
    assert found[1] not in page.html


@pytest.mark.parametrize("typed", ["new@example.com", "new\uff20example.com", "\uff2eew@Example.com"])
async def test_invite_by_mail(
    typed: str, node: Node, acme: Acme, web_app: FastAPI, client_for: Callable[[str], Browser]
) -> None:
    """With mail the link goes to the address that the invitation is for, however typed, and nobody else sees it."""
    post = Post()
    async with serving(post) as address:
        settings = node.settings.model_copy(update={"smtp_url": SecretStr(f"smtp://{address}")})
        web_app.state.node = replace(node, mailer=Mailer(settings))
        fields = {"email": typed, "role": "user", "workspace": acme.workspace.id}
        reply = await client_for("admin").send(f"{PATH}/invitations", fields)
    assert reply.status_code == 303
    assert [envelope.rcpt_tos for envelope in post.received] == [["new@example.com"]]


async def test_revoke_invitation(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """An open invitation can be taken back; its link is dead then, and another organization never sees it."""
    invitation, _ = await invitations.create(
        node.db, acme.actor("owner"), "new@example.com", Role.USER, acme.workspace.id
    )
    target = f"{PATH}/invitations/{invitation.id}/revoke"
    assert (await client_for("outsider").send(target)).status_code == 404
    admin = client_for("admin")
    assert "taken back" in await admin.notice(await admin.send(target))
    assert await invitations.list_open(node.db, acme.actor("admin")) == []


@pytest.mark.parametrize(
    ("email", "said"),
    [
        ("", "Enter an e-mail address."),
        ("not an address", "e-mail"),
        ("user@acme.test", "is in this workspace already"),
    ],
)
async def test_invite_nobody(email: str, said: str, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A wrong address, or somebody who is there already, is told at the field."""
    fields = {"email": email, "role": "user", "workspace": acme.workspace.id}
    reply = await client_for("admin").send(f"{PATH}/invitations", fields)
    assert reply.status_code == 422
    assert said in Page(reply.text).text


async def test_cap(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """An admin caps a member, and sees it in the list; never oneself or the owner. It goes with the member."""
    browser, user = client_for("admin"), acme.people["user"].id
    path = f"{PATH}/{user}/cap"
    for wrong in ("x", "1.5"):
        reply = await browser.send(path, {"allowance_tokens": "5,000", "own_key_tokens": wrong})
        assert reply.status_code == 422
        assert "Enter a whole number of tokens, such as 50,000, or leave it empty." in Page(reply.text).text
    reply = await browser.send(path, {"allowance_tokens": "5,000", "own_key_tokens": ""})
    assert "The cap of" in await browser.notice(reply)
    assert "Monthly cap: 0 of 5,000 tokens of the allowance used" in (await browser.page(PATH)).text
    assert (await browser.page(path)).form(path).fields["allowance_tokens"] == "5000"
    for person in ("admin", "owner"):
        assert (await browser.get(f"{PATH}/{acme.people[person].id}/cap")).status_code == 404
    await memberships.remove(node.db, acme.actor("admin"), user, acme.workspace.id)
    assert await caps.list_caps(node.db, acme.actor("admin")) == []
    assert (await client_for("owner").get(f"{PATH}/{acme.people['admin'].id}/cap")).status_code == 200
