"""Session: a person's signed-in browser. The cookie holds a random token; we keep its hash.

A session ends after 12 hours without a request and after 30 days in any case. What its person may do is read anew at
every request, so a removed member or a changed role counts at the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from ownkey import audit, clock
from ownkey.access import Action, Actor
from ownkey.accounts.organizations import Organization
from ownkey.accounts.places import Place as Place  # a part of SignedIn
from ownkey.accounts.places import home_of, places_of
from ownkey.accounts.users import USER_COLUMNS, User, user_of
from ownkey.accounts.workspaces import Workspace
from ownkey.credentials import new_link_token, token_hash
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import sessions, users
from ownkey.errors import Forbidden, NotAuthenticated, NotFound, OwnkeyError
from ownkey.ids import new_id

IDLE = timedelta(hours=12)
ABSOLUTE = timedelta(days=30)
# A page that changes keys or roles asks for the password again after this long.
RECENT = timedelta(minutes=10)
_SEEN_EVERY = timedelta(minutes=1)
_LONGEST_USER_AGENT = 300
_OVER = "This session has ended. Sign in again."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who sent a request and where they are: the user, their active place as an ``Actor``, and all their places."""

    session_id: str
    user: User
    actor: Actor
    organization: Organization
    workspace: Workspace
    places: Sequence[Place]
    authenticated_at: datetime

    @property
    def is_recent(self) -> bool:
        """Whether the password was given within the last ten minutes."""
        return clock.now() - self.authenticated_at <= RECENT

    def told_apart(self, organization: Organization) -> str:
        """The name of one of their organizations, with its slug if another of them has the same name."""
        others = (place.organization for place in self.places if place.organization.id != organization.id)
        same = any(other.name == organization.name for other in others)
        return f"{organization.name} ({organization.slug})" if same else organization.name


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its person sees it in the list of their sessions."""

    id: str
    created_at: datetime
    last_seen_at: datetime
    ip: str | None
    user_agent: str | None


async def start(
    tx: Transaction,
    user_id: str,
    ip: str | None,
    user_agent: str | None,
    workspace_id: str | None = None,
    *,
    after: str | None = None,
) -> str:
    """Begin a session for somebody who has just proved who they are. Returns its token, shown to nobody else.

    ``after`` is the id of a session of theirs that it takes the place of: nothing was proved anew then, so the
    password counts as given when it was, and the end stays. Raises ``NotAuthenticated`` if that session is over.
    """
    token = new_link_token()
    now = clock.now()
    authenticated_at, expires_at = now, now + ABSOLUTE
    if after is not None:
        earlier = select(sessions.c.authenticated_at, sessions.c.expires_at)
        row = (await tx.execute(earlier.where(sessions.c.id == after, sessions.c.user_id == user_id))).one_or_none()
        if row is None:
            raise NotAuthenticated(_OVER)
        authenticated_at, expires_at = row
    await tx.execute(
        insert(sessions).values(
            id=new_id("ses"),
            user_id=user_id,
            workspace_id=workspace_id,
            token_hash=token_hash(token),
            created_at=now,
            authenticated_at=authenticated_at,
            last_seen_at=now,
            expires_at=expires_at,
            ip=ip,
            user_agent=user_agent[:_LONGEST_USER_AGENT] if user_agent else None,
        )
    )
    return token


async def resolve(db: Database, token: str) -> SignedIn | None:
    """Who a session token belongs to, as things stand now; None without a live session.

    Raises ``Forbidden`` for somebody who has no workspace (any more): they are known, but have nowhere to be.
    """
    now = clock.now()
    columns = (sessions.c.id, sessions.c.workspace_id, sessions.c.authenticated_at, sessions.c.last_seen_at)
    query = (
        select(*columns, *USER_COLUMNS)
        .join(users, users.c.id == sessions.c.user_id)
        .where(
            sessions.c.token_hash == token_hash(token),
            sessions.c.expires_at > now,
            sessions.c.last_seen_at > now - IDLE,
            users.c.disabled_at.is_(None),
        )
    )
    async with db.read() as tx:
        row = (await tx.execute(query)).one_or_none()
        if row is None:
            return None
        session_id, workspace_id, authenticated_at, last_seen_at = row[: len(columns)]
        user = User(*row[len(columns) :])
        places = await places_of(tx, user.id)
    if now - last_seen_at >= _SEEN_EVERY:
        await _note_seen(db, session_id, now)
    if not places:
        raise Forbidden("You are not in any workspace (any more). Ask an admin to add you.")
    place = next((place for place in places if place.workspace.id == workspace_id), places[0])
    return SignedIn(
        session_id, user, _actor(user, place), place.organization, place.workspace, places, authenticated_at
    )


async def switch_workspace(db: Database, signed_in: SignedIn, workspace_id: str) -> None:
    """Make another place of the person the session's active one. Raises ``NotFound`` if it is none of theirs."""
    if all(place.workspace.id != workspace_id for place in signed_in.places):
        raise NotFound
    async with db.transaction() as tx:
        mine = sessions.c.id == signed_in.session_id
        await tx.execute(update(sessions).where(mine).values(workspace_id=workspace_id))


async def list_for(db: Database, user_id: str) -> Sequence[SessionInfo]:
    """A person's live sessions, the last seen first."""
    now = clock.now()
    query = (
        select(sessions.c.id, sessions.c.created_at, sessions.c.last_seen_at, sessions.c.ip, sessions.c.user_agent)
        .where(sessions.c.user_id == user_id, sessions.c.expires_at > now, sessions.c.last_seen_at > now - IDLE)
        .order_by(sessions.c.last_seen_at.desc())
    )
    async with db.read() as tx:
        return [SessionInfo(*row) for row in await tx.execute(query)]


async def revoke(db: Database, token: str) -> None:
    """End the session of this token: sign out. Without one there is nothing to do."""
    async with db.transaction() as tx:
        ended = await tx.execute(
            delete(sessions)
            .where(sessions.c.token_hash == token_hash(token))
            .returning(sessions.c.id, sessions.c.user_id)
        )
        row = ended.one_or_none()
        if row is not None:
            await _record_ended(tx, row.user_id, row.id, 1)


async def revoke_one(db: Database, signed_in: SignedIn, session_id: str) -> None:
    """End one of the person's own sessions. Raises ``NotFound`` if it is none of theirs."""
    async with db.transaction() as tx:
        mine = (sessions.c.id == session_id) & (sessions.c.user_id == signed_in.user.id)
        ended = await tx.execute(delete(sessions).where(mine))
        if ended.rowcount != 1:
            raise NotFound
        await _record_ended(tx, signed_in.user.id, session_id, 1)


async def revoke_all(db: Database, user_id: str, except_session_id: str | None = None) -> None:
    """End all sessions of a person, but for one."""
    async with db.transaction() as tx:
        ended = await end_all(tx, user_id, except_session_id)
        await _record_ended(tx, user_id, "all others" if except_session_id else "all", ended)


async def end_all(tx: Transaction, user_id: str, except_session_id: str | None = None) -> int:
    """End all sessions of a person, but for one, within the change that calls for it. Returns how many ended."""
    theirs = delete(sessions).where(sessions.c.user_id == user_id)
    if except_session_id is not None:
        theirs = theirs.where(sessions.c.id != except_session_id)
    return (await tx.execute(theirs)).rowcount


async def note_authenticated(tx: Transaction, session_id: str) -> None:
    """Remember that the person of a session has just given their password.

    Raises ``NotAuthenticated`` if the session is over by now.
    """
    noted = update(sessions).where(sessions.c.id == session_id).values(authenticated_at=clock.now())
    if (await tx.execute(noted)).rowcount != 1:
        raise NotAuthenticated(_OVER)


async def delete_expired(db: Database) -> int:
    """Forget sessions that nobody can use any more. Returns how many."""
    now = clock.now()
    async with db.transaction() as tx:
        over = or_(sessions.c.expires_at <= now, sessions.c.last_seen_at <= now - IDLE)
        return (await tx.execute(delete(sessions).where(over))).rowcount


def _actor(user: User, place: Place) -> Actor:
    return Actor("user", user.id, user.label, place.organization.id, place.workspace.id, place.role, user.id)


async def _note_seen(db: Database, session_id: str, now: datetime) -> None:
    try:
        async with db.transaction() as tx:
            await tx.execute(update(sessions).where(sessions.c.id == session_id).values(last_seen_at=now))
    except (OwnkeyError, SQLAlchemyError) as error:
        # When somebody was last seen is no reason to turn them away.
        log.warning("session_not_noted", error=type(error).__name__)


async def _record_ended(tx: Transaction, user_id: str, target: str, ended: int) -> None:
    user = user_of((await tx.execute(select(*USER_COLUMNS).where(users.c.id == user_id))).one())
    actor = user.acting(await home_of(tx, user_id))
    await audit.record(tx, actor, Action.SESSION_REVOKE, target, detail={"sessions": ended})
