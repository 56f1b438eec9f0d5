"""Signing in: with a one-time link, which sets the password, or with e-mail and password.

An account allows ten wrong passwords in fifteen minutes, counted in the database and so over all nodes; after a
hundred without a right one in between it takes a new link. A session that is open already is never affected.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from math import ceil

from sqlalchemy import delete, func, insert, select, update

from ownkey import audit, clock
from ownkey.access import Action, Actor
from ownkey.accounts import links, passwords, sessions
from ownkey.accounts.links import link_email as link_email
from ownkey.accounts.links import make_link as make_link
from ownkey.accounts.names import clean_name
from ownkey.accounts.places import home_of
from ownkey.accounts.sessions import SignedIn
from ownkey.accounts.users import User, find, normal_email
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import sign_in_attempts, users
from ownkey.errors import Expired, InvalidRequest, NotAuthenticated, TooManyAttempts

WINDOW = timedelta(minutes=15)
MOST_IN_WINDOW = 10
MOST_IN_A_ROW = 100
# Counts of accounts that nobody signs in to are forgotten after this long.
_FORGET_AFTER = timedelta(days=365)


async def redeem_link(
    db: Database,
    token: str,
    password: str,
    name: str = "",
    ip: str | None = None,
    user_agent: str | None = None,
    context: Iterable[str] = (),
) -> str:
    """Use a one-time link: set the password (and the name, if given), end other sessions, start one.

    Returns the session's token. ``context`` are further words that may not be in the password, such as the
    application's name. Raises ``Expired``, also for a disabled person, and ``InvalidRequest`` for a poor password,
    which leaves the link unused.
    """
    email, name = await link_email(db, token), clean_name(name) if name else ""
    passwords.check(password, context=(email, name, *context))
    kept = await passwords.hash_password(password)
    async with db.transaction() as tx:
        await links.use_up(tx, token)
        user = await find(tx, email)
        if user is None or user.disabled_at is not None:
            raise Expired
        await tx.execute(update(users).where(users.c.id == user.id).values(password_hash=kept, name=name or user.name))
        await sessions.end_all(tx, user.id)
        await _clear_attempts(tx, email)
        actor = user.acting(await home_of(tx, user.id))
        await audit.record(tx, actor, Action.PASSWORD_CHANGE, user.id, detail={"by": "link"})
        return await _begin(tx, actor, user.id, "link", ip, user_agent)


async def with_password(
    db: Database, email: str, password: str, ip: str | None = None, user_agent: str | None = None
) -> str:
    """Sign in. Returns the session's token.

    Raises ``NotAuthenticated`` alike for an unknown address and a wrong password, after the same work; raises
    ``TooManyAttempts``, before looking at the password, when the account has had its wrong ones.
    """
    try:
        email = normal_email(email)
    except InvalidRequest as error:
        raise _wrong() from error
    await _take_attempt(db, email)
    user, kept = await _kept_password(db, email)
    if not await passwords.verify(kept, password) or user is None or user.disabled_at is not None:
        await _record_refusal(db, user, email)
        raise _wrong()
    renewed = await passwords.hash_password(password) if kept and passwords.is_outdated(kept) else None
    async with db.transaction() as tx:
        # Changed or disabled since we looked? Then this was not the password any more.
        row = select(users.c.id).where(
            users.c.id == user.id, users.c.password_hash == kept, users.c.disabled_at.is_(None)
        )
        if await tx.scalar(row.with_for_update(key_share=True)) is None:
            raise _wrong()
        if renewed is not None:
            await tx.execute(update(users).where(users.c.id == user.id).values(password_hash=renewed))
        await _clear_attempts(tx, email)
        return await _begin(tx, user.acting(await home_of(tx, user.id)), user.id, "password", ip, user_agent)


async def confirm_password(db: Database, signed_in: SignedIn, password: str) -> None:
    """Take the password again, so that ``signed_in.is_recent`` holds from the next request on.

    Raises ``InvalidRequest`` when it is wrong, ``TooManyAttempts`` after ten wrong ones in this session, and
    ``NotAuthenticated`` when that has ended meanwhile.
    """
    await _require_own_password(db, signed_in, password, Action.SESSION_SIGN_IN)
    async with perform(db, signed_in.actor, Action.SESSION_SIGN_IN, signed_in.session_id, {"by": "confirmation"}) as tx:
        await sessions.note_authenticated(tx, signed_in.session_id)
        await _clear_attempts(tx, signed_in.session_id)


async def change_password(
    db: Database, signed_in: SignedIn, current: str, new: str, context: Iterable[str] = ()
) -> None:
    """Replace the person's password and end their other sessions and open links.

    Raises ``InvalidRequest`` when the current one is wrong or the new one poor, ``TooManyAttempts`` after ten wrong
    ones in this session, ``NotAuthenticated`` when meanwhile the password was changed or the session ended elsewhere.
    """
    user = signed_in.user
    passwords.check(new, context=(user.email, user.name, *context))
    given = await _require_own_password(db, signed_in, current, Action.PASSWORD_CHANGE)
    kept = await passwords.hash_password(new)
    async with perform(db, signed_in.actor, Action.PASSWORD_CHANGE, user.id, {"by": "password"}) as tx:
        # Changed since we looked? Then somebody with an old password would undo it, a recovery above all.
        same = update(users).where(users.c.id == user.id, users.c.password_hash == given)
        if (await tx.execute(same.values(password_hash=kept))).rowcount != 1:
            raise NotAuthenticated("Your password was changed meanwhile, so nothing was done. Sign in again.")
        await sessions.end_all(tx, user.id, except_session_id=signed_in.session_id)
        await sessions.note_authenticated(tx, signed_in.session_id)
        await links.void_all(tx, user.email)
        await _clear_attempts(tx, user.email)
        await _clear_attempts(tx, signed_in.session_id)


async def delete_expired(db: Database) -> int:
    """Forget links that nobody can use any more and failed attempts that are a year old. Returns how many."""
    async with db.transaction() as tx:
        old = sign_in_attempts.c.at <= clock.now() - _FORGET_AFTER
        attempts = await tx.execute(delete(sign_in_attempts).where(old))
        return attempts.rowcount + await links.delete_expired(tx)


def _wrong() -> NotAuthenticated:
    return NotAuthenticated("The e-mail address or the password is wrong.")


async def _begin(tx: Transaction, actor: Actor, user_id: str, by: str, ip: str | None, user_agent: str | None) -> str:
    token = await sessions.start(tx, user_id, ip, user_agent)
    await audit.record(tx, actor, Action.SESSION_SIGN_IN, user_id, detail={"by": by, "ip": ip or ""})
    return token


async def _kept_password(db: Database, email: str) -> tuple[User | None, str | None]:
    async with db.read() as tx:
        user = await find(tx, email)
        kept: str | None = await tx.scalar(select(users.c.password_hash).where(users.c.email == email))
    return user, kept


async def _require_own_password(db: Database, signed_in: SignedIn, password: str, action: Action) -> str | None:
    """The hash that the password was found to be right for."""
    # Counted by session: wrong passwords of strangers on the sign-in page do not shut out who is signed in.
    await _take_attempt(db, signed_in.session_id)
    _, kept = await _kept_password(db, signed_in.user.email)
    if not await passwords.verify(kept, password):
        await audit.record_refusal(db, signed_in.actor, action, signed_in.user.id)
        raise InvalidRequest("The current password is wrong.")
    return kept


async def _take_attempt(db: Database, account: str) -> None:
    """Count an attempt as failed before it is made, so that no number of simultaneous ones gets past the limit."""
    now = clock.now()
    async with db.transaction() as tx:
        if tx.dialect.name == "postgresql":
            await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(account, 0))))
        earlier = select(sign_in_attempts.c.at).where(sign_in_attempts.c.email == account)
        times = list(await tx.scalars(earlier.order_by(sign_in_attempts.c.at.desc()).limit(MOST_IN_A_ROW)))
        if len(times) >= MOST_IN_A_ROW:
            raise TooManyAttempts("Too many wrong passwords in a row. Ask for a new sign-in link.")
        recent = [at for at in times if at > now - WINDOW]
        if len(recent) >= MOST_IN_WINDOW:
            wait = recent[MOST_IN_WINDOW - 1] + WINDOW - now
            raise TooManyAttempts(headers={"retry-after": str(ceil(wait.total_seconds()))})
        await tx.execute(insert(sign_in_attempts).values(email=account, at=now))


async def _clear_attempts(tx: Transaction, account: str) -> None:
    await tx.execute(delete(sign_in_attempts).where(sign_in_attempts.c.email == account))


async def _record_refusal(db: Database, user: User | None, email: str) -> None:
    async with db.transaction() as tx:
        # The same steps for a person who exists and one who does not.
        home = await home_of(tx, user.id if user else "")
        actor = user.acting(home) if user else Actor("user", "unknown", email)
        await audit.record(tx, actor, Action.SESSION_SIGN_IN, user.id if user else email, allowed=False)
