"""Workspace: a part of an organization; memberships, API tokens and usage belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ownkey import clock
from ownkey.access import Action, Actor
from ownkey.accounts.names import clean_name, free_slug, slug_of
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import memberships, organizations, subscriptions, workspaces
from ownkey.errors import Conflict, NotFound, PlanLimitReached
from ownkey.ids import new_id
from ownkey.plans import Plan

FIRST_NAME = "General"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A part of an organization. ``slug`` is unique within it."""

    id: str
    organization_id: str
    name: str
    slug: str
    created_at: datetime


WORKSPACE_COLUMNS: tuple[ColumnElement[Any], ...] = (
    workspaces.c.id,
    workspaces.c.organization_id,
    workspaces.c.name,
    workspaces.c.slug,
    workspaces.c.created_at,
)


def workspace_of(row: Row[Any]) -> Workspace:
    """The workspace in a row of ``WORKSPACE_COLUMNS``."""
    return Workspace(**row._mapping)


async def list_for(db: Database, actor: Actor) -> Sequence[Workspace]:
    """The organization's workspaces, oldest first: all for who may read its members, else those one belongs to."""
    query = select(*WORKSPACE_COLUMNS).where(
        workspaces.c.organization_id == actor.organization_id, workspaces.c.archived_at.is_(None)
    )
    if not actor.may(Action.MEMBERSHIP_READ):
        mine = select(memberships.c.workspace_id).where(memberships.c.user_id == actor.user_id)
        query = query.where(or_(workspaces.c.id.in_(mine), workspaces.c.id == actor.workspace_id))
    async with db.read() as tx:
        return [workspace_of(row) for row in await tx.execute(query.order_by(workspaces.c.id))]


async def by_reference(db: Database, organization_id: str, reference: str) -> Workspace:
    """The workspace with this id or slug in an organization. Raises ``NotFound``."""
    query = select(*WORKSPACE_COLUMNS).where(
        workspaces.c.organization_id == organization_id,
        workspaces.c.archived_at.is_(None),
        or_(workspaces.c.id == reference, workspaces.c.slug == reference),
    )
    async with db.read() as tx:
        row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise NotFound
    return workspace_of(row)


async def create(db: Database, actor: Actor, plan: Plan, name: str) -> Workspace:
    """Add a workspace and make the actor its admin.

    ``plan`` is the organization's. Raises ``PlanLimitReached`` when it includes no further workspace, ``Conflict``
    when the organization has left that plan meanwhile.
    """
    name = clean_name(name, "workspace name")
    workspace_id = new_id("wsp")
    async with perform(db, actor, Action.WORKSPACE_CREATE, workspace_id, {"name": name}) as tx:
        await _require_room(tx, actor.organization_id, plan)
        workspace = await add(tx, actor.organization_id, workspace_id, name)
        is_owner = await tx.scalar(
            select(organizations.c.owner_id == actor.user_id).where(organizations.c.id == actor.organization_id)
        )
        if actor.user_id is not None and not is_owner:
            await tx.execute(
                insert(memberships).values(
                    workspace_id=workspace.id,
                    organization_id=actor.organization_id,
                    user_id=actor.user_id,
                    role="admin",
                    created_at=clock.now(),
                )
            )
    return workspace


async def rename(db: Database, actor: Actor, name: str) -> None:
    """Change the name of the actor's active workspace; its slug stays."""
    name = clean_name(name, "workspace name")
    async with perform(db, actor, Action.WORKSPACE_UPDATE, actor.workspace_id, {"name": name}) as tx:
        mine = (workspaces.c.organization_id == actor.organization_id) & (workspaces.c.id == actor.workspace_id)
        changed = await tx.execute(update(workspaces).where(mine).values(name=name))
        if changed.rowcount != 1:
            raise NotFound


async def add(tx: Transaction, organization_id: str, workspace_id: str, name: str) -> Workspace:
    """Insert a workspace under a slug that is free. Raises ``Conflict`` if it was taken at the same moment."""
    taken = set(await tx.scalars(select(workspaces.c.slug).where(workspaces.c.organization_id == organization_id)))
    values = {
        "id": workspace_id,
        "organization_id": organization_id,
        "name": name,
        "slug": free_slug(slug_of(name, "workspace"), taken),
        "created_at": clock.now(),
    }
    try:
        return workspace_of((await tx.execute(insert(workspaces).values(**values).returning(*WORKSPACE_COLUMNS))).one())
    except IntegrityError as error:
        raise Conflict from error


async def count(tx: Transaction, organization_id: str) -> int:
    """How many workspaces an organization has."""
    query = select(func.count()).where(
        workspaces.c.organization_id == organization_id, workspaces.c.archived_at.is_(None)
    )
    return int(await tx.scalar(query) or 0)


async def _require_room(tx: Transaction, organization_id: str, plan: Plan) -> None:
    # The lock makes two additions, or an addition and a downgrade, take turns; SQLite has one writer anyway.
    current = await tx.scalar(
        select(subscriptions.c.plan).where(subscriptions.c.organization_id == organization_id).with_for_update()
    )
    if current != plan.code:
        raise Conflict
    if plan.workspaces is not None and await count(tx, organization_id) >= plan.workspaces:
        included = "1 workspace" if plan.workspaces == 1 else f"{plan.workspaces} workspaces"
        raise PlanLimitReached(f"The {plan.name} plan includes {included}. The owner can change it under Billing.")
