"""Membership: a user's place in a workspace, with one role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ownkey import audit, clock
from ownkey.access import Action, Actor, Role
from ownkey.accounts.links import make_link
from ownkey.accounts.places import actor_in, require
from ownkey.accounts.users import USER_COLUMNS, User, find_or_create, normal_email, user_of
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import memberships, organizations, users
from ownkey.db.usage_tables import caps
from ownkey.errors import Conflict, Forbidden, InvalidRequest, NotFound
from ownkey.plans import Plan


@dataclass(frozen=True, slots=True)
class Member:
    """A person of the organization: its owner, or somebody with a role in some of its workspaces."""

    user: User
    is_owner: bool
    roles: Mapping[str, Role]
    """Workspace id to role; empty for the owner, who is above them all."""


@dataclass(frozen=True, slots=True)
class Added:
    """Who was added. ``sign_in_token`` is for the operator only, when the person has no password yet."""

    user: User
    sign_in_token: str | None


async def list_members(db: Database, actor: Actor) -> Sequence[Member]:
    """Everybody in the organization, the owner first, then by address. Raises ``Forbidden`` below admin."""
    await require(db, actor, Action.MEMBERSHIP_READ, actor.organization_id)
    people = select(*USER_COLUMNS).where(in_organization(actor.organization_id)).order_by(users.c.email)
    places = select(memberships.c.user_id, memberships.c.workspace_id, memberships.c.role).where(
        memberships.c.organization_id == actor.organization_id
    )
    async with db.read() as tx:
        found = [user_of(row) for row in await tx.execute(people)]
        owner_id = await _owner_id(tx, actor.organization_id)
        roles: dict[str, dict[str, Role]] = {user.id: {} for user in found}
        for row in await tx.execute(places):
            roles[row.user_id][row.workspace_id] = Role.of(row.role)
    members = [Member(user, user.id == owner_id, roles[user.id]) for user in found]
    return sorted(members, key=lambda member: not member.is_owner)


async def add(db: Database, actor: Actor, email: str, role: Role, workspace_id: str, plan: Plan) -> Added:
    """Give a person a role in a workspace.

    The operator may add anyone; an admin only people who are in the organization already, because an address proves
    nothing: others are invited and accept. More members than ``plan`` includes are extra seats. Raises ``Conflict``
    for who is there already, ``InvalidRequest`` for the owner role and for somebody to invite.
    """
    email = normal_email(email)
    _require_assignable(role)
    detail: dict[str, Any] = {"email": email, "role": role.word, "workspace": workspace_id}
    there = await actor_in(db, actor, workspace_id)
    async with perform(db, there, Action.MEMBERSHIP_ADD, email, detail) as tx:
        known = await tx.scalar(
            select(users.c.id).where(users.c.email == email, in_organization(actor.organization_id))
        )
        if known is None and actor.kind != "operator":
            raise InvalidRequest(f"{email} is not in your organization yet. Send an invitation instead.")
        user = await find_or_create(tx, email)
        await insert_membership(tx, actor.organization_id, workspace_id, user, role)
        members = await count(tx, actor.organization_id)
        detail["extra_seats"] = max(0, members - plan.included_members) if plan.included_members is not None else 0
        token = await make_link(tx, email) if actor.kind == "operator" and not user.has_password else None
    return Added(user, token)


async def change_role(db: Database, actor: Actor, user_id: str, workspace_id: str, role: Role) -> None:
    """Give somebody another role in a workspace; it counts at their next request.

    Raises ``Forbidden`` for one's own role and without being admin of that workspace, ``InvalidRequest`` for the
    owner role, ``NotFound`` when the person has no role there.
    """
    _require_assignable(role)
    there = await actor_in(db, actor, workspace_id)
    if user_id == actor.user_id:
        await audit.record_refusal(db, there, Action.MEMBERSHIP_CHANGE_ROLE, user_id)
        raise Forbidden("Nobody changes their own role. Ask another admin, or the owner.")
    detail: dict[str, Any] = {"workspace": workspace_id, "role": role.word}
    async with perform(db, there, Action.MEMBERSHIP_CHANGE_ROLE, user_id, detail) as tx:
        theirs = _membership(actor.organization_id, workspace_id, user_id)
        before = await tx.scalar(select(memberships.c.role).where(theirs).with_for_update())
        if before is None:
            raise NotFound
        detail["before"] = before
        await tx.execute(update(memberships).where(theirs).values(role=role.word))


async def remove(db: Database, actor: Actor, user_id: str, workspace_id: str) -> None:
    """Take somebody out of a workspace: from their next request on they are not in it, nor are their API tokens.

    With the last workspace goes their cap.

    Raises ``NotFound`` when the person has no role there; so the owner cannot be removed.
    """
    there = await actor_in(db, actor, workspace_id)
    detail: dict[str, Any] = {"workspace": workspace_id}
    async with perform(db, there, Action.MEMBERSHIP_REMOVE, user_id, detail) as tx:
        gone = delete(memberships).where(_membership(actor.organization_id, workspace_id, user_id))
        role = await tx.scalar(gone.returning(memberships.c.role))
        if role is None:
            raise NotFound
        detail["before"] = role
        still = select(memberships.c.user_id).where(
            memberships.c.organization_id == actor.organization_id, memberships.c.user_id == user_id
        )
        theirs = (caps.c.organization_id == actor.organization_id) & (caps.c.scope == "member")
        await tx.execute(delete(caps).where(theirs & (caps.c.subject_id == user_id) & ~still.exists()))


async def count(tx: Transaction, organization_id: str) -> int:
    """How many people an organization has, its owner included."""
    return len(list(await tx.scalars(select(users.c.id).where(in_organization(organization_id)))))


def in_organization(organization_id: str) -> ColumnElement[bool]:
    """Whether a row of ``users`` is the organization's owner or a member of one of its workspaces."""
    owner = select(organizations.c.owner_id).where(organizations.c.id == organization_id)
    members = select(memberships.c.user_id).where(memberships.c.organization_id == organization_id)
    return or_(users.c.id.in_(owner), users.c.id.in_(members))


async def insert_membership(tx: Transaction, organization_id: str, workspace_id: str, user: User, role: Role) -> None:
    """Insert a membership. Raises ``Conflict`` for somebody who has a role there, or is the owner."""
    if await _owner_id(tx, organization_id) == user.id:
        raise Conflict(f"{user.email} owns this organization and is in all its workspaces.")
    try:
        async with tx.begin_nested():
            await tx.execute(
                insert(memberships).values(
                    workspace_id=workspace_id,
                    organization_id=organization_id,
                    user_id=user.id,
                    role=role.word,
                    created_at=clock.now(),
                )
            )
    except IntegrityError as error:
        raise Conflict(f"{user.email} is in this workspace already.") from error


async def stands_elsewhere(tx: Transaction, user: User, organization_id: str) -> bool:
    """Whether a person owns or belongs to another organization than this."""
    owned = select(organizations.c.id).where(organizations.c.owner_id == user.id, organizations.c.id != organization_id)
    joined = select(memberships.c.organization_id).where(
        memberships.c.user_id == user.id, memberships.c.organization_id != organization_id
    )
    return await tx.scalar(owned.union(joined).limit(1)) is not None


async def workspaces_of(tx: Transaction, user: User, organization_id: str) -> Sequence[str]:
    """The ids of an organization's workspaces that a person has a role in, archived ones included."""
    theirs = (memberships.c.organization_id == organization_id) & (memberships.c.user_id == user.id)
    return list(await tx.scalars(select(memberships.c.workspace_id).where(theirs)))


def _require_assignable(role: Role) -> None:
    if role >= Role.OWNER:
        raise InvalidRequest("Owner is not a role to give. Choose user, developer or admin.")


def _membership(organization_id: str, workspace_id: str, user_id: str) -> ColumnElement[bool]:
    return (
        (memberships.c.organization_id == organization_id)
        & (memberships.c.workspace_id == workspace_id)
        & (memberships.c.user_id == user_id)
    )


async def _owner_id(tx: Transaction, organization_id: str) -> str | None:
    owner: str | None = await tx.scalar(select(organizations.c.owner_id).where(organizations.c.id == organization_id))
    return owner
