"""Caps: the most tokens of a month that a member or a workspace may use of the allowance, and on own keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, case, cast, delete, func, insert, select, true

from ownkey import audit, clock
from ownkey.access import Action, Actor, Role
from ownkey.accounts.places import actor_in, require
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import memberships, organizations, usage_events
from ownkey.db.usage_tables import CHARGED, caps, corrected_events
from ownkey.errors import Forbidden, InvalidRequest, NotFound

Scope = Literal["member", "workspace"]
MOST_TOKENS = 10**15


@dataclass(frozen=True, slots=True)
class CapInForce:
    """A cap and what was used under it this month, in tokens; None: no cap of that kind."""

    scope: str
    subject_id: str
    allowance_tokens: int | None
    own_key_tokens: int | None
    allowance_used: int
    own_key_used: int


async def on_actor(db: Database, actor: Actor) -> Sequence[CapInForce]:
    """The caps that hold for this person: their own, and that of the workspace they are in."""
    theirs = (caps.c.scope == "member") & (caps.c.subject_id == actor.user_id)
    here = (caps.c.scope == "workspace") & (caps.c.subject_id == actor.workspace_id)
    return await _in_force(db, actor, theirs | here)


async def list_caps(db: Database, actor: Actor) -> Sequence[CapInForce]:
    """The organization's caps, with what was used this month. Raises ``Forbidden`` below admin."""
    await require(db, actor, Action.MEMBERSHIP_READ, actor.organization_id)
    return await _in_force(db, actor, true())


async def _in_force(db: Database, actor: Actor, which: ColumnElement[bool]) -> Sequence[CapInForce]:
    mine = which & (caps.c.organization_id == actor.organization_id)
    async with db.read() as tx:
        rows = list(await tx.execute(select(caps).where(mine).order_by(caps.c.scope, caps.c.subject_id)))
        return [
            CapInForce(
                row.scope, row.subject_id, row.allowance_tokens, row.own_key_tokens, *await _used(tx, actor, row)
            )
            for row in rows
        ]


async def set_cap(
    db: Database, actor: Actor, scope: Scope, subject_id: str, allowance_tokens: int | None, own_key_tokens: int | None
) -> None:
    """Put this cap in the place of whatever there was; it counts from the next call. Both None: remove it.

    Raises ``InvalidRequest`` for a number below zero, ``NotFound`` for who or what is not in the organization,
    ``Forbidden`` for one's own cap, for the owner's, and without being admin there.
    """
    if any(tokens is not None and not 0 <= tokens <= MOST_TOKENS for tokens in (allowance_tokens, own_key_tokens)):
        raise InvalidRequest(f"A cap is a number of tokens a month, from 0 to {MOST_TOKENS:,}.")
    action = Action.CAP_REMOVE if allowance_tokens is None and own_key_tokens is None else Action.CAP_SET
    there = await _standing_over(db, actor, scope, subject_id, action)
    detail: dict[str, Any] = {"scope": scope}
    async with perform(db, there, action, subject_id, detail) as tx:
        which = _which(actor.organization_id, scope, subject_id)
        before = (await tx.execute(select(caps).where(which).with_for_update())).first()
        if before is None and action is Action.CAP_REMOVE:
            raise NotFound("There is no such cap.")
        now = clock.now()
        detail["before"] = [before.allowance_tokens, before.own_key_tokens] if before else None
        detail["after"] = [allowance_tokens, own_key_tokens] if action is Action.CAP_SET else None
        await tx.execute(delete(caps).where(which))
        if action is Action.CAP_SET:
            row: dict[str, Any] = {"organization_id": actor.organization_id, "scope": scope, "subject_id": subject_id}
            row |= {"allowance_tokens": allowance_tokens, "own_key_tokens": own_key_tokens}
            created = before.created_at if before else now
            await tx.execute(insert(caps).values(**row, created_at=created, updated_at=now))


async def _standing_over(db: Database, actor: Actor, scope: Scope, subject_id: str, action: Action) -> Actor:
    """The actor as they stand where the subject is."""
    if scope == "workspace":
        return await actor_in(db, actor, subject_id)
    async with db.read() as tx:
        owner = await tx.scalar(select(organizations.c.owner_id).where(organizations.c.id == actor.organization_id))
        theirs = (memberships.c.organization_id == actor.organization_id) & (memberships.c.user_id == subject_id)
        places = list(await tx.scalars(select(memberships.c.workspace_id).where(theirs)))
    if not places and subject_id != owner and action is Action.CAP_SET:
        raise NotFound
    if actor.kind != "operator" and actor.role != Role.OWNER and subject_id in (actor.user_id, owner):
        await audit.record_refusal(db, actor, action, subject_id)
        raise Forbidden("Nobody but the owner changes their own cap or the owner's. Ask another admin, or the owner.")
    if actor.kind == "operator" or actor.role == Role.OWNER:
        return actor
    if actor.workspace_id not in places:
        raise NotFound
    return actor


async def _used(tx: Transaction, actor: Actor, row: Any) -> tuple[int, int]:
    subject = usage_events.c.user_id if row.scope == "member" else usage_events.c.workspace_id
    on_own_key = case(
        (usage_events.c.billed_to == "own_key", usage_events.c.input_tokens + usage_events.c.output_tokens), else_=0
    )
    query = (
        select(
            cast(func.coalesce(func.sum(CHARGED), 0), BigInteger),
            cast(func.coalesce(func.sum(on_own_key), 0), BigInteger),
        )
        .select_from(corrected_events)
        .where(
            usage_events.c.organization_id == actor.organization_id,
            usage_events.c.period == clock.period_of(clock.now()),
            subject == row.subject_id,
        )
    )
    found = (await tx.execute(query)).one()
    return found[0], found[1]


def _which(organization_id: str, scope: str, subject_id: str) -> ColumnElement[bool]:
    return (caps.c.organization_id == organization_id) & (caps.c.scope == scope) & (caps.c.subject_id == subject_id)
