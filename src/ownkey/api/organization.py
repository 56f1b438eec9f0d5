"""The organization, its workspaces, and who is asking."""

from __future__ import annotations

from datetime import datetime

from ownkey.accounts import organizations, subscriptions, workspaces
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Given, Name, Page, Shown
from ownkey.errors import NotFound


class Me(Shown):
    """The token that asks: where it works, and what it may do."""

    token_id: str
    name: str
    organization_id: str
    workspace_id: str
    role: str
    scopes: list[str]


class Organization(Shown):
    """The customer that everything belongs to."""

    id: str
    name: str
    slug: str
    created_at: datetime


class Workspace(Shown):
    """A part of the organization."""

    id: str
    name: str
    slug: str
    created_at: datetime


class Naming(Given):
    """A name to give."""

    name: Name


async def me(actor: Caller) -> Me:
    """Show the token that asks."""
    return Me(
        token_id=actor.id,
        name=actor.label,
        organization_id=actor.organization_id,
        workspace_id=actor.workspace_id,
        role=actor.role.word if actor.role else "",
        scopes=sorted(actor.scopes),
    )


async def show(node: Here, actor: Caller) -> Organization:
    """Show the organization."""
    return Organization.model_validate(await organizations.by_reference(node.db, actor.organization_id))


async def rename(node: Here, actor: Caller, given: Naming) -> Organization:
    """Rename the organization; its slug stays."""
    await organizations.rename(node.db, actor, given.name)
    return await show(node, actor)


async def list_workspaces(node: Here, actor: Caller) -> Page[Workspace]:
    """List the workspaces, oldest first."""
    found = await workspaces.list_for(node.db, actor)
    return Page(items=[Workspace.model_validate(workspace) for workspace in found])


async def create_workspace(node: Here, actor: Caller, given: Naming) -> Workspace:
    """Add a workspace, if the plan includes one more."""
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    return Workspace.model_validate(await workspaces.create(node.db, actor, plan, given.name))


async def rename_workspace(node: Here, actor: Caller, workspace_id: str, given: Naming) -> Workspace:
    """Rename the token's own workspace; its slug stays."""
    if workspace_id != actor.workspace_id:
        raise NotFound
    await workspaces.rename(node.db, actor, given.name)
    return Workspace.model_validate(await workspaces.by_reference(node.db, actor.organization_id, workspace_id))
