"""Grants, usage and adjustments: entries that are never updated, from which every balance can be recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Select, case, cast, func, literal, select

from ownkey.db.engine import Database
from ownkey.db.tables import allowances, ledger_entries, reservations, usage_events


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that is not what its entries say; ``subject``: ``granted``, ``used``, ``reserved`` or a request's id."""

    organization_id: str
    period: str
    subject: str
    expected: int
    found: int


def _sum(value: Any) -> Any:
    return cast(func.coalesce(func.sum(value), 0), BigInteger)


async def verify(db: Database) -> Sequence[Difference]:
    """Recompute every balance: granted, used and reserved of each organization and month, and each event's charge.

    Finds an entry, event or balance that was edited, deleted or doubled behind the program's back.
    """
    entries = ledger_entries.c
    granted = _sum(case((entries.kind == "grant", entries.tokens), else_=0))
    used = -_sum(case((entries.kind != "grant", entries.tokens), else_=0))
    differences: list[Difference] = []
    async with db.read() as tx:
        stated = {(r[0], r[1]): (r[2], r[3], r[4]) for r in await tx.execute(_balances())}
        by_entries = {
            (r[0], r[1]): (r[2], r[3])
            for r in await tx.execute(
                select(entries.organization_id, entries.period, granted, used).group_by(
                    entries.organization_id, entries.period
                )
            )
        }
        held = {
            (r[0], r[1]): r[2]
            for r in await tx.execute(
                select(reservations.c.organization_id, reservations.c.period, _sum(reservations.c.tokens)).group_by(
                    reservations.c.organization_id, reservations.c.period
                )
            )
        }
        for key in sorted(stated.keys() | by_entries.keys() | held.keys()):
            found = stated.get(key, (0, 0, 0))
            expected = (*by_entries.get(key, (0, 0)), held.get(key, 0))
            differences += [
                Difference(*key, subject, want, have)
                for subject, want, have in zip(("granted", "used", "reserved"), expected, found, strict=True)
                if want != have
            ]
        rows = await tx.execute(_events_against_entries())
        differences += [Difference(*row) for row in rows]
        differences += [Difference(*row) for row in await tx.execute(_entries_without_event())]
    return differences


def _balances() -> Select[Any]:
    table = allowances.c
    return select(table.organization_id, table.period, table.granted_tokens, table.used_tokens, table.reserved_tokens)


def _events_against_entries() -> Select[Any]:
    """Events whose charge is not what the ledger's usage entry of their request took, or that have several or none."""
    event = usage_events.c
    taken = (
        select(ledger_entries.c.request_id, _sum(-ledger_entries.c.tokens).label("tokens"), func.count().label("times"))
        .where(ledger_entries.c.kind == "usage")
        .group_by(ledger_entries.c.request_id)
        .subquery()
    )
    return (
        select(
            event.organization_id,
            event.period,
            event.request_id,
            event.charged_tokens,
            func.coalesce(taken.c.tokens, 0),
        )
        .select_from(usage_events.outerjoin(taken, taken.c.request_id == event.request_id))
        .where(event.charged_tokens != func.coalesce(taken.c.tokens, 0))
        .order_by(event.organization_id, event.period, event.id)
    )


def _entries_without_event() -> Select[Any]:
    """Usage entries whose event is gone: the ledger says what was taken, nothing says for what."""
    entry = ledger_entries.c
    return (
        select(entry.organization_id, entry.period, entry.request_id, -entry.tokens, literal(0))
        .select_from(ledger_entries.outerjoin(usage_events, usage_events.c.request_id == entry.request_id))
        .where(entry.kind == "usage", usage_events.c.request_id.is_(None))
        .order_by(entry.organization_id, entry.period, entry.id)
    )
