"""Managers: whom a member asks when something needs an admin."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from ownkey import clock
from ownkey.access import Role
from ownkey.accounts import managers, workspaces
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio


async def test_admins_of_the_workspace_and_the_owner(database: Database) -> None:
    """Admins of the active workspace come first, the owner last; nobody else, and nobody of another organization."""
    made, elsewhere = await build.organization(database), await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    await build.actor(database, made, Role.DEVELOPER)
    await build.actor(database, elsewhere, Role.ADMIN)
    second = await workspaces.create(
        database, build.acting(made.owner, made, Role.OWNER), DEFAULT_CATALOGUE["enterprise"], "Second"
    )
    await build.member(database, made, Role.ADMIN, email="elsewhere@example.com", workspace_id=second.id)
    await build.member(database, made, Role.ADMIN, email="b@example.com")
    await build.member(database, made, Role.ADMIN, email="a@example.com")
    found = await managers.list_managers(database, actor)
    assert [person.email for person in found] == ["a@example.com", "b@example.com", made.owner.email]
    assert [person.id for person in await managers.list_managers(database, actor, owner_only=True)] == [made.owner.id]


async def test_who_cannot_sign_in_is_nobody_to_ask(database: Database) -> None:
    """Somebody whose account is disabled is left out."""
    made = await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    admin = await build.member(database, made, Role.ADMIN)
    async with database.transaction() as tx:
        await tx.execute(update(tables.users).where(tables.users.c.id == admin.id).values(disabled_at=clock.now()))
    assert [person.id for person in await managers.list_managers(database, actor)] == [made.owner.id]
