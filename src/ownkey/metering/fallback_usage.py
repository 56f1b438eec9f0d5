"""What the allowance served in place of keys that could not: calls and tokens of a month, for people to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, select

from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import usage_events
from ownkey.db.usage_tables import fallback_calls


@dataclass(frozen=True, slots=True)
class FallbackUsage:
    """Requests that reached the provider, and the tokens they took from the allowance."""

    requests: int = 0
    tokens: int = 0


async def by_provider(db: Database, actor: Actor, period: str) -> Mapping[str, FallbackUsage]:
    """Provider to what was served in place of its key, for the actor's organization; none where nothing was."""
    tokens = cast(func.coalesce(func.sum(usage_events.c.charged_tokens), 0), BigInteger)
    query = (
        select(fallback_calls.c.provider, func.count(), tokens)
        .join(usage_events, usage_events.c.request_id == fallback_calls.c.request_id)
        .where(fallback_calls.c.organization_id == actor.organization_id, fallback_calls.c.period == period)
        .group_by(fallback_calls.c.provider)
    )
    async with db.read() as tx:
        return {row[0]: FallbackUsage(row[1], row[2]) for row in await tx.execute(query)}


def together(usages: Mapping[str, FallbackUsage]) -> FallbackUsage:
    """The sum over all providers."""
    return FallbackUsage(sum(one.requests for one in usages.values()), sum(one.tokens for one in usages.values()))
