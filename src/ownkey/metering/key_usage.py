"""What own keys served lately: what there is to lose, or to take over, when one is replaced or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, cast, func, select

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import usage_events

DAYS = 30
_table = usage_events.c


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """Calls that one key served in the last thirty days, the people they were for, and the tokens."""

    calls: int = 0
    members: int = 0
    tokens: int = 0
    first_at: datetime | None = None

    def days_of(self, tokens: int, now: datetime) -> int | None:
        """How many whole days so many tokens last at this rate; None if nothing was used.

        The rate is that since the first of these calls, but at least of a day: an hour tells little.
        """
        if not self.tokens or self.first_at is None:
            return None
        spent = max(now - self.first_at, timedelta(days=1))
        return int(tokens * spent / timedelta(days=1) / self.tokens)


async def of_keys(db: Database, actor: Actor, now: datetime) -> Mapping[str, KeyUsage]:
    """Key id to what it served in the thirty days before ``now``, for the keys of the actor's organization."""
    since = now - timedelta(days=DAYS)
    periods = {clock.period_of(since + timedelta(days=days)) for days in range(DAYS + 1)}
    tokens = func.coalesce(func.sum(_table.input_tokens + _table.output_tokens), 0)
    query = (
        select(
            _table.provider_key_id,
            func.count(),
            func.count(_table.user_id.distinct()),
            cast(tokens, BigInteger),
            func.min(_table.started_at),
        )
        .where(
            _table.organization_id == actor.organization_id,
            _table.period.in_(sorted(periods)),
            _table.provider_key_id.is_not(None),
            _table.started_at >= since,
        )
        .group_by(_table.provider_key_id)
    )
    async with db.read() as tx:
        return {row[0]: KeyUsage(*row[1:]) for row in await tx.execute(query)}
