"""The append-only log of who did, or tried to do, what.

Each entry carries a hash over itself and the entry before it, so that an edited or deleted one is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from ownkey import clock
from ownkey.access import Action, Actor
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import audit_end, audit_entries
from ownkey.errors import Unavailable

_START = "0" * 64
_LONGEST_TARGET = 500


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did, or was refused, what, when."""

    id: int
    organization_id: str | None
    actor_kind: str
    actor_id: str
    actor_label: str
    action: str
    target: str
    allowed: bool
    detail: Mapping[str, Any]
    created_at: datetime


async def record(
    tx: Transaction,
    actor: Actor,
    action: Action,
    target: str,
    *,
    allowed: bool = True,
    detail: Mapping[str, Any] | None = None,
    organization_id: str | None = None,
) -> None:
    """Write an entry in the transaction of the change it tells of; ``organization_id`` defaults to the actor's.

    ``detail`` holds names and numbers, never a secret. Raises ``Unavailable`` if the entry cannot be written, which
    undoes the change.
    """
    try:
        await _append(tx, actor, action, target, allowed, detail, organization_id)
    except DBAPIError as error:
        raise Unavailable("This could not be recorded in the audit log, so it was not done. Try again.") from error


async def _append(
    tx: Transaction,
    actor: Actor,
    action: Action,
    target: str,
    allowed: bool,
    detail: Mapping[str, Any] | None,
    organization_id: str | None,
) -> None:
    # Locked until the end of the transaction, which keeps the chain in one line.
    last = await tx.scalar(select(audit_end.c.hash).with_for_update())
    values: dict[str, Any] = {
        "organization_id": organization_id or actor.organization_id or None,
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "actor_label": actor.label,
        "action": action.value,
        "target": _told(target),
        "allowed": allowed,
        "detail": dict(detail or {}),
        "created_at": clock.now().replace(microsecond=0),
    }
    chained = _chained(last or _START, values)
    added = insert(audit_entries).values(hash=chained, **values).returning(audit_entries.c.id)
    await tx.execute(update(audit_end).values(entry_id=await tx.scalar(added), hash=chained))


async def record_refusal(db: Database, actor: Actor, action: Action, target: str) -> None:
    """Write that an actor tried what it may not do."""
    async with db.transaction() as tx:
        await record(tx, actor, action, target, allowed=False)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: an action, who did it (their id), allowed or refused, and days in UTC, both included."""

    action: str | None = None
    actor_id: str | None = None
    allowed: bool | None = None
    first_day: date | None = None
    last_day: date | None = None

    @property
    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """What a row has to meet."""
        table, found = audit_entries.c, []
        if self.action:
            found.append(table.action == self.action)
        if self.actor_id:
            found.append(table.actor_id == self.actor_id)
        if self.allowed is not None:
            found.append(table.allowed.is_(self.allowed))
        if self.first_day:
            found.append(table.created_at >= clock.day_start(self.first_day))
        if self.last_day:
            found.append(table.created_at < clock.day_start(self.last_day) + timedelta(days=1))
        return found


async def entries(
    db: Database,
    organization_id: str,
    *,
    action: str | None = None,
    only: Filter | None = None,
    before: int | None = None,
    limit: int = 100,
) -> Sequence[AuditEntry]:
    """An organization's entries, newest first, of an action or by a filter; ``before`` is an id to page from."""
    conditions = (only or Filter(action)).conditions
    query = select(audit_entries).where(audit_entries.c.organization_id == organization_id, *conditions)
    if before:
        query = query.where(audit_entries.c.id < before)
    async with db.read() as tx:
        rows = await tx.execute(query.order_by(audit_entries.c.id.desc()).limit(limit))
        return [_entry(row) for row in rows]


async def actors(db: Database, organization_id: str) -> Mapping[str, str]:
    """Everybody an organization has entries of: their id, and what they were called last, by that name."""
    table = audit_entries.c
    latest = select(func.max(table.id)).where(table.organization_id == organization_id).group_by(table.actor_id)
    query = select(table.actor_id, table.actor_label).where(table.id.in_(latest)).order_by(table.actor_label)
    async with db.read() as tx:
        return {row.actor_id: row.actor_label for row in await tx.execute(query)}


async def verify(db: Database) -> tuple[int, int | None]:
    """Recompute the chain. Returns how many entries were good and the id of the first bad one, or None.

    A deleted entry shows at the one after it; the last one, by the note of where the chain ends.
    """
    good, previous = 0, _START
    async with db.read(at_leisure=True) as tx:
        end = (await tx.execute(select(audit_end.c.entry_id, audit_end.c.hash))).one()
        rows = await tx.stream(select(audit_entries).order_by(audit_entries.c.id))
        try:
            async for row in rows:
                values = {name: value for name, value in row._mapping.items() if name not in ("id", "hash")}
                previous = _chained(previous, values)
                if previous != row.hash:
                    return good, row.id
                good += 1
        finally:
            await rows.close()
    return good, None if previous == end.hash else end.entry_id


def _told(target: str) -> str:
    """The target as it is recorded. A caller may have chosen it, and no text of theirs keeps an entry from the log."""
    short = target if len(target) <= _LONGEST_TARGET else f"{target[: _LONGEST_TARGET - 1]}…"
    # Control characters, halves of surrogate pairs, and what would change how a line reads.
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in short)


def _chained(previous: str, values: Mapping[str, Any]) -> str:
    told = {**values, "created_at": clock.rfc3339(values["created_at"])}
    return hashlib.sha256((previous + json.dumps(told, sort_keys=True, ensure_ascii=True)).encode()).hexdigest()


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**{name: value for name, value in row._mapping.items() if name != "hash"})
