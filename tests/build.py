"""Builders of what a test needs to begin with: an organization, people with roles, their sessions and tokens.

They go through the product's own functions, so nothing they make could not exist.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import count

from sqlalchemy import text

from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, memberships, organizations, sessions, subscriptions
from ownkey.accounts.organizations import Created
from ownkey.accounts.users import User
from ownkey.db.engine import Database
from ownkey.plans import DEFAULT_CATALOGUE, Catalogue
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing

PASSWORD = "violet tram under rain"

_numbers = count(1)


async def organization(
    db: Database,
    *,
    plan: str = "enterprise",
    name: str = "",
    owner_email: str = "",
    catalogue: Catalogue = DEFAULT_CATALOGUE,
) -> Created:
    """An organization with its first workspace and an owner; every one has another name and owner.

    On Enterprise, if nothing else is said: plans are no concern of most tests.
    """
    number = next(_numbers)
    return await organizations.create(
        db,
        Actor.operator(),
        catalogue,
        name or f"Organization {number}",
        owner_email or f"owner{number}@example.com",
        plan,
    )


async def member(db: Database, created: Created, role: Role, *, email: str = "", workspace_id: str = "") -> User:
    """A person with this role in the organization's first (or the given) workspace; for ``OWNER`` its owner."""
    if role is Role.OWNER:
        return created.owner
    operator = Actor.operator(created.organization.id, created.workspace.id)
    plan = await subscriptions.plan_of(db, operator, DEFAULT_CATALOGUE)
    email = email or f"{role.word}{next(_numbers)}@example.com"
    added = await memberships.add(db, operator, email, role, workspace_id or created.workspace.id, plan)
    return added.user


async def session(db: Database, user: User, *, workspace_id: str | None = None) -> str:
    """The token of a new session, as if the person had just signed in."""
    async with db.transaction() as tx:
        return await sessions.start(tx, user.id, "127.0.0.1", "tests", workspace_id)


async def actor(db: Database, created: Created, role: Role | None, *, workspace_id: str = "") -> Actor:
    """A new signed-in person with this role in the first (or the given) workspace; None for the operator."""
    place = workspace_id or created.workspace.id
    if role is None:
        return Actor.operator(created.organization.id, place)
    person = await member(db, created, role, workspace_id=workspace_id)
    return acting(person, created, role, workspace_id=place)


def acting(user: User, created: Created, role: Role, *, workspace_id: str = "") -> Actor:
    """A person as the actor of a request with this role, whatever the database says of them by now."""
    place = workspace_id or created.workspace.id
    return replace(user.acting(created.organization.id), workspace_id=place, role=role)


async def api_token(
    db: Database, created: Created, *, scopes: Collection[str] = ("gateway",), by: Actor | None = None
) -> str:
    """The text of a new API token for the first workspace, made by the operator or by ``by``."""
    maker = by or Actor.operator(created.organization.id, created.workspace.id)
    _, token = await api_tokens.create(db, maker, f"Token {next(_numbers)}", scopes)
    return token


def keyring() -> KeyRing:
    """A key ring with one new key."""
    return KeyRing([Kek.parse(new_kek())])


async def broken_audit_log(db: Database) -> None:
    """Make every new entry of the audit log fail in the database, as a full disk would."""
    before_each_entry = "CREATE TRIGGER broken BEFORE INSERT ON audit_entries"
    async with db.transaction() as tx:
        if db.dialect == "sqlite":
            await tx.execute(text(f"{before_each_entry} BEGIN SELECT RAISE(ABORT, 'broken'); END"))
        else:
            body = "$$ BEGIN RAISE 'broken'; END $$"
            await tx.execute(text(f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS {body}"))
            await tx.execute(text(f"{before_each_entry} FOR EACH ROW EXECUTE FUNCTION broken()"))
