"""Grants, usage and adjustments: one chain of entries a month, never updated, from which a balance can be recomputed.

A usage event of the allowance is an entry by itself; grants and adjustments are ``ledger_entries``. Each has its
position in the chain of its organization and month, from 1 and without gaps, and what is used after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Select, Subquery, case, cast, func, literal, null, or_, select, union_all

from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import allowances, ledger_entries, reservations, usage_events

_Month = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that is not what it must be.

    ``subject`` is a figure of the balance, ``granted``, ``used``, ``reserved`` or ``entries`` (how many there are); or
    an entry: a request's id, whose event has the wrong used after it or the wrong position, ``entry 7`` for another
    kind at this position, and for one that is missing, or ``entries 7 to 9``, of which 0 are found.
    """

    organization_id: str
    period: str
    subject: str
    expected: int
    found: int


async def verify(db: Database) -> Sequence[Difference]:
    """Recompute every balance: granted, used and reserved of each organization and month, entry by entry.

    Finds an entry, event or balance that was edited, deleted or doubled behind the program's back, and names it.
    """
    async with db.read(at_leisure=True) as tx:
        balances = {(r[0], r[1]): tuple(r[2:]) for r in await tx.execute(_balances())}
        granted, held, ends = await _sums(tx, _granted()), await _sums(tx, _held()), await _sums(tx, _ends())
        found = [difference for row in await tx.execute(_breaks()) for difference in _explain(*row)]
        found += [Difference(*row) for row in await tx.execute(_charged_own_keys())]
    for month in sorted(balances.keys() | granted.keys() | held.keys() | ends.keys()):
        last, used = ends.get(month, (0, 0))
        should = {
            "granted": granted.get(month, (0,))[0],
            "used": used,
            "reserved": held.get(month, (0,))[0],
            "entries": last,
        }
        found += _of_balance(month, should, balances.get(month, (0, 0, 0, 0)))
    return sorted(found, key=lambda difference: (difference.organization_id, difference.period))


async def _sums(tx: Transaction, query: Select[Any]) -> Mapping[_Month, tuple[int, ...]]:
    return {(row[0], row[1]): tuple(row[2:]) for row in await tx.execute(query)}


def _of_balance(month: _Month, should: Mapping[str, int], balance: Sequence[int]) -> Iterator[Difference]:
    if balance[3] > should["entries"]:
        yield _missing(*month, should["entries"] + 1, balance[3])
        should = {**should, "entries": balance[3]}
    for (subject, expected), found in zip(should.items(), balance, strict=True):
        if expected != found:
            yield Difference(*month, subject, expected, found)


def _missing(organization_id: str, period: str, first: int, last: int) -> Difference:
    subject = f"entry {first}" if first == last else f"entries {first} to {last}"
    return Difference(organization_id, period, subject, last - first + 1, 0)


def _explain(
    organization_id: str,
    period: str,
    request_id: str | None,
    before: int,
    position: int,
    expected: int,
    used_after: int,
) -> Iterator[Difference]:
    """What is wrong with an entry that does not follow from the one before it, which is at position ``before``."""
    subject = request_id or f"entry {position}"
    if position > before + 1:
        yield _missing(organization_id, period, before + 1, position - 1)
    elif position < before + 1:
        yield Difference(organization_id, period, subject, before + 1, position)
    else:
        yield Difference(organization_id, period, subject, expected, used_after)


def _sum(value: Any) -> Any:
    return cast(func.coalesce(func.sum(value), 0), BigInteger)


def _balances() -> Select[Any]:
    table = allowances.c
    return select(
        table.organization_id,
        table.period,
        table.granted_tokens,
        table.used_tokens,
        table.reserved_tokens,
        table.entries,
    )


def _granted() -> Select[Any]:
    entry = ledger_entries.c
    return (
        select(entry.organization_id, entry.period, _sum(entry.tokens))
        .where(entry.kind == "grant")
        .group_by(entry.organization_id, entry.period)
    )


def _held() -> Select[Any]:
    held = reservations.c
    return select(held.organization_id, held.period, _sum(held.tokens)).group_by(held.organization_id, held.period)


def _chain() -> Subquery:
    """All entries, each with what it takes, and what the one before it says."""
    event, entry = usage_events.c, ledger_entries.c
    entries = union_all(
        select(
            event.organization_id,
            event.period,
            event.position,
            event.used_after,
            event.charged_tokens.label("taken"),
            event.request_id,
            event.id,
        ).where(event.billed_to == "allowance"),
        select(
            entry.organization_id,
            entry.period,
            entry.position,
            entry.used_after,
            case((entry.kind == "grant", 0), else_=-entry.tokens),
            null(),
            entry.id,
        ),
    ).subquery()
    row = entries.c
    # Of two at one position the younger is the wrong one; an entry that is a copy of an event comes after it.
    order = (row.position, row.request_id.is_(None), row.id)
    month = (row.organization_id, row.period)
    back = [one.desc() for one in order]
    return select(
        *row,
        func.coalesce(func.lag(row.position).over(partition_by=month, order_by=order), 0).label("before"),
        func.coalesce(func.lag(row.used_after).over(partition_by=month, order_by=order), 0).label("used_before"),
        func.row_number().over(partition_by=month, order_by=back).label("from_end"),
    ).subquery()


def _ends() -> Select[Any]:
    """How many entries each month has by the position of its last, and what is used after that."""
    row = _chain().c
    return select(row.organization_id, row.period, row.position, row.used_after).where(row.from_end == 1)


def _breaks() -> Select[Any]:
    """The entries that do not follow from the one before."""
    row = _chain().c
    should = row.used_before + row.taken
    return (
        select(row.organization_id, row.period, row.request_id, row.before, row.position, should, row.used_after)
        .where(or_(row.position != row.before + 1, row.used_after != should))
        .order_by(row.organization_id, row.period, row.position, row.id)
    )


def _charged_own_keys() -> Select[Any]:
    """A call on an own key takes nothing from the allowance."""
    event = usage_events.c
    return select(event.organization_id, event.period, event.request_id, literal(0), event.charged_tokens).where(
        event.billed_to == "own_key", event.charged_tokens != 0
    )
