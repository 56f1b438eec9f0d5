"""Rotating the key encryption key while keys are in use."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from ownkey import audit
from ownkey.access import Actor, Role
from ownkey.credentials import Secret
from ownkey.db.engine import Database
from ownkey.db.tables import provider_keys
from ownkey.errors import Forbidden
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.vault import provider_keys as keys
from ownkey.vault import rotation
from ownkey.vault.envelope import Sealed
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing, VaultLocked
from ownkey.vault.provider_keys import SealedKey
from ownkey.vault.rotation import Rotation, Status, rotate, status
from tests import build

pytestmark = pytest.mark.anyio

OLD, NEW = Kek.parse(new_kek()), Kek.parse(new_kek())
BEFORE, DURING, AFTER = KeyRing([OLD]), KeyRing([NEW, OLD]), KeyRing([NEW])
PROVIDERS = [registry.find(slug) for slug in ("openai", "anthropic", "gemini", "groq", "mistral")]


def secret(provider: str, actor: Actor) -> Secret:
    """The key that an organization has for a provider."""
    return Secret(f"sk-{provider}-{actor.organization_id}")


async def filled(db: Database, organizations: int = 1) -> list[Actor]:
    """Owners of organizations with five keys each, sealed with the old key."""
    owners = []
    for _ in range(organizations):
        owner = await build.actor(db, await build.organization(db), Role.OWNER)
        for provider in PROVIDERS:
            await keys.save(db, BEFORE, owner, provider, secret(provider.slug, owner), Health.ACTIVE)
        owners.append(owner)
    return owners


async def sealed_keys(db: Database) -> list[SealedKey]:
    """Every row as an admission reads it."""
    async with db.read() as tx:
        return [SealedKey(**row._mapping) for row in await tx.execute(select(*keys.SEALED_COLUMNS))]


async def test_after_a_rotation_only_the_new_key_is_needed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret opens with the new key, none with the old; ciphertexts are untouched; each batch is recorded."""
    monkeypatch.setattr(rotation, "_BATCH", 3)
    owners = await filled(database, 2)
    before = {row.id: row.ciphertext for row in await sealed_keys(database)}
    assert await status(database, DURING) == Status(NEW.id, None, {OLD.id: 10}, 0)
    assert await rotate(database, DURING, Actor.operator()) == Rotation(rewrapped=10, unchanged=0, failed=0)
    rows = await sealed_keys(database)
    assert {row.id: row.ciphertext for row in rows} == before
    expected = {(p.slug, o.organization_id): secret(p.slug, o) for p in PROVIDERS for o in owners}
    assert {(row.provider, row.organization_id): keys.use(AFTER, row) for row in rows} == expected
    for row in rows:
        with pytest.raises(VaultLocked):
            keys.use(BEFORE, row)
    assert await keys.sealed_kek_ids(database) == {NEW.id}
    assert await audit.verify(database) == (2 + 10 + 4, None)


async def test_a_rotation_that_was_stopped_is_taken_up_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done stays done; in between every key opens; the second run does the rest."""
    monkeypatch.setattr(rotation, "_BATCH", 2)
    await filled(database)
    real = rotation._rewrap
    done = 0

    def killed_at_the_fourth(ring: KeyRing, key: SealedKey) -> Sealed | None:
        nonlocal done
        done += 1
        if done == 4:
            raise asyncio.CancelledError
        return real(ring, key)

    monkeypatch.setattr(rotation, "_rewrap", killed_at_the_fourth)
    with pytest.raises(asyncio.CancelledError):
        await rotate(database, DURING, Actor.operator())
    for row in await sealed_keys(database):
        keys.use(DURING, row)
    assert (await status(database, DURING)).counts == {OLD.id: 3, NEW.id: 2}
    assert await rotate(database, DURING, Actor.operator()) == Rotation(rewrapped=3, unchanged=2, failed=0)
    assert await rotate(database, DURING, Actor.operator()) == Rotation(rewrapped=0, unchanged=5, failed=0)


async def test_a_key_that_cannot_be_unwrapped_is_counted_and_left(database: Database) -> None:
    """A tampered row and one of a lost key do not hold up the others, and are not made worse."""
    await filled(database)
    rows = await sealed_keys(database)
    async with database.transaction() as tx:
        for row, values in ((rows[0], {"wrapped_data_key": b"x"}), (rows[1], {"kek_id": "0123456789ab"})):
            await tx.execute(update(provider_keys).where(provider_keys.c.id == row.id).values(**values))
    assert await rotate(database, DURING, Actor.operator()) == Rotation(rewrapped=3, unchanged=0, failed=2)
    found = await status(database, DURING)
    assert (found.counts, found.unreadable) == ({OLD.id: 1, NEW.id: 3, "0123456789ab": 1}, 1)
    assert (await status(database, KeyRing([], locked_reason="gone"))).unreadable == 5


async def test_keys_saved_during_a_rotation_are_sealed_with_the_new_key(database: Database) -> None:
    """Replacing keys and rotating at the same moment leaves every key readable with the new key alone."""
    [owner] = await filled(database)
    await asyncio.gather(
        rotate(database, DURING, Actor.operator()),
        *(keys.save(database, DURING, owner, p, secret(p.slug, owner), Health.ACTIVE) for p in PROVIDERS),
    )
    await rotate(database, DURING, Actor.operator())
    assert {row.provider: keys.use(AFTER, row) for row in await sealed_keys(database)} == {
        p.slug: secret(p.slug, owner) for p in PROVIDERS
    }


async def test_only_the_operator_rotates(database: Database) -> None:
    """No role reaches it; a locked vault has nothing to rotate to."""
    [owner] = await filled(database)
    with pytest.raises(Forbidden):
        await rotate(database, DURING, owner)
    with pytest.raises(VaultLocked):
        await rotate(database, KeyRing([OLD], locked_reason="wrong"), Actor.operator())
    assert await keys.sealed_kek_ids(database) == {OLD.id}
