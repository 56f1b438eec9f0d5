"""Organization: the customer and tenancy boundary; owns everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ownkey import clock
from ownkey.access import Action, Actor
from ownkey.accounts import workspaces
from ownkey.accounts.links import make_link
from ownkey.accounts.names import clean_name, free_slug, slug_of
from ownkey.accounts.users import User, find_or_create, normal_email
from ownkey.accounts.workspaces import Workspace
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import organizations, subscriptions
from ownkey.errors import Conflict, Forbidden, NotFound
from ownkey.ids import new_id
from ownkey.plans import Catalogue, plan_of

# `ownkey usage ORG` could not name such an organization: `ownkey usage events` is another command.
RESERVED_SLUGS = frozenset({"events"})


@dataclass(frozen=True, slots=True)
class Organization:
    """A customer. ``slug`` names it in commands and never changes; the owner is one person, always."""

    id: str
    name: str
    slug: str
    owner_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Created:
    """A new organization, its first workspace, its owner, and the token of the owner's one-time link."""

    organization: Organization
    workspace: Workspace
    owner: User
    sign_in_token: str


ORGANIZATION_COLUMNS: tuple[ColumnElement[Any], ...] = (
    organizations.c.id,
    organizations.c.name,
    organizations.c.slug,
    organizations.c.owner_id,
    organizations.c.created_at,
)


async def create(
    db: Database, actor: Actor, catalogue: Catalogue, name: str, owner_email: str, plan: str = "free"
) -> Created:
    """Bring an organization into being, with a first workspace, an owner and a subscription.

    For the operator only. Raises ``InvalidRequest`` for an unusable name or address and an unknown plan.
    """
    name, owner_email = clean_name(name, "organization name"), normal_email(owner_email)
    code = plan_of(catalogue, plan).code
    organization_id = new_id("org")
    detail = {"name": name, "owner": owner_email, "plan": code}
    there = replace(actor, organization_id=organization_id) if actor.may(Action.ORGANIZATION_CREATE) else actor
    async with perform(db, there, Action.ORGANIZATION_CREATE, organization_id, detail) as tx:
        owner = await find_or_create(tx, owner_email)
        organization = await _insert(tx, organization_id, name, owner.id)
        workspace = await workspaces.add(tx, organization_id, new_id("wsp"), workspaces.FIRST_NAME)
        await tx.execute(
            insert(subscriptions).values(
                organization_id=organization_id, plan=code, interval="month", started_at=organization.created_at
            )
        )
        token = await make_link(tx, owner_email)
    return Created(organization, workspace, owner, token)


async def by_reference(db: Database, reference: str) -> Organization:
    """The organization with this id or slug. Raises ``NotFound``."""
    query = select(*ORGANIZATION_COLUMNS).where(or_(organizations.c.id == reference, organizations.c.slug == reference))
    async with db.read() as tx:
        row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"There is no organization {reference!r}.")
    return _organization_of(row)


async def list_all(db: Database, actor: Actor) -> Sequence[Organization]:
    """Every organization, oldest first; for the operator only."""
    if actor.kind != "operator":
        raise Forbidden
    async with db.read() as tx:
        rows = await tx.execute(select(*ORGANIZATION_COLUMNS).order_by(organizations.c.id))
        return [_organization_of(row) for row in rows]


async def rename(db: Database, actor: Actor, name: str) -> None:
    """Change the name of the actor's organization; its slug stays."""
    name = clean_name(name, "organization name")
    async with perform(db, actor, Action.ORGANIZATION_UPDATE, actor.organization_id, {"name": name}) as tx:
        mine = organizations.c.id == actor.organization_id
        changed = await tx.execute(update(organizations).where(mine).values(name=name))
        if changed.rowcount != 1:
            raise NotFound


async def _insert(tx: Transaction, organization_id: str, name: str, owner_id: str) -> Organization:
    stem = slug_of(name, "organization")
    alike = or_(organizations.c.slug == stem, organizations.c.slug.startswith(f"{stem}-", autoescape=True))
    taken = {*RESERVED_SLUGS, *await tx.scalars(select(organizations.c.slug).where(alike))}
    values = {
        "id": organization_id,
        "name": name,
        "slug": free_slug(stem, taken),
        "owner_id": owner_id,
        "created_at": clock.now(),
    }
    try:
        inserted = await tx.execute(insert(organizations).values(**values).returning(*ORGANIZATION_COLUMNS))
        return _organization_of(inserted.one())
    except IntegrityError as error:
        # Two of the same name at the same moment chose the same slug.
        raise Conflict from error


def _organization_of(row: Row[Any]) -> Organization:
    return Organization(**row._mapping)
