"""Managers: the people to turn to when something needs an admin."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select

from ownkey.access import Actor
from ownkey.accounts.users import USER_COLUMNS, User, user_of
from ownkey.db.engine import Database
from ownkey.db.tables import memberships, organizations, users, workspaces


async def list_managers(
    db: Database, actor: Actor, *, owner_only: bool = False, everywhere: bool = False
) -> Sequence[User]:
    """The admins of the active workspace by address, then the organization's owner; any member may know them.

    ``everywhere``: the admins of all its workspaces.
    """
    owner_id = select(organizations.c.owner_id).where(organizations.c.id == actor.organization_id).scalar_subquery()
    admins = select(memberships.c.user_id).where(
        memberships.c.organization_id == actor.organization_id, memberships.c.role == "admin"
    )
    if not everywhere:
        admins = admins.where(memberships.c.workspace_id == actor.workspace_id)
    is_owner = users.c.id == owner_id
    chosen = is_owner if owner_only else or_(is_owner, users.c.id.in_(admins))
    query = select(*USER_COLUMNS).where(chosen, users.c.disabled_at.is_(None)).order_by(is_owner, users.c.email)
    async with db.read() as tx:
        return [user_of(row) for row in await tx.execute(query)]


async def list_everywhere(db: Database, actor: Actor) -> Sequence[User]:
    """The owner of the actor's organization, then the admins of all its workspaces, by address."""
    owner_id = select(organizations.c.owner_id).where(organizations.c.id == actor.organization_id).scalar_subquery()
    admins = (
        select(memberships.c.user_id)
        .join(workspaces, workspaces.c.id == memberships.c.workspace_id)
        .where(
            memberships.c.organization_id == actor.organization_id,
            memberships.c.role == "admin",
            workspaces.c.archived_at.is_(None),
        )
    )
    is_owner = users.c.id == owner_id
    query = (
        select(*USER_COLUMNS)
        .where(or_(is_owner, users.c.id.in_(admins)), users.c.disabled_at.is_(None))
        .order_by(is_owner.desc(), users.c.email)
    )
    async with db.read() as tx:
        return [user_of(row) for row in await tx.execute(query)]
