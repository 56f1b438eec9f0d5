"""The audit log is a chain: what is edited, deleted or added behind our back is found."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from ownkey import audit
from ownkey.access import Action, Actor, Role
from ownkey.changes import perform
from ownkey.db.engine import LARGEST_NUMBER, Database
from ownkey.errors import InvalidRequest
from tests import build

pytestmark = pytest.mark.anyio


async def write(database: Database, number: int) -> None:
    """So many entries, at once."""

    async def one(n: int) -> None:
        async with perform(database, Actor.operator(), Action.VAULT_ROTATE, f"target {n}", {"n": n, "word": "schön"}):
            pass

    await asyncio.gather(*[one(n) for n in range(number)])


async def test_entries_written_at_once_are_one_chain(database: Database) -> None:
    """Whoever comes first, each entry carries a hash over the one before it."""
    assert await audit.verify(database) == (0, None)
    await write(database, 12)
    assert await audit.verify(database) == (12, None)


@pytest.mark.parametrize(
    ("damage", "first_bad"),
    [
        ("UPDATE audit_entries SET target = 'another' WHERE id = 2", 2),
        ("UPDATE audit_entries SET allowed = false WHERE id = 3", 3),
        ("DELETE FROM audit_entries WHERE id = 2", 3),
        ("DELETE FROM audit_entries WHERE id = 5", 5),
        ("DELETE FROM audit_entries WHERE id >= 3", 5),
        ("DELETE FROM audit_entries", 5),
    ],
)
async def test_damage_is_found(database: Database, damage: str, first_bad: int) -> None:
    """The first entry that is not what was written is named, also when it is missing from the end."""
    await write(database, 5)
    async with database.transaction() as tx:
        await tx.execute(text(damage))
    assert (await audit.verify(database))[1] == first_bad


async def test_a_change_whose_entry_cannot_be_written_is_not_made(database: Database) -> None:
    """The log's failure undoes the change it would have told of."""
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE audit_entries RENAME TO elsewhere"))
    with pytest.raises(Exception, match="audit"):
        async with perform(database, Actor.operator(), Action.VAULT_ROTATE, "target") as tx:
            await tx.execute(text("INSERT INTO sign_in_attempts (email, at) VALUES ('a@b.test', 0)"))
    async with database.read() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM sign_in_attempts")) == 0


@pytest.mark.parametrize(
    ("target", "recorded"),
    [
        ("/settings/members/\0/cap", "/settings/members/\ufffd/cap"),
        ("a\r\nb\x1b[2J\u202e", "a\ufffd\ufffdb\ufffd[2J\ufffd"),
        ("\ud800", "\ufffd"),
        ("schön 好 🙂", "schön 好 🙂"),
        ("x" * 500, "x" * 500),
        ("x" * 100_000, "x" * 499 + "…"),
    ],
)
async def test_a_refusal_is_recorded_whatever_was_asked_for(database: Database, target: str, recorded: str) -> None:
    """What a caller wrote into a path cannot keep the attempt out of the log, nor disturb who reads it."""
    made = await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    await audit.record_refusal(database, actor, Action.CAP_SET, target)
    entry = (await audit.entries(database, made.organization.id))[0]
    assert (entry.action, entry.allowed, entry.target) == ("cap.set", False, recorded)
    assert (await audit.verify(database))[1] is None


async def test_a_number_that_no_row_can_have(database: Database) -> None:
    """It is the reader's mistake on both databases, not a fault of ours."""
    assert await audit.entries(database, "org_1", before=LARGEST_NUMBER) == []
    with pytest.raises(InvalidRequest):
        await audit.entries(database, "org_1", before=LARGEST_NUMBER + 1)
