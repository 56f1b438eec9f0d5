"""The assistant page's history: a person's conversations in one workspace, seen by that person only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, insert, select

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import conversations, messages
from ownkey.errors import Forbidden, NotFound
from ownkey.ids import new_id

Speaker = Literal["user", "assistant"]
TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Conversation:
    """One exchange of messages with the assistant."""

    id: str
    title: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said; ``request_id`` names the call that produced an answer."""

    id: str
    role: Speaker
    content: str
    request_id: str | None
    created_at: datetime


def title_of(first_message: str) -> str:
    """What the history calls a conversation: the beginning of its first line. No model is asked for it."""
    line = next((" ".join(text.split()) for text in first_message.splitlines() if text.strip()), "")
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


async def start(db: Database, actor: Actor, first_message: str) -> Conversation:
    """Begin a conversation with what the person said."""
    conversation = Conversation(new_id("cnv"), title_of(first_message), clock.now())
    async with db.transaction() as tx:
        await tx.execute(
            insert(conversations).values(
                id=conversation.id,
                organization_id=actor.organization_id,
                workspace_id=actor.workspace_id,
                user_id=_person(actor),
                title=conversation.title,
                created_at=conversation.created_at,
            )
        )
        await _add(tx, actor, conversation.id, "user", first_message, None)
    return conversation


async def say(
    db: Database, actor: Actor, conversation_id: str, role: Speaker, content: str, request_id: str | None = None
) -> None:
    """Add a message to one's own conversation. Raises ``NotFound``."""
    async with db.transaction() as tx:
        await _find(tx, actor, conversation_id)
        await _add(tx, actor, conversation_id, role, content, request_id)


async def list_conversations(
    db: Database, actor: Actor, limit: int = 50, *, before: str | None = None
) -> Sequence[Conversation]:
    """One's own conversations in the active workspace, newest first; with ``before`` those older than that one."""
    query = select(conversations).where(_own(actor)).order_by(conversations.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(conversations.c.id < before)
    async with db.read() as tx:
        return [_conversation(row) for row in await tx.execute(query)]


async def find(db: Database, actor: Actor, conversation_id: str) -> Conversation:
    """One of one's own conversations. Raises ``NotFound``."""
    async with db.read() as tx:
        return await _find(tx, actor, conversation_id)


async def read(db: Database, actor: Actor, conversation_id: str) -> tuple[Conversation, Sequence[Message]]:
    """A conversation and its messages, oldest first. Raises ``NotFound`` if it is not one's own."""
    query = select(messages).where(
        messages.c.conversation_id == conversation_id, messages.c.organization_id == actor.organization_id
    )
    async with db.read() as tx:
        conversation = await _find(tx, actor, conversation_id)
        rows = await tx.execute(query.order_by(messages.c.created_at, messages.c.id))
        return conversation, [Message(row.id, row.role, row.content, row.request_id, row.created_at) for row in rows]


async def remove(db: Database, actor: Actor, conversation_id: str) -> None:
    """Delete a conversation and its messages for good. Raises ``NotFound``."""
    async with db.transaction() as tx:
        await _find(tx, actor, conversation_id)
        await tx.execute(delete(conversations).where(_own(actor), conversations.c.id == conversation_id))


def _person(actor: Actor) -> str:
    if actor.user_id is None:
        raise Forbidden("Only a person has conversations.")
    return actor.user_id


def _own(actor: Actor) -> ColumnElement[bool]:
    return and_(
        conversations.c.organization_id == actor.organization_id,
        conversations.c.workspace_id == actor.workspace_id,
        conversations.c.user_id == _person(actor),
    )


async def _find(tx: Transaction, actor: Actor, conversation_id: str) -> Conversation:
    row = (
        await tx.execute(select(conversations).where(_own(actor), conversations.c.id == conversation_id))
    ).one_or_none()
    if row is None:
        raise NotFound
    return _conversation(row)


def _conversation(row: Any) -> Conversation:
    return Conversation(row.id, row.title, row.created_at)


async def _add(
    tx: Transaction, actor: Actor, conversation_id: str, role: Speaker, content: str, request_id: str | None
) -> None:
    await tx.execute(
        insert(messages).values(
            id=new_id("msg"),
            organization_id=actor.organization_id,
            conversation_id=conversation_id,
            role=role,
            content=content,
            request_id=request_id,
            created_at=clock.now(),
        )
    )
