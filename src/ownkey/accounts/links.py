"""One-time links: whoever opens one chooses a password for the address it was made for, once, within seven days."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from ownkey import clock
from ownkey.accounts.users import normal_email
from ownkey.credentials import new_link_token, token_hash
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import one_time_tokens
from ownkey.errors import Expired
from ownkey.ids import new_id

LIFETIME = timedelta(days=7)


async def make_link(tx: Transaction, email: str, purpose: str = "sign_in", lifetime: timedelta = LIFETIME) -> str:
    """The token of a new link, which is kept as a hash only; the caller puts it into an address."""
    token = new_link_token()
    now = clock.now()
    await tx.execute(
        insert(one_time_tokens).values(
            id=new_id("otl"),
            email=normal_email(email),
            purpose=purpose,
            token_hash=token_hash(token),
            created_at=now,
            expires_at=now + min(lifetime, LIFETIME),
        )
    )
    return token


async def link_email(db: Database, token: str) -> str:
    """The address a link was made for; the link is not used up. Raises ``Expired``."""
    query = select(one_time_tokens.c.email).where(
        one_time_tokens.c.token_hash == token_hash(token),
        one_time_tokens.c.used_at.is_(None),
        one_time_tokens.c.expires_at > clock.now(),
    )
    async with db.read() as tx:
        email: str | None = await tx.scalar(query)
    if email is None:
        raise Expired
    return email


async def use_up(tx: Transaction, token: str) -> str:
    """Use a link, and with it every other link of its address. Returns the address; raises ``Expired``.

    Of two at the same moment one wins: the update finds the row unused only once.
    """
    now = clock.now()
    open_links = update(one_time_tokens).where(one_time_tokens.c.used_at.is_(None)).values(used_at=now)
    mine = open_links.where(one_time_tokens.c.token_hash == token_hash(token), one_time_tokens.c.expires_at > now)
    email: str | None = await tx.scalar(mine.returning(one_time_tokens.c.email))
    if email is None:
        raise Expired
    await void_all(tx, email)
    return email


async def void_all(tx: Transaction, email: str) -> None:
    """Make every open link of an address useless, because its password was just chosen."""
    others = update(one_time_tokens).where(one_time_tokens.c.email == email, one_time_tokens.c.used_at.is_(None))
    await tx.execute(others.values(used_at=clock.now()))


async def delete_expired(tx: Transaction) -> int:
    """Forget links that nobody can use any more. Returns how many."""
    gone = await tx.execute(delete(one_time_tokens).where(one_time_tokens.c.expires_at <= clock.now()))
    return gone.rowcount
