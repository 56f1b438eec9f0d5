"""Invitation: an offer of a membership, by e-mail, once, for seven days.

Its role is fixed when it is made. It is void as soon as whoever made it could no longer make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, insert, select, update

from ownkey import audit, clock
from ownkey.access import LOWEST_ROLE, Action, Actor, Role
from ownkey.accounts import links, memberships, passwords, sessions, users
from ownkey.accounts.names import clean_name
from ownkey.accounts.places import actor_in, require, role_of
from ownkey.accounts.users import User, normal_email
from ownkey.changes import perform
from ownkey.credentials import new_link_token, token_hash
from ownkey.db import tables
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import invitations
from ownkey.errors import Conflict, Expired, Forbidden, InvalidRequest, NotFound
from ownkey.ids import new_id

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An offer to ``email`` of ``role`` in a workspace. ``invited_by`` is a name to show."""

    id: str
    organization_id: str
    workspace_id: str
    workspace_name: str
    email: str
    role: Role
    invited_by: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Offer:
    """What whoever opens an invitation sees. With ``has_account`` they sign in to accept, else choose a password."""

    invitation: Invitation
    organization_name: str
    has_account: bool


async def create(db: Database, actor: Actor, email: str, role: Role, workspace_id: str) -> tuple[Invitation, str]:
    """Invite somebody into a workspace; an earlier open invitation of theirs to it ends.

    Returns the invitation and its token, which is shown or mailed now and never again. Raises ``Conflict`` for who
    is there already, ``InvalidRequest`` for the owner role and a bad address.
    """
    email = normal_email(email)
    if role >= Role.OWNER:
        raise InvalidRequest("Owner is not a role to give. Choose user, developer or admin.")
    there = await actor_in(db, actor, workspace_id)
    token, invitation_id, now = new_link_token(), new_id("inv"), clock.now()
    detail = {"email": email, "role": role.word, "workspace": workspace_id}
    async with perform(db, there, Action.INVITATION_CREATE, invitation_id, detail) as tx:
        user = await users.find(tx, email)
        if user and await role_of(tx, user.id, actor.organization_id, workspace_id) is not None:
            raise Conflict(f"{email} is in this workspace already.")
        earlier = update(invitations).where(
            invitations.c.workspace_id == workspace_id, invitations.c.email == email, *_open(now)
        )
        await tx.execute(earlier.values(revoked_at=now))
        await tx.execute(
            insert(invitations).values(
                id=invitation_id,
                organization_id=actor.organization_id,
                workspace_id=workspace_id,
                email=email,
                role=role.word,
                token_hash=token_hash(token),
                invited_by=actor.user_id or (actor.id if actor.kind == "api_token" else None),
                created_at=now,
                expires_at=now + LIFETIME,
            )
        )
        row = (await tx.execute(_query().where(invitations.c.id == invitation_id))).one()
    return _invitation_of(row), token


async def list_open(db: Database, actor: Actor) -> Sequence[Invitation]:
    """The organization's invitations that can still be accepted, newest first. Raises ``Forbidden`` below admin."""
    await require(db, actor, Action.MEMBERSHIP_READ, actor.organization_id)
    query = _query().where(invitations.c.organization_id == actor.organization_id, *_open(clock.now()))
    async with db.read() as tx:
        rows = (await tx.execute(query.order_by(invitations.c.id.desc()))).all()
        return [_invitation_of(row) for row in rows if await _inviter_may(tx, row, row.workspace_id)]


async def revoke(db: Database, actor: Actor, invitation_id: str) -> None:
    """Take an open invitation back. Raises ``NotFound``."""
    mine = (invitations.c.id == invitation_id) & (invitations.c.organization_id == actor.organization_id)
    async with db.read() as tx:
        workspace_id = await tx.scalar(select(invitations.c.workspace_id).where(mine))
    there = await actor_in(db, actor, workspace_id or "")
    async with perform(db, there, Action.INVITATION_REVOKE, invitation_id) as tx:
        now = clock.now()
        revoked = await tx.execute(update(invitations).where(mine, *_open(now)).values(revoked_at=now))
        if revoked.rowcount != 1:
            raise NotFound


async def look(db: Database, token: str) -> Offer:
    """What an invitation offers, without accepting it. Raises ``Expired`` when it offers nothing any more."""
    async with db.read() as tx:
        row = await _valid(tx, token)
        user = await users.find(tx, row.email)
    has_account = user is not None and user.has_password
    return Offer(_invitation_of(row), row.organization_name, has_account)


async def accept(
    db: Database,
    token: str,
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    password: str | None = None,
    name: str = "",
    ip: str | None = None,
    user_agent: str | None = None,
    context: Iterable[str] = (),
) -> str:
    """Take up an invitation and start a session in its workspace; returns the session's token.

    Either as ``user_id``, the person it was made for, who has just given their password or is signed in with
    ``session_id``, or with a new ``password`` by somebody who has none. Accepting is no giving of the password: the
    new session is as old as the one of ``session_id``. Raises ``NotAuthenticated`` if that has ended, ``Expired``,
    ``Forbidden`` for another person, ``Conflict`` for who has to sign in first or is in the workspace already,
    ``InvalidRequest`` for a poor password; none of these uses the invitation up.
    """
    offer = await look(db, token)
    kept = None
    if user_id is None:
        passwords.check(password or "", context=(offer.invitation.email, name, *context))
        kept = await passwords.hash_password(password or "")
    async with db.transaction() as tx:
        row = await _valid(tx, token)
        used = update(invitations).where(invitations.c.id == row.id, *_open(clock.now()))
        if (await tx.execute(used.values(accepted_at=clock.now()))).rowcount != 1:
            raise Expired
        if kept is None:
            user = await _invited_person(tx, row, user_id or "")
        else:
            user = await _new_person(tx, row, kept, name)
        await memberships.insert_membership(tx, row.organization_id, row.workspace_id, user, Role.of(row.role))
        actor, detail = user.acting(row.organization_id), {"invitation": row.id, "role": row.role, "email": user.email}
        await audit.record(tx, actor, Action.MEMBERSHIP_ADD, user.id, detail=detail)
        session = await sessions.start(tx, user.id, ip, user_agent, row.workspace_id, after=session_id)
        await audit.record(tx, actor, Action.SESSION_SIGN_IN, user.id, detail={"by": "invitation", "ip": ip or ""})
    return session


async def delete_old(db: Database) -> int:
    """Forget invitations that ended a month ago, whatever became of them. Returns how many."""
    async with db.transaction() as tx:
        old = invitations.c.expires_at <= clock.now() - timedelta(days=30)
        return (await tx.execute(delete(invitations).where(old))).rowcount


def _open(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        invitations.c.accepted_at.is_(None),
        invitations.c.revoked_at.is_(None),
        invitations.c.expires_at > now,
    )


def _query() -> Select[Any]:
    return (
        select(
            invitations,
            tables.workspaces.c.name.label("workspace_name"),
            tables.organizations.c.name.label("organization_name"),
            tables.users.c.name.label("inviter_name"),
            tables.users.c.email.label("inviter_email"),
        )
        .join(tables.workspaces, tables.workspaces.c.id == invitations.c.workspace_id)
        .join(tables.organizations, tables.organizations.c.id == invitations.c.organization_id)
        .outerjoin(tables.users, tables.users.c.id == invitations.c.invited_by)
    )


async def _valid(tx: Transaction, token: str) -> Row[Any]:
    """The row of an invitation that can be accepted. Raises ``Expired``."""
    usable = (tables.workspaces.c.archived_at.is_(None), tables.organizations.c.suspended_at.is_(None))
    query = _query().where(invitations.c.token_hash == token_hash(token), *_open(clock.now()), *usable)
    row: Row[Any] | None = (await tx.execute(query)).one_or_none()
    if row is None or not await _inviter_may(tx, row, row.workspace_id):
        raise Expired
    return row


async def _inviter_may(tx: Transaction, row: Row[Any], workspace_id: str) -> bool:
    """Whether whoever made an invitation may, as things stand now, invite to this workspace of its organization."""
    if row.invited_by is None:
        return True  # The operator made it.
    if row.invited_by.startswith("tok_"):
        # An API token of the operator's, which is admin of its own workspace. Its scopes never change.
        tokens = tables.api_tokens.c
        alive = (tokens.workspace_id == workspace_id, tokens.revoked_at.is_(None))
        return await tx.scalar(select(tokens.id).where(tokens.id == row.invited_by, *alive)) is not None
    role = await role_of(tx, row.invited_by, row.organization_id, workspace_id)
    lowest = LOWEST_ROLE[Action.INVITATION_CREATE]
    return role is not None and lowest is not None and role >= lowest


async def _invited_person(tx: Transaction, row: Row[Any], user_id: str) -> User:
    user = await users.find(tx, row.email)
    if user is None or user.id != user_id or user.disabled_at is not None:
        raise Forbidden(f"This invitation is for {row.email}. Sign in as that person to accept it.")
    return user


async def _new_person(tx: Transaction, row: Row[Any], kept: str, name: str) -> User:
    user = await users.find_or_create(tx, row.email)
    # The link was seen by an admin of this workspace. It may not decide the password of somebody who has one, or who
    # belongs to another organization, or to a workspace where that admin has no say.
    if user.has_password or user.disabled_at is not None:
        raise Conflict(f"{row.email} has an account. Sign in to accept the invitation.")
    if await memberships.stands_elsewhere(tx, user, row.organization_id):
        raise Conflict(f"{row.email} belongs to another organization. Use the sign-in link from there first.")
    for workspace_id in await memberships.workspaces_of(tx, user, row.organization_id):
        if not await _inviter_may(tx, row, workspace_id):
            raise Conflict(f"{row.email} belongs to another workspace. Use the sign-in link from there first.")
    values = {"password_hash": kept, "name": clean_name(name) if name else user.name}
    await tx.execute(update(tables.users).where(tables.users.c.id == user.id).values(**values))
    await links.void_all(tx, row.email)
    return replace(user, name=values["name"], has_password=True)


def _invitation_of(row: Row[Any]) -> Invitation:
    inviter = row.inviter_name or row.inviter_email or "Operator"
    return Invitation(
        id=row.id,
        organization_id=row.organization_id,
        workspace_id=row.workspace_id,
        workspace_name=row.workspace_name,
        email=row.email,
        role=Role.of(row.role),
        invited_by=inviter,
        expires_at=row.expires_at,
    )
