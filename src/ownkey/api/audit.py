"""Who did, or was refused, what and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query

from ownkey import audit
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Page, Shown
from ownkey.db.engine import LARGEST_NUMBER


class AuditEntry(Shown):
    """Who did what; ``allowed`` false: who tried."""

    id: int
    actor_kind: str
    actor_id: str
    actor_label: str
    action: str
    target: str
    allowed: bool
    detail: Mapping[str, Any]
    created_at: datetime


async def list_entries(
    node: Here,
    actor: Caller,
    action: Annotated[str | None, Query(description="Only this action, as `provider_key.replace`.")] = None,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST_NUMBER, description="Only entries older than the one with this id.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most this many.")] = 100,
) -> Page[AuditEntry]:
    """List the organization's entries, newest first. `next` is the `before` of the next page."""
    found = await audit.entries(node.db, actor.organization_id, action=action, before=before, limit=limit)
    following = found[-1].id if len(found) == limit else None
    return Page(items=[AuditEntry.model_validate(entry) for entry in found], next=following)
