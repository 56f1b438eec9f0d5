"""Settings → Audit: who did, or tried to do, what; as a table and as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ownkey import audit, clock
from ownkey.access import Action
from ownkey.audit import AuditEntry, Filter
from ownkey.db.engine import Database
from ownkey.errors import InvalidRequest
from ownkey.web import session
from ownkey.web.rendering import render

_ON_A_PAGE = 50
_IN_A_BATCH = 500
_COLUMNS = ("id", "time", "actor_kind", "actor_id", "actor", "action", "target", "result", "detail")
# A spreadsheet takes a cell that begins so for a formula, whoever wrote it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_FILTERS = ("action", "who", "result", "from", "to")


async def show(request: Request) -> Response:
    """``GET /settings/audit?action=provider_key.add&who=usr_1&result=refused&from=2026-11-01&to=…&before=17``.

    Newest first; days are UTC and included.
    """
    signed_in, db = await session.require(request), session.node_of(request).db
    only, before = _filter(request), _before(request)
    organization_id = signed_in.organization.id
    found = await audit.entries(db, organization_id, only=only, before=before, limit=_ON_A_PAGE + 1)
    given = {name: value for name in _FILTERS if (value := request.query_params.get(name))}
    return render(
        request,
        "audit.html",
        signed_in=signed_in,
        entries=found[:_ON_A_PAGE],
        older_than=found[_ON_A_PAGE - 1].id if len(found) > _ON_A_PAGE else None,
        given=given,
        query=urlencode(given),
        before=before,
        people=[("", "Everybody"), *(await audit.actors(db, organization_id)).items()],
        actions=[("", "All actions"), *((word.value, word.value) for word in sorted(Action))],
        told=told,
    )


async def export(request: Request) -> Response:
    """``GET /settings/audit.csv?action=…``: everything that the filter leaves, newest first, for a spreadsheet."""
    signed_in = await session.require(request)
    only = _filter(request)
    name = f"audit-{signed_in.organization.slug}-{clock.now():%Y-%m-%d}.csv"
    return StreamingResponse(
        _rows(session.node_of(request).db, signed_in.organization.id, only),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def told(detail: Mapping[str, Any]) -> str:
    """An entry's detail in one line: ``name: General, plan: free``."""
    return ", ".join(f"{name}: {value}" for name, value in detail.items())


def neutral(cell: object) -> str:
    """A cell that no spreadsheet runs: what looks like a formula gets an apostrophe before it."""
    text = str(cell)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def _filter(request: Request) -> Filter:
    """What to show. Raises ``InvalidRequest`` for what is no action, result or day."""
    given = request.query_params
    action, result = given.get("action") or None, given.get("result") or None
    if action is not None and action not in list(Action):
        raise InvalidRequest("There is no such action to filter by.")
    if result not in (None, "done", "refused"):
        raise InvalidRequest("A result is `done` or `refused`.")
    first, last = given.get("from"), given.get("to")
    return Filter(
        action,
        given.get("who") or None,
        None if result is None else result == "done",
        clock.parse_day(first) if first else None,
        clock.parse_day(last) if last else None,
    )


def _before(request: Request) -> int | None:
    before = request.query_params.get("before") or None
    if before is not None and not (before.isascii() and before.isdigit() and len(before) <= 18):
        raise InvalidRequest("`before` is the number of an entry.")
    return int(before) if before else None


async def _rows(db: Database, organization_id: str, only: Filter) -> AsyncIterator[str]:
    yield _line(_COLUMNS)
    before: int | None = None
    while True:
        batch = await audit.entries(db, organization_id, only=only, before=before, limit=_IN_A_BATCH)
        for entry in batch:
            yield _line(_cells(entry))
        if len(batch) < _IN_A_BATCH:
            return
        before = batch[-1].id


def _cells(entry: AuditEntry) -> tuple[object, ...]:
    result = "allowed" if entry.allowed else "refused"
    who = (entry.actor_kind, entry.actor_id, entry.actor_label)
    return (entry.id, clock.rfc3339(entry.created_at), *who, entry.action, entry.target, result, told(entry.detail))


def _line(cells: tuple[object, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow([neutral(cell) for cell in cells])
    return line.getvalue()
