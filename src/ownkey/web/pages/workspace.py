"""Settings → Workspace: its name and members, the organization's other workspaces, and switching between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from ownkey.access import Action, Role
from ownkey.accounts import caps, memberships, sessions, subscriptions, workspaces
from ownkey.accounts.memberships import Member
from ownkey.accounts.users import User
from ownkey.errors import InvalidRequest, PlanLimitReached
from ownkey.web import forms, navigation, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render

_URL = "/settings/workspace"


async def switch(request: Request) -> Response:
    """``POST /workspace``: make another workspace the active one; go to ``next`` if one's role there opens it."""
    form = await forms.read(request, anywhere=True)
    signed_in = await session.require(request)
    wanted, next_path = form.get("workspace", ""), session.local_path(form.get("next"))
    await sessions.switch_workspace(session.node_of(request).db, signed_in, wanted)
    place = next(place for place in signed_in.places if place.workspace.id == wanted)
    there = replace(signed_in.actor, role=place.role)
    open_there = {entry.path for _, entries in navigation.settings_for(there) for entry in entries}
    if next_path.startswith("/settings/") and next_path not in open_there:
        next_path = _URL
    return redirect(request, next_path, notice=f"You are in {place.workspace.name} now.", kind="info")


async def show(request: Request) -> Response:
    """``GET /settings/workspace``."""
    return await page(request, None)


async def rename(request: Request) -> Response:
    """``POST /settings/workspace``."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    try:
        await workspaces.rename(session.node_of(request).db, signed_in.actor, form.get("name", ""))
    except InvalidRequest as error:
        form.fail("name", error.message)
        return await page(request, form)
    return redirect(request, _URL, notice="The workspace's name is saved.")


async def create(request: Request) -> Response:
    """``POST /settings/workspace/new``: add a workspace, as far as the plan goes, and go into it."""
    form = await forms.read(request)
    node, signed_in = session.node_of(request), await session.require(request)
    plan = await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue)
    try:
        workspace = await workspaces.create(node.db, signed_in.actor, plan, form.get("new_name", ""))
    except (InvalidRequest, PlanLimitReached) as error:
        form.fail("new_name", error.message)
        return await page(request, form, error.status if isinstance(error, PlanLimitReached) else 422)
    return redirect(request, _URL, notice=f"{workspace.name} is ready. Switch to it in the list below.")


async def page(request: Request, form: Form | None, status: int = 422) -> Response:
    """The page as it is, with what was wrong in a form."""
    node, signed_in = session.node_of(request), await session.require(request)
    actor = signed_in.actor
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    everyone = await memberships.list_members(node.db, actor) if actor.may(Action.MEMBERSHIP_READ) else None
    found = await caps.list_caps(node.db, actor) if actor.may(Action.CAP_SET) else ()
    all_workspaces = await workspaces.list_for(node.db, actor)
    return render(
        request,
        "workspace.html",
        signed_in=signed_in,
        form=form,
        status=status if form else 200,
        plan=plan,
        workspaces=all_workspaces,
        roles={place.workspace.id: place.role for place in signed_in.places},
        members=_members_of(signed_in.workspace.id, everyone) if everyone is not None else None,
        cap=next((one for one in found if one.subject_id == signed_in.workspace.id), None),
        may_cap=actor.may(Action.CAP_SET),
        may_rename=actor.may(Action.WORKSPACE_UPDATE),
        may_create=actor.may(Action.WORKSPACE_CREATE),
        is_full=plan.workspaces is not None and len(all_workspaces) >= plan.workspaces,
    )


def _members_of(workspace_id: str, everyone: Sequence[Member]) -> list[tuple[User, Role]]:
    """The people of one workspace with their role in it; the owner is in all of them."""
    return [
        (member.user, Role.OWNER if member.is_owner else member.roles[workspace_id])
        for member in everyone
        if member.is_owner or workspace_id in member.roles
    ]
