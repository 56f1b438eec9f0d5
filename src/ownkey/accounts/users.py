"""User: a person who can sign in."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from ownkey import clock
from ownkey.access import Action, Actor
from ownkey.accounts.names import clean_name
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import users
from ownkey.errors import InvalidRequest, NotFound
from ownkey.ids import new_id

_EMAIL = re.compile(r"""[^\s@<>()\[\]\\,;:"]+@[^\W_](?:[\w.-]*[^\W_])?""")


@dataclass(frozen=True, slots=True)
class User:
    """A person who can sign in. ``email`` is in the form that ``normal_email`` gives."""

    id: str
    email: str
    name: str
    has_password: bool
    created_at: datetime
    disabled_at: datetime | None

    @property
    def label(self) -> str:
        """What lists and the audit log call this person: the name, or the e-mail address."""
        return self.name or self.email

    def acting(self, organization_id: str = "") -> Actor:
        """This person without a role, for the audit entries of what needs none, such as signing in."""
        return Actor("user", self.id, self.label, organization_id, user_id=self.id)


USER_COLUMNS: tuple[ColumnElement[Any], ...] = (
    users.c.id,
    users.c.email,
    users.c.name,
    users.c.password_hash.is_not(None).label("has_password"),
    users.c.created_at,
    users.c.disabled_at,
)


def user_of(row: Row[Any]) -> User:
    """The user in a row of ``USER_COLUMNS``."""
    return User(**row._mapping)


def normal_email(text: str) -> str:
    """The address as we compare it: NFKC, lower case, no white space around.

    One account has one spelling, so that neither a second account nor a second count of failed sign-ins comes from
    writing it differently. Raises ``InvalidRequest`` when it is no address.
    """
    email = unicodedata.normalize("NFKC", text).strip().lower()
    printable = all(unicodedata.category(mark)[0] != "C" for mark in email)
    if len(email) > 254 or not printable or not _EMAIL.fullmatch(email):
        raise InvalidRequest("Write an e-mail address, such as name@example.com.")
    return email


async def find_or_create(tx: Transaction, email: str, name: str = "") -> User:
    """The user with this address; a new one without a password if there is none."""
    email = normal_email(email)
    found = await find(tx, email)
    if found is not None:
        return found
    try:
        async with tx.begin_nested():
            values = {"id": new_id("usr"), "email": email, "name": clean_name(name) if name else ""}
            await tx.execute(insert(users).values(created_at=clock.now(), **values))
    except IntegrityError:
        pass  # Somebody else made it between our look and our insert.
    return user_of((await tx.execute(select(*USER_COLUMNS).where(users.c.email == email))).one())


async def find(tx: Transaction, email: str) -> User | None:
    """The user with this normalised address, in a transaction at hand."""
    row = (await tx.execute(select(*USER_COLUMNS).where(users.c.email == email))).one_or_none()
    return user_of(row) if row else None


async def by_id(db: Database, user_id: str) -> User:
    """The user with this id. Raises ``NotFound``."""
    async with db.read() as tx:
        row = (await tx.execute(select(*USER_COLUMNS).where(users.c.id == user_id))).one_or_none()
    if row is None:
        raise NotFound
    return user_of(row)


async def by_email(db: Database, email: str) -> User | None:
    """The user with this address, or None. Raises ``InvalidRequest`` when it is no address."""
    async with db.read() as tx:
        return await find(tx, normal_email(email))


async def rename(db: Database, actor: Actor, name: str) -> None:
    """Change the actor's own name. Raises ``InvalidRequest`` for an unusable one, ``NotFound`` without a person."""
    if actor.user_id is None:
        raise NotFound("Only a signed-in person has a name to change.")
    name = clean_name(name)
    async with perform(db, actor, Action.ACCOUNT_UPDATE, actor.user_id) as tx:
        await tx.execute(update(users).where(users.c.id == actor.user_id).values(name=name))
