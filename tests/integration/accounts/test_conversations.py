"""Conversations with the assistant: one's own, in one workspace, and gone when deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select

from ownkey.access import Actor, Role
from ownkey.accounts import conversations, workspaces
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import Forbidden, NotFound
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio


async def test_what_was_said_is_kept_in_order(database: Database) -> None:
    """A conversation begins with what the person said, and keeps both sides in order."""
    made = await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    started = await conversations.start(database, actor, "Capital of France?")
    await conversations.say(database, actor, started.id, "assistant", "Paris.", "req_1")
    await conversations.say(database, actor, started.id, "user", "And its river?")
    conversation, messages = await conversations.read(database, actor, started.id)
    assert conversation.title == "Capital of France?"
    assert [(message.role, message.content, message.request_id) for message in messages] == [
        ("user", "Capital of France?", None),
        ("assistant", "Paris.", "req_1"),
        ("user", "And its river?", None),
    ]


async def test_newest_first(database: Database) -> None:
    """The list is one's own conversations, the newest first, as many as asked for."""
    made = await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    for text in ("one", "two", "three"):
        await conversations.start(database, actor, text)
    assert [each.title for each in await conversations.list_conversations(database, actor)] == ["three", "two", "one"]
    assert len(await conversations.list_conversations(database, actor, limit=2)) == 2


async def test_nobody_else_has_them(database: Database) -> None:
    """Another person, the owner, another organization and another workspace see, add and delete nothing."""
    made, elsewhere = await build.organization(database), await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    started = await conversations.start(database, actor, "Mine")
    operator = Actor.operator(made.organization.id, made.workspace.id)
    second = await workspaces.create(database, operator, DEFAULT_CATALOGUE["enterprise"], "Second")
    others = [
        await build.actor(database, made, Role.ADMIN),
        build.acting(made.owner, made, Role.OWNER),
        await build.actor(database, elsewhere, Role.USER),
        replace(actor, workspace_id=second.id),
        replace(actor, organization_id=elsewhere.organization.id),
    ]
    for other in others:
        assert await conversations.list_conversations(database, other) == []
        for attempt in (
            conversations.read(database, other, started.id),
            conversations.say(database, other, started.id, "user", "Hello"),
            conversations.remove(database, other, started.id),
        ):
            with pytest.raises(NotFound):
                await attempt
    _, messages = await conversations.read(database, actor, started.id)
    assert len(messages) == 1


async def test_removed_for_good(database: Database) -> None:
    """Deleting a conversation deletes what was said in it."""
    made = await build.organization(database)
    actor = await build.actor(database, made, Role.USER)
    started = await conversations.start(database, actor, "Forget this")
    await conversations.say(database, actor, started.id, "assistant", "Gladly.")
    await conversations.remove(database, actor, started.id)
    with pytest.raises(NotFound):
        await conversations.read(database, actor, started.id)
    async with database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(tables.messages)) == 0


async def test_only_people_have_conversations(database: Database) -> None:
    """The operator and tokens made by the operator have none."""
    made = await build.organization(database)
    with pytest.raises(Forbidden):
        await conversations.start(database, await build.actor(database, made, None), "Hello")


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Hello", "Hello"),
        ("\n\n  Hello   there  \nsecond line", "Hello there"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, "word " * 11 + "word…"),
    ],
)
def test_title(message: str, title: str) -> None:
    """A conversation is called by the beginning of its first line."""
    assert conversations.title_of(message) == title
