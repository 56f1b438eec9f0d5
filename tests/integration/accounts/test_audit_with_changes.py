"""No change without its entry: when the log cannot be written, nothing is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Table, func, select
from sqlalchemy.exc import DBAPIError

from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, invitations, memberships, organizations, sessions, sign_in, subscriptions
from ownkey.accounts import users as people
from ownkey.accounts import workspaces as places
from ownkey.accounts.organizations import Created
from ownkey.db.engine import Database
from ownkey.db.tables import metadata
from ownkey.errors import Unavailable
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

PLAN = DEFAULT_CATALOGUE["enterprise"]
# Failed attempts are counted before anything else, and stay counted.
_COUNTED_ANYWAY = {"sign_in_attempts"}


async def everything(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""

    async def rows(table: Table) -> list[tuple[object, ...]]:
        async with db.read() as tx:
            return sorted((tuple(row) for row in await tx.execute(select(table))), key=repr)

    return {table.name: await rows(table) for table in metadata.tables.values() if table.name not in _COUNTED_ANYWAY}


async def test_a_change_that_cannot_be_recorded_is_not_made(database: Database) -> None:
    """Roles, members, invitations, tokens, plans, names, passwords and sign-ins: all are rolled back entirely."""
    made = await build.organization(database)
    link = made.sign_in_token
    actor = build.acting(made.owner, made, Role.OWNER)
    person = await build.member(database, made, Role.USER)
    token, _ = await api_tokens.create(database, actor, "CI", ["gateway"])
    invitation, invited = await invitations.create(database, actor, "guest@example.com", Role.USER, made.workspace.id)
    session = await build.session(database, made.owner)
    signed_in = await sessions.resolve(database, session)
    assert signed_in is not None
    await build.broken_audit_log(database)
    before = await everything(database)
    for change in changes(database, made, actor, person.id, token.id, invitation.id, link, invited, session):
        with pytest.raises((DBAPIError, Unavailable)):
            await change()
        assert await everything(database) == before
    async with database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(metadata.tables["organizations"])) == 1


def changes(
    db: Database,
    made: Created,
    actor: Actor,
    person: str,
    token: str,
    invitation: str,
    link: str,
    invited: str,
    session: str,
) -> list[Callable[[], Awaitable[object]]]:
    """One change of each kind."""
    place, operator = made.workspace.id, Actor.operator(made.organization.id, made.workspace.id)
    return [
        lambda: people.rename(db, actor, "New"),
        lambda: organizations.rename(db, actor, "New"),
        lambda: organizations.create(db, Actor.operator(), DEFAULT_CATALOGUE, "New", "new@example.com"),
        lambda: places.rename(db, actor, "New"),
        lambda: places.create(db, actor, PLAN, "New"),
        lambda: memberships.add(db, operator, "new@example.com", Role.USER, place, PLAN),
        lambda: memberships.change_role(db, actor, person, place, Role.ADMIN),
        lambda: memberships.remove(db, actor, person, place),
        lambda: invitations.create(db, actor, "new@example.com", Role.USER, place),
        lambda: invitations.revoke(db, actor, invitation),
        lambda: invitations.accept(db, invited, password=build.PASSWORD),
        lambda: api_tokens.create(db, actor, "New", ["gateway"]),
        lambda: api_tokens.rename(db, actor, token, "New"),
        lambda: api_tokens.revoke(db, actor, token),
        lambda: subscriptions.change(db, actor, DEFAULT_CATALOGUE, "professional"),
        lambda: sign_in.redeem_link(db, link, build.PASSWORD),
        lambda: sessions.revoke(db, session),
        lambda: sessions.revoke_all(db, made.owner.id),
    ]
