"""Alert: says that half, four fifths or all of a month's allowance is used; once a month each.

Found from new usage events and ledger entries, so a node looks only at the organizations whose balance has changed.
Every node looks; the primary key of the alert decides who found it. It is mailed at least once: a node that dies
between setting out and noting it leaves it to be tried again ten minutes later, for a day. So it is mailed a second
time only if that happened after the mail had gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, or_, select, text, union, update

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import allowances, ledger_entries, organizations, usage_events
from ownkey.db.usage_tables import allowance_alerts
from ownkey.db.utc_time import UtcTime
from ownkey.metering.new_rows import NewRows
from ownkey.metering.reservations import PLAIN_ANSWER

THRESHOLDS = (50, 80, 100)
TRY_AGAIN = timedelta(minutes=10)
GIVE_UP = timedelta(days=1)
MAILS_A_ROUND = 20
_table = allowance_alerts.c
_RECORDED_AT_ONCE = 200
# Another node may have been first.
_RECORD = text(
    "INSERT INTO allowance_alerts (organization_id, period, threshold, reached_at) VALUES (:o, :p, :t, :at) "
    "ON CONFLICT DO NOTHING"
).bindparams(bindparam("at", type_=UtcTime))


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold, in per cent, that an organization's allowance of a month has passed.

    ``mailed_at`` is None while nobody was told by mail; ``recipients`` is to how many people it went.
    """

    organization_id: str
    period: str
    threshold: int
    reached_at: datetime
    mailed_at: datetime | None
    recipients: int


def passed(granted: int, used: int) -> int:
    """The highest threshold that so much use has passed, in per cent; 0 below the first, or if nothing is granted.

    All is used when nothing is left, and also when what is left is of no use: less than a hundredth of the allowance
    and than a plain answer. A call is refused that does not fit, so the last tokens are seldom used.
    """
    left = granted - used
    if granted <= 0:
        return 0
    if left <= 0 or (left * 100 < granted and left < PLAIN_ANSWER):
        return 100
    return max((each for each in THRESHOLDS[:-1] if used * 100 >= granted * each), default=0)


class Lookout:
    """Finds the allowances that passed a threshold: first among all of the month, then among those that changed."""

    def __init__(self) -> None:
        self._events = NewRows(back=10_000)
        self._entries = NewRows(back=10_000)

    async def look(self, db: Database) -> None:
        """Record the alerts that are due and were not given this month."""
        period = clock.period_of(clock.now())
        table, event, entry = allowances.c, usage_events.c, ledger_entries.c
        highest = (
            select(func.max(_table.threshold))
            .where(_table.organization_id == table.organization_id, _table.period == table.period)
            .scalar_subquery()
        )
        due = select(table.organization_id, table.granted_tokens, table.used_tokens, func.coalesce(highest, 0)).where(
            table.period == period,
            table.used_tokens * 2 >= table.granted_tokens,
            func.coalesce(highest, 0) < THRESHOLDS[-1],
        )
        if self._events.after is not None:
            changed = [
                select(row.organization_id).where(row.id > new.after, row.id <= new.upto)
                for row, new in ((event, self._events), (entry, self._entries))
            ]
            due = due.where(table.organization_id.in_(union(*changed)))
        async with db.read() as tx:
            last_event = await tx.scalar(select(func.coalesce(func.max(event.id), 0))) or 0
            last_entry = await tx.scalar(select(func.coalesce(func.max(entry.id), 0))) or 0
            rows = (await tx.execute(due)).all()
        found = [(row[0], each) for row in rows for each in THRESHOLDS if row[3] < each <= passed(row[1], row[2])]
        for start in range(0, len(found), _RECORDED_AT_ONCE):
            await _record(db, period, found[start : start + _RECORDED_AT_ONCE])
        self._events.seen(last_event)
        self._entries.seen(last_entry)


async def _record(db: Database, period: str, found: Sequence[tuple[str, int]]) -> None:
    now = clock.now()
    async with db.transaction() as tx:
        await tx.execute(
            _RECORD, [{"o": organization_id, "p": period, "t": each, "at": now} for organization_id, each in found]
        )


async def claim_unmailed(db: Database) -> Alert | None:
    """Take on an alert that is to be mailed now, if there is one; no other node takes the same within ten minutes.

    One at a time: with a slow mail server a few may take the ten minutes. Of several thresholds passed at once only
    the highest is mailed.
    """
    now = clock.now()
    higher = allowance_alerts.alias()
    outdone = exists().where(
        higher.c.organization_id == _table.organization_id,
        higher.c.period == _table.period,
        higher.c.threshold > _table.threshold,
    )
    unmailed = and_(_table.mailed_at.is_(None), or_(_table.tried_at.is_(None), _table.tried_at <= now - TRY_AGAIN))
    query = (
        select(allowance_alerts)
        .join(organizations, organizations.c.id == _table.organization_id)
        .where(unmailed, _table.period == clock.period_of(now), _table.reached_at > now - GIVE_UP)
        .where(~outdone, organizations.c.suspended_at.is_(None))
        .order_by(_table.reached_at)
        .limit(MAILS_A_ROUND)
    )
    async with db.read() as tx:
        waiting = [_alert(row) for row in await tx.execute(query)]
    if waiting:
        async with db.transaction() as tx:
            for alert in waiting:
                claim = update(allowance_alerts).where(*_is(alert), unmailed).values(tried_at=now)
                if (await tx.execute(claim)).rowcount == 1:
                    return alert
    return None


async def note_mailed(db: Database, alert: Alert, recipients: int) -> None:
    """Record that a claimed alert was mailed, and to how many people."""
    async with db.transaction() as tx:
        done = {"mailed_at": clock.now(), "recipients": recipients}
        await tx.execute(update(allowance_alerts).where(*_is(alert)).values(**done))


async def list_alerts(db: Database, actor: Actor, period: str) -> Sequence[Alert]:
    """The alerts of a month that the actor's organization was given, lowest threshold first."""
    query = (
        select(allowance_alerts)
        .where(_table.organization_id == actor.organization_id, _table.period == period)
        .order_by(_table.threshold)
    )
    async with db.read() as tx:
        return [_alert(row) for row in await tx.execute(query)]


def _is(alert: Alert) -> tuple[Any, ...]:
    return (
        _table.organization_id == alert.organization_id,
        _table.period == alert.period,
        _table.threshold == alert.threshold,
    )


def _alert(row: Any) -> Alert:
    return Alert(row.organization_id, row.period, row.threshold, row.reached_at, row.mailed_at, row.recipients)
