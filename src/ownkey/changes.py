"""The one door for changing settings: allowed, done and recorded, or none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ownkey import audit
from ownkey.access import Action, Actor
from ownkey.db.engine import Database, Transaction
from ownkey.errors import Forbidden


@asynccontextmanager
async def perform(
    db: Database, actor: Actor, action: Action, target: str, detail: dict[str, Any] | None = None
) -> AsyncIterator[Transaction]:
    """Yield the transaction of a change the actor may make; its audit entry is written with it.

    What the body puts into ``detail`` is recorded too. Raises ``Forbidden``, after recording the attempt, for an
    actor whose role does not reach the action's.
    """
    if not actor.may(action):
        await audit.record_refusal(db, actor, action, target)
        raise Forbidden
    async with db.transaction() as tx:
        yield tx
        await audit.record(tx, actor, action, target, detail=detail)
