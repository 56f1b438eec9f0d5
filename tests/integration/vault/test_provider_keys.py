"""The life of a provider key: connected, replaced, removed; readable nowhere in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from ownkey import audit, clock
from ownkey.access import Actor, Role
from ownkey.credentials import Secret
from ownkey.db.engine import Database
from ownkey.db.tables import provider_key_health, provider_keys
from ownkey.errors import Forbidden, NotFound, Unavailable
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.vault import key_health
from ownkey.vault import provider_keys as keys
from ownkey.vault.keyring import KeyRing, VaultLocked
from ownkey.vault.provider_keys import EnvelopeBroken, SealedKey
from tests import build

pytestmark = pytest.mark.anyio

OPENAI, GROQ = registry.find("openai"), registry.find("groq")
FIRST = Secret("sk-proj-first-0123456789abcdef")
SECOND = Secret("sk-proj-second-0123456789abcdef")
LOCKED = KeyRing([], locked_reason="gone")


@pytest.fixture
def ring() -> KeyRing:
    """The key ring of a node."""
    return build.keyring()


async def an_admin(db: Database) -> Actor:
    """An admin of a new organization."""
    return await build.actor(db, await build.organization(db), Role.ADMIN)


async def sealed_keys(db: Database) -> list[SealedKey]:
    """Every row as an admission reads it."""
    async with db.read() as tx:
        rows = await tx.execute(select(*keys.SEALED_COLUMNS).order_by(provider_keys.c.id))
        return [SealedKey(**row._mapping) for row in rows]


async def test_a_key_is_connected_and_opens(database: Database, ring: KeyRing) -> None:
    """The list shows its first characters, a fingerprint, who added it and what its check said; a call can open it."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.OUT_OF_CREDIT, "No credit.")
    assert (saved.provider, saved.preview, saved.health, saved.said) == (
        "openai",
        "sk-proj-••••••••",
        Health.OUT_OF_CREDIT,
        "No credit.",
    )
    assert (saved.added_by, saved.last_used_at) == (admin.label, None)
    assert saved.last_checked_at is not None
    assert await keys.list_keys(database, admin) == [saved]
    [row] = await sealed_keys(database)
    assert (row.id, keys.use(ring, row)) == (saved.id, FIRST)


async def test_a_replaced_key_is_another_row_and_the_old_one_is_gone(database: Database, ring: KeyRing) -> None:
    """A key's id is its version; nothing of the old one is kept."""
    admin = await an_admin(database)
    old = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    other = await keys.save(database, ring, admin, GROQ, FIRST, Health.ACTIVE)
    new = await keys.save(database, ring, admin, OPENAI, SECOND, Health.ACTIVE)
    assert new.id not in (old.id, other.id)
    assert new.fingerprint != old.fingerprint == other.fingerprint
    assert await keys.list_keys(database, admin) == [other, new]
    assert [keys.use(ring, row) for row in await sealed_keys(database)] == [FIRST, SECOND]
    entries = await audit.entries(database, admin.organization_id)
    changes = [(e.action, e.target, e.detail["replaced"]) for e in entries if e.action.startswith("provider_key")]
    assert changes == [
        ("provider_key.replace", new.id, old.id),
        ("provider_key.add", other.id, None),
        ("provider_key.add", old.id, None),
    ]


async def test_a_removed_key_is_destroyed(database: Database, ring: KeyRing) -> None:
    """Neither the sealed secret nor its health is kept; removing it again finds nothing."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    await keys.remove(database, admin, "openai")
    assert await sealed_keys(database) == []
    async with database.read() as tx:
        assert (await tx.execute(select(provider_key_health))).all() == []
    entry = (await audit.entries(database, admin.organization_id, action="provider_key.remove"))[0]
    assert (entry.target, entry.detail) == (saved.id, {"provider": "openai"})
    with pytest.raises(NotFound):
        await keys.remove(database, admin, "openai")


async def test_saving_at_once_leaves_one_key(database: Database, ring: KeyRing) -> None:
    """Several admins saving at the same moment take turns, and each old key is gone."""
    admin = await an_admin(database)
    secrets = [Secret(f"sk-proj-{n}-0123456789abcdef") for n in range(6)]
    saved = await asyncio.gather(
        *(keys.save(database, ring, admin, OPENAI, secret, Health.ACTIVE) for secret in secrets)
    )
    [row] = await sealed_keys(database)
    assert row.id in {one.id for one in saved}
    assert keys.use(ring, row) in secrets


async def test_only_managers_change_keys_and_everybody_may_see_them(database: Database, ring: KeyRing) -> None:
    """The role table decides, narrowed to the owner by the setting; every refusal is recorded and changes nothing."""
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    saved = await keys.save(database, ring, owner, OPENAI, FIRST, Health.ACTIVE, managed_by="owner")
    for role, managed_by in ((Role.USER, "admin"), (Role.DEVELOPER, "admin"), (Role.ADMIN, "owner")):
        actor = await build.actor(database, made, role)
        for attempt in (
            keys.save(database, ring, actor, OPENAI, SECOND, Health.ACTIVE, managed_by=managed_by),
            keys.save(database, ring, actor, GROQ, SECOND, Health.ACTIVE, managed_by=managed_by),
            keys.remove(database, actor, "openai", managed_by=managed_by),
            keys.remove(database, actor, "groq", managed_by=managed_by),
            keys.sealed_key(database, actor, "openai", managed_by=managed_by),
        ):
            with pytest.raises(Forbidden):
                await attempt
        assert await keys.list_keys(database, actor) == [saved]
        entries = await audit.entries(database, made.organization.id)
        refused = [e.action for e in entries if e.actor_id == actor.id and not e.allowed]
        assert sorted(refused) == [
            "provider_key.add",
            "provider_key.check",
            "provider_key.remove",
            "provider_key.remove",
            "provider_key.replace",
        ]
    operator = await build.actor(database, made, None)
    assert keys.use(ring, await keys.sealed_key(database, operator, "openai", managed_by="owner")) == FIRST


async def test_keys_of_another_organization_do_not_exist(database: Database, ring: KeyRing) -> None:
    """They are not listed, not found, and not touched by saving one's own."""
    here, there = await an_admin(database), await an_admin(database)
    theirs = await keys.save(database, ring, there, OPENAI, FIRST, Health.ACTIVE)
    assert await keys.list_keys(database, here) == []
    with pytest.raises(NotFound):
        await keys.remove(database, here, "openai")
    with pytest.raises(NotFound):
        await keys.sealed_key(database, here, "openai")
    mine = await keys.save(database, ring, here, OPENAI, FIRST, Health.ACTIVE)
    assert mine.fingerprint != theirs.fingerprint
    one, two = await sealed_keys(database)
    assert one.ciphertext != two.ciphertext
    assert await keys.list_keys(database, there) == [theirs]


@pytest.mark.parametrize(
    "column", ["ciphertext", "wrapped_data_key", "both", "organization_id", "provider", "base_url"]
)
async def test_a_row_that_was_tampered_with_does_not_open(database: Database, ring: KeyRing, column: str) -> None:
    """A ciphertext moved to another organization or provider, or a changed address, opens nowhere; the log says so."""
    one, two = await an_admin(database), await an_admin(database)
    await keys.save(database, ring, one, OPENAI, FIRST, Health.ACTIVE)
    await keys.save(database, ring, two, OPENAI, SECOND, Health.ACTIVE)
    victim, thief = await sealed_keys(database)
    changes: dict[str, dict[str, object]] = {
        "ciphertext": {"ciphertext": victim.ciphertext},
        "wrapped_data_key": {"wrapped_data_key": victim.wrapped_data_key},
        "both": {"ciphertext": victim.ciphertext, "wrapped_data_key": victim.wrapped_data_key},
        "organization_id": {"organization_id": (await an_admin(database)).organization_id},
        "provider": {"provider": "groq"},
        "base_url": {"base_url": "https://evil.example"},
    }
    async with database.transaction() as tx:
        await tx.execute(update(provider_keys).where(provider_keys.c.id == thief.id).values(changes[column]))
    good, broken = await sealed_keys(database)
    assert keys.use(ring, good) == FIRST
    with pytest.raises(EnvelopeBroken) as refused:
        keys.use(ring, broken)
    assert (refused.value.status, refused.value.code) == (503, "unavailable")
    for _ in range(3):
        await keys.note_broken(database, broken)
    entries = await audit.entries(database, broken.organization_id, action="provider_key.check")
    assert [(entry.target, entry.allowed) for entry in entries] == [(broken.id, False)]


async def test_a_locked_vault_refuses_to_save_and_lets_keys_be_removed(database: Database, ring: KeyRing) -> None:
    """Nothing is stored without a key to seal it; what cannot be opened any more can be given up."""
    admin = await an_admin(database)
    await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    with pytest.raises(VaultLocked):
        await keys.save(database, LOCKED, admin, OPENAI, SECOND, Health.ACTIVE)
    [row] = await sealed_keys(database)
    with pytest.raises(VaultLocked):
        keys.use(LOCKED, row)
    assert len(await keys.list_keys(database, admin)) == 1
    await keys.remove(database, admin, "openai")
    assert await keys.list_keys(database, admin) == []


async def test_health_follows_what_happens(database: Database, ring: KeyRing) -> None:
    """A change is told once; later notes only move the time, and say what was said last."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    place = (saved.id, saved.organization_id)
    assert await key_health.note_health(database, *place, Health.REJECTED, "revoked")
    assert not await key_health.note_health(database, *place, Health.REJECTED, "x" * 10_000)
    [shown] = await keys.list_keys(database, admin)
    assert (shown.health, shown.said) == (Health.REJECTED, "x" * 500)
    assert await key_health.note_health(database, *place, Health.ACTIVE, "")
    assert not await key_health.note_health(database, saved.id, "org_other", Health.REJECTED, "")
    assert not await key_health.note_health(database, "key_gone", saved.organization_id, Health.REJECTED, "")
    [shown] = await keys.list_keys(database, admin)
    assert (shown.health, shown.said) == (Health.ACTIVE, "")


async def test_last_use_never_goes_back(database: Database, ring: KeyRing) -> None:
    """Nodes tell of their uses when they get to it; the latest one stands. Keys that are gone do not matter."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    await key_health.note_used(database, {saved.id: noon, "key_gone": noon})
    await key_health.note_used(database, {saved.id: noon - timedelta(minutes=1)})
    await key_health.note_used(database, {})
    [shown] = await keys.list_keys(database, admin)
    assert shown.last_used_at == noon


async def test_notes_do_not_make_nodes_read_their_keys_anew(database: Database, ring: KeyRing) -> None:
    """Health and use are written often; only a changed key raises the version that nodes watch."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)

    async def version() -> int:
        async with database.read() as tx:
            return int(await tx.scalar(text("SELECT version FROM facts")) or 0)

    before = await version()
    await key_health.note_health(database, saved.id, saved.organization_id, Health.LIMITED, "")
    await key_health.note_used(database, {saved.id: clock.now()})
    assert await version() == before
    await keys.save(database, ring, admin, OPENAI, SECOND, Health.ACTIVE)
    assert await version() > before


async def test_a_key_change_that_cannot_be_recorded_is_not_made(database: Database, ring: KeyRing) -> None:
    """When the audit log cannot be written, no key is added, replaced or removed."""
    admin = await an_admin(database)
    saved = await keys.save(database, ring, admin, OPENAI, FIRST, Health.ACTIVE)
    await build.broken_audit_log(database)
    for attempt in (
        keys.save(database, ring, admin, OPENAI, SECOND, Health.ACTIVE),
        keys.save(database, ring, admin, GROQ, SECOND, Health.ACTIVE),
        keys.remove(database, admin, "openai"),
    ):
        with pytest.raises((DBAPIError, Unavailable)) as failed:
            await attempt
        assert SECOND.reveal() not in repr(failed.value)
    assert await keys.list_keys(database, admin) == [saved]
    [row] = await sealed_keys(database)
    assert keys.use(ring, row) == FIRST
