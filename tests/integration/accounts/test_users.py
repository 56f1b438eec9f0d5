"""Users: one for an address, whoever names it first."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from ownkey.access import Actor, Role
from ownkey.accounts import users
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import InvalidRequest, NotFound
from tests import build

pytestmark = pytest.mark.anyio


async def test_an_address_is_one_person(database: Database) -> None:
    """However it is written, and when it is named for the first time by several at once."""

    async def named(email: str) -> str:
        async with database.transaction() as tx:
            return (await users.find_or_create(tx, email, "Ann")).id

    ids = await asyncio.gather(*(named(email) for email in ["ann@example.com", "ANN@example.com "] * 4))
    assert len(set(ids)) == 1
    async with database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(tables.users)) == 1
    found = await users.by_email(database, "Ann@Example.com")
    assert found == await users.by_id(database, ids[0])
    assert found is not None
    assert (found.name, found.label, found.has_password) == ("Ann", "Ann", False)


async def test_people_name_themselves(database: Database) -> None:
    """The name is what others see; without one it is the address. The operator has none."""
    made = await build.organization(database, owner_email="ann@example.com")
    owner = build.acting(made.owner, made, Role.OWNER)
    assert made.owner.label == "ann@example.com"
    await users.rename(database, owner, " Ann  Lee ")
    assert (await users.by_id(database, made.owner.id)).label == "Ann Lee"
    with pytest.raises(InvalidRequest):
        await users.rename(database, owner, "")
    with pytest.raises(NotFound):
        await users.rename(database, Actor.operator(), "Root")


async def test_nobody_is_nobody(database: Database) -> None:
    """An unknown id is not found, an unknown address is no one."""
    with pytest.raises(NotFound):
        await users.by_id(database, "usr_unknown")
    assert await users.by_email(database, "nobody@example.com") is None
