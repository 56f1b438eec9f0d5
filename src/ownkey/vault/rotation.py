"""Rotate the key encryption key: data keys are wrapped anew, while calls go on using the secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from ownkey.access import Action, Actor
from ownkey.changes import perform
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import provider_keys
from ownkey.vault import envelope
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
        detail: dict[str, Any] = {"kek": primary.id, "rewrapped": 0, "failed": 0}
        async with perform(db, actor, Action.VAULT_ROTATE, primary.id, detail) as tx:
            keys = await _next(tx, primary.id, last_id)
            for key in keys:
                done = await _rewrap(tx, keyring, key)
                detail["rewrapped" if done else "failed"] += 1
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


async def _next(tx: Transaction, primary_id: str, after_id: str) -> list[SealedKey]:
    query = (
        select(*SEALED_COLUMNS)
        .where(provider_keys.c.kek_id != primary_id, provider_keys.c.id > after_id)
        .order_by(provider_keys.c.id)
        .limit(_BATCH)
        # A key that is being replaced or removed is skipped: there will be nothing to wrap.
        .with_for_update(skip_locked=True)
    )
    return [SealedKey(**row._mapping) for row in await tx.execute(query)]


async def _rewrap(tx: Transaction, keyring: KeyRing, key: SealedKey) -> bool:
    try:
        sealed = envelope.rewrap(keyring, key.sealed, key.bound_to)
    except (VaultLocked, EnvelopeBroken):
        return False
    mine = (provider_keys.c.id == key.id) & (provider_keys.c.kek_id == key.kek_id)
    values = {"wrapped_data_key": sealed.wrapped_data_key, "kek_id": sealed.kek_id}
    await tx.execute(update(provider_keys).where(mine).values(**values))
    return True
