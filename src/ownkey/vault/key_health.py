"""The health of provider keys: what checks and traffic told, whom it was told to, and what is to be done next.

It changes with traffic and is nobody's decision, so it stands in a table of its own. Several nodes look after the same
keys: each piece of work is claimed by one update that only one of them can make.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, insert, or_, select, update

from ownkey import clock
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import organizations, provider_key_health, provider_keys
from ownkey.providers.health import Health

_LONGEST_SAID = 500
CHECK_EVERY = timedelta(hours=6)
"""How often a connected key is checked when nothing else tells of it."""
_SOON = timedelta(minutes=5)
_CLAIM = timedelta(minutes=10)
# What passes by itself is told when it has not.
_PATIENCE = timedelta(minutes=10)
# Days before a key expires: first, and once more.
_REMINDERS = (timedelta(days=14), timedelta(days=2))
_table = provider_key_health.c


@dataclass(frozen=True, slots=True)
class DueCheck:
    """A key to check, and the health it has."""

    key_id: str
    health: Health


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose health is another than the one its admins know of; ``fallback_tokens`` as in ``ProviderKey``."""

    key_id: str
    organization_id: str
    provider: str
    preview: str
    before: Health
    health: Health
    said: str
    since: datetime
    fallback_tokens: int | None


@dataclass(frozen=True, slots=True)
class Expiring:
    """A key that expires soon, or did, by the date that was given with it."""

    key_id: str
    organization_id: str
    provider: str
    preview: str
    expires_at: datetime


async def begin(tx: Transaction, key_id: str, organization_id: str, health: Health, said: str) -> None:
    """The first note of a new key, in the transaction that stores it: whoever saves it is shown its health."""
    now = clock.now()
    await tx.execute(
        insert(provider_key_health).values(
            provider_key_id=key_id,
            organization_id=organization_id,
            health=health.value,
            said=said[:_LONGEST_SAID],
            last_checked_at=now,
            health_since=now,
            told_health=health.value,
            next_check_at=now + _pause(health, timedelta()),
        )
    )


async def note_health(
    db: Database,
    key_id: str,
    organization_id: str,
    health: Health,
    said: str | None,
    *,
    as_of: datetime | None = None,
) -> bool:
    """Remember what a check or real traffic told of a key, which puts its next check off.

    ``said`` None leaves what the provider said before. ``as_of`` is when a check began, or a call told it: if
    something newer was noted since then, that stays. Returns whether the health is another than before; admins are
    told later, by ``claim_changes``.
    """
    mine = (_table.provider_key_id == key_id) & (_table.organization_id == organization_id)
    now = clock.now()
    async with db.transaction() as tx:
        now_noted = select(_table.health, _table.health_since, _table.last_checked_at)
        row = (await tx.execute(now_noted.where(mine).with_for_update())).one_or_none()
        if row is None:  # the key was replaced or removed
            return False
        if as_of is not None and (row.last_checked_at or as_of) > as_of:
            health, said = Health(row.health), None
        changed: bool = row.health != health.value
        since = now if changed else (row.health_since or now)
        values: dict[str, Any] = {
            "health": health.value,
            "last_checked_at": now,
            "health_since": since,
            "next_check_at": now + _pause(health, now - since),
        }
        if said is not None:
            values["said"] = said[:_LONGEST_SAID]
        await tx.execute(update(provider_key_health).where(mine).values(**values))
    return changed


async def note_used(db: Database, moments: Mapping[str, datetime]) -> None:
    """Remember when keys last served a call: key id to moment."""
    async with db.transaction() as tx:
        # In one order on every node, so that two of them never wait for each other.
        for key_id, moment in sorted(moments.items()):
            earlier = or_(_table.last_used_at.is_(None), _table.last_used_at < moment)
            mine = _table.provider_key_id == key_id
            await tx.execute(update(provider_key_health).where(mine, earlier).values(last_used_at=moment))


async def claim_checks(db: Database, most: int) -> Sequence[DueCheck]:
    """Up to ``most`` keys that this node, and no other, is to check now, the longest overdue first.

    What is not noted within ten minutes, because the node died, is due again.
    """
    now = clock.now()
    due = (
        select(_table.provider_key_id, _table.health, _table.next_check_at)
        .join(organizations, organizations.c.id == _table.organization_id)
        .where(_table.next_check_at <= now, organizations.c.suspended_at.is_(None))
        .order_by(_table.next_check_at)
        .limit(most)
    )
    claimed = []
    for row in await _due(db, due):
        unclaimed = (_table.provider_key_id == row.provider_key_id) & (_table.next_check_at == row.next_check_at)
        if await _claim(db, unclaimed, next_check_at=now + _CLAIM):
            claimed.append(DueCheck(row.provider_key_id, Health(row.health)))
    return claimed


async def claim_changes(db: Database, most: int) -> Sequence[Change]:
    """Changes of health that this node, and no other, is to tell the admins of; each is given out once.

    A key that is refused, or whose account is out of credit, is told at once; what may pass by itself, and that a key
    works again, when it has stood for ten minutes. So a key that wavers makes no storm of messages.
    """
    patient = clock.now() - _PATIENCE
    trouble = [health.value for health in Health if health.is_trouble]
    passing = [health.value for health in Health if health.passes]
    at_once = [value for value in trouble if value not in passing]
    works_again = (_table.health == Health.ACTIVE.value) & _table.told_health.in_(trouble)
    stood = (_table.health_since <= patient) & or_(_table.health.in_(passing), works_again)
    due = (
        select(
            _table.provider_key_id.label("key_id"),
            _table.organization_id,
            provider_keys.c.provider,
            provider_keys.c.preview,
            _table.told_health.label("before"),
            _table.health,
            _table.said,
            _table.health_since.label("since"),
            provider_keys.c.fallback_tokens,
        )
        .join(provider_keys, provider_keys.c.id == _table.provider_key_id)
        .where(_table.told_health != _table.health, or_(_table.health.in_(at_once), stood))
        .order_by(_table.health_since)
        .limit(most)
    )
    claimed = []
    for row in await _due(db, due):
        unclaimed = (
            (_table.provider_key_id == row.key_id) & (_table.told_health == row.before) & (_table.health == row.health)
        )
        if await _claim(db, unclaimed, told_health=row.health):
            fields = {**row._mapping, "before": Health(row.before), "health": Health(row.health)}
            claimed.append(Change(**fields))
    return claimed


async def claim_reminders(db: Database, most: int) -> Sequence[Expiring]:
    """Keys that expire within two weeks, and once more within two days, whose admins this node is to remind."""
    now = clock.now()
    expires_at = provider_keys.c.expires_at
    due = (
        select(
            provider_keys.c.id.label("key_id"),
            provider_keys.c.organization_id,
            provider_keys.c.provider,
            provider_keys.c.preview,
            expires_at,
        )
        .join(provider_key_health, _table.provider_key_id == provider_keys.c.id)
        .where(or_(*((expires_at <= now + ahead) & _not_reminded(ahead) for ahead in _REMINDERS)))
        .order_by(expires_at)
        .limit(most)
    )
    claimed = []
    for row in await _due(db, due):
        stage = min(ahead for ahead in _REMINDERS if row.expires_at <= now + ahead)
        unclaimed = (_table.provider_key_id == row.key_id) & _not_reminded(stage)
        if await _claim(db, unclaimed, reminded_days=stage.days):
            claimed.append(Expiring(**row._mapping))
    return claimed


def _not_reminded(ahead: timedelta) -> ColumnElement[bool]:
    """Whether the reminder so long ahead was given neither itself nor by a later one."""
    return or_(_table.reminded_days.is_(None), _table.reminded_days > ahead.days)


def _pause(health: Health, stood: timedelta) -> timedelta:
    """How long until the next check of a key whose health has stood so long: soon where it may pass by itself.

    A quarter more or less, so that keys that were saved together are not checked together for ever.
    """
    pause = min(max(stood, _SOON), CHECK_EVERY) if health.passes else CHECK_EVERY
    return pause * (75 + secrets.randbelow(51)) / 100


async def _due(db: Database, query: Select[Any]) -> Sequence[Row[Any]]:
    async with db.read() as tx:
        return list(await tx.execute(query))


async def _claim(db: Database, unclaimed: ColumnElement[bool], **values: object) -> bool:
    """Whether this node was the first to make the update."""
    async with db.transaction() as tx:
        claimed = await tx.execute(update(provider_key_health).where(unclaimed).values(**values))
    return claimed.rowcount == 1
