"""Where a person stands: their workspaces and their role in each, read from the database at every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, case, select, union

from ownkey import audit
from ownkey.access import Action, Actor, Role
from ownkey.accounts.organizations import ORGANIZATION_COLUMNS, Organization
from ownkey.accounts.workspaces import WORKSPACE_COLUMNS, Workspace
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import memberships, organizations, users, workspaces
from ownkey.errors import Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace somebody can work in, and as what."""

    organization: Organization
    workspace: Workspace
    role: Role


async def places_of(tx: Transaction, user_id: str) -> Sequence[Place]:
    """Every place of a person, by organization, oldest first. Suspended and archived ones are none."""
    # By the two indexes; the same as a condition on the joined rows would read every organization.
    owned = workspaces.alias()
    mine = union(
        select(memberships.c.workspace_id).where(memberships.c.user_id == user_id).correlate(None),
        select(owned.c.id)
        .join(organizations, organizations.c.id == owned.c.organization_id)
        .where(organizations.c.owner_id == user_id)
        .correlate(None),
    )
    query = (
        select(*ORGANIZATION_COLUMNS, *WORKSPACE_COLUMNS, _role_word(user_id))
        .select_from(_standing(user_id))
        .where(workspaces.c.id.in_(mine), *_OPEN)
        .order_by(organizations.c.id, workspaces.c.id)
    )
    width = len(ORGANIZATION_COLUMNS)
    return [
        Place(Organization(*row[:width]), Workspace(*row[width:-1]), Role.of(row[-1]))
        for row in await tx.execute(query)
    ]


async def role_of(tx: Transaction, user_id: str, organization_id: str, workspace_id: str) -> Role | None:
    """A person's role in a workspace of this organization, or None."""
    query = (
        select(_role_word(user_id))
        .select_from(_standing(user_id))
        .where(
            workspaces.c.organization_id == organization_id,
            workspaces.c.id == workspace_id,
            select(users.c.id).where(users.c.id == user_id, users.c.disabled_at.is_(None)).exists(),
            *_OPEN,
        )
    )
    word = await tx.scalar(query)
    return Role.of(word) if word else None


async def home_of(tx: Transaction, user_id: str) -> str:
    """The organization whose audit log tells of a person's sign-ins: the first of their places, or empty."""
    places = await places_of(tx, user_id)
    return places[0].organization.id if places else ""


async def actor_in(db: Database, actor: Actor, workspace_id: str) -> Actor:
    """The actor as they stand in another workspace of their organization.

    Raises ``NotFound`` when the organization has no such workspace; without a role there, the actor may do nothing.
    """
    async with db.read() as tx:
        exists = await tx.scalar(
            select(workspaces.c.id).where(
                workspaces.c.organization_id == actor.organization_id,
                workspaces.c.id == workspace_id,
                workspaces.c.archived_at.is_(None),
            )
        )
        role = actor.role
        if actor.kind == "user" and actor.user_id is not None:
            role = await role_of(tx, actor.user_id, actor.organization_id, workspace_id)
    # An API token belongs to one workspace, whatever the person who made it may do elsewhere.
    if exists is None or (actor.kind == "api_token" and workspace_id != actor.workspace_id):
        raise NotFound
    return replace(actor, workspace_id=workspace_id, role=role)


async def require(db: Database, actor: Actor, action: Action, target: str) -> None:
    """Raise ``Forbidden``, after recording the attempt, unless the actor may do this; for what only reads."""
    if not actor.may(action):
        await audit.record_refusal(db, actor, action, target)
        raise Forbidden


_OPEN: tuple[ColumnElement[bool], ...] = (
    workspaces.c.archived_at.is_(None),
    organizations.c.suspended_at.is_(None),
)


def _standing(user_id: str) -> Any:
    of_the_person = (memberships.c.workspace_id == workspaces.c.id) & (memberships.c.user_id == user_id)
    return workspaces.join(organizations, organizations.c.id == workspaces.c.organization_id).outerjoin(
        memberships, of_the_person
    )


def _role_word(user_id: str) -> ColumnElement[Any]:
    return case((organizations.c.owner_id == user_id, "owner"), else_=memberships.c.role)
