"""Rotate the key encryption key: data keys are wrapped anew, while calls go on using the secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, select, update

from ownkey.access import Action, Actor
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import provider_keys
from ownkey.vault import envelope
from ownkey.vault.envelope import Sealed
from ownkey.vault.keyring import KeyRing, VaultLocked
from ownkey.vault.provider_keys import SEALED_COLUMNS, EnvelopeBroken, SealedKey, counts_by_kek

# A transaction's worth: short enough for nobody to wait long, and all that a killed rotation has to do again.
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many keys a rotation wrapped anew, found wrapped already, and could not unwrap."""

    rewrapped: int
    unchanged: int
    failed: int


@dataclass(frozen=True, slots=True)
class Status:
    """Which key encryption keys the stored keys need: ``counts`` by key id, ``unreadable`` without one in the ring."""

    primary_id: str
    locked_reason: str | None
    counts: Mapping[str, int]
    unreadable: int


async def rotate(db: Database, keyring: KeyRing, actor: Actor) -> Rotation:
    """Wrap every data key with the ring's first key. It can be stopped at any moment and run again.

    For the operator only. Raises ``Forbidden`` and ``VaultLocked``.
    """
    primary, last_id = keyring.primary(), ""
    rewrapped = failed = 0
    while True:
        keys = await _next(db, primary.id, last_id)
        # Before the transaction: while it is open, no call on any node is admitted.
        wrapped = {key.id: sealed.wrapped_data_key for key in keys if (sealed := _rewrap(keyring, key))}
        detail: dict[str, Any] = {"kek": primary.id, "rewrapped": 0, "failed": len(keys) - len(wrapped)}
        async with perform(db, actor, Action.VAULT_ROTATE, primary.id, detail) as tx:
            detail["rewrapped"] = await _write(tx, primary.id, wrapped)
        rewrapped, failed = rewrapped + detail["rewrapped"], failed + detail["failed"]
        if len(keys) < _BATCH:
            break
        last_id = keys[-1].id
    total = sum((await counts_by_kek(db)).values())
    return Rotation(rewrapped, max(0, total - rewrapped - failed), failed)


async def status(db: Database, keyring: KeyRing) -> Status:
    """Which key encryption keys the stored keys are wrapped with."""
    counts = await counts_by_kek(db)
    unreadable = sum(number for kek_id, number in counts.items() if not keyring.holds(kek_id))
    return Status(keyring.primary_id, keyring.locked_reason, counts, unreadable)


async def _next(db: Database, primary_id: str, after_id: str) -> list[SealedKey]:
    query = (
        select(*SEALED_COLUMNS)
        .where(provider_keys.c.kek_id != primary_id, provider_keys.c.id > after_id)
        .order_by(provider_keys.c.id)
        .limit(_BATCH)
    )
    async with db.read() as tx:
        return [SealedKey(**row._mapping) for row in await tx.execute(query)]


def _rewrap(keyring: KeyRing, key: SealedKey) -> Sealed | None:
    try:
        return envelope.rewrap(keyring, key.sealed, key.bound_to)
    except (VaultLocked, EnvelopeBroken):
        return None


async def _write(tx: Transaction, primary_id: str, wrapped: Mapping[str, bytes]) -> int:
    """Write data keys in one statement; returns how many.

    A key's id is its version, so what was replaced, removed or wrapped by another rotation meanwhile is left out.
    """
    if not wrapped:
        return 0
    table = provider_keys.c
    written = (
        update(provider_keys)
        .where(table.id.in_(wrapped), table.kek_id != primary_id)
        .values(wrapped_data_key=case(wrapped, value=table.id), kek_id=primary_id)
        .returning(table.id)
    )
    return len((await tx.execute(written)).all())
