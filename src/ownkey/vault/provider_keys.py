"""Provider key: the credential an organization brings for a provider, kept sealed.

A replaced key is a new row and the old one is gone, so a key's id is also its version. Which key served a call is in
``usage_events``; the health of a key is kept apart, because it changes with traffic and is nobody's decision.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, update

from ownkey import audit, clock
from ownkey.access import Action, Actor, Role
from ownkey.changes import perform
from ownkey.credentials import Secret
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import organizations, provider_key_health, provider_keys
from ownkey.errors import Forbidden, InvalidRequest, NotFound
from ownkey.ids import new_id
from ownkey.providers.health import Health
from ownkey.providers.provider import Provider
from ownkey.providers.service_account import TOKEN_URL, ServiceAccount, email_of
from ownkey.vault import envelope, key_health
from ownkey.vault.envelope import EnvelopeBroken as EnvelopeBroken  # what use() raises
from ownkey.vault.envelope import Sealed
from ownkey.vault.keyring import KeyRing

LONGEST_KEY = 16 * 1024
MOST_FALLBACK_TOKENS = 10**15
_LONGEST_LIFE = timedelta(days=3653)


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """What anybody may ever see of a key: its first characters, a fingerprint, its health, who added it and when.

    Of a service account's key the ``preview`` is the account's e-mail address. ``address`` is where the key goes, empty
    for the provider's usual address. ``said`` is what the provider said at the last check, the key taken out of it.
    ``expires_at`` is what the admins were told of it, if anything: they are reminded, and nothing else depends on it.
    ``fallback_tokens``: so many of the allowance may serve calls in a month that this key could not; None: never.
    """

    id: str
    organization_id: str
    provider: str
    address: str
    preview: str
    fingerprint: str
    health: Health
    said: str
    last_checked_at: datetime | None
    last_used_at: datetime | None
    added_by: str
    created_at: datetime
    expires_at: datetime | None
    health_since: datetime | None
    fallback_tokens: int | None


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A key as an admission reads it; ``use`` opens it. An empty ``base_url`` is the provider's own address."""

    id: str
    organization_id: str
    provider: str
    base_url: str
    ciphertext: bytes = field(repr=False)
    wrapped_data_key: bytes = field(repr=False)
    kek_id: str

    @property
    def bound_to(self) -> bytes:
        """What the ciphertext authenticates: it opens in this row, for this organization, provider and address only."""
        return f"provider_key/v1/{self.id}/{self.organization_id}/{self.provider}/{self.base_url}".encode()

    @property
    def sealed(self) -> Sealed:
        """The envelope in the row."""
        return Sealed(self.ciphertext, self.wrapped_data_key, self.kek_id)


def clean(text: str, provider: Provider | None = None, token_url: str = TOKEN_URL) -> Secret:
    """A pasted key without the white space around it; empty if there is none and the provider needs none.

    Raises ``InvalidRequest``, which shows nothing of it, when it is empty, longer than 16 KiB, has white space or
    control characters inside, or is no key of a service account where the provider takes these.
    """
    key = text.strip().strip("\ufeff\u200b")
    if not key and provider is not None and provider.key_optional:
        return Secret("")
    if not key:
        raise InvalidRequest("Paste the API key.")
    if len(key.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
        raise InvalidRequest("This is too long for an API key.")
    if provider is not None and provider.credential == "service_account":
        ServiceAccount.read(key, token_url)
        return Secret(key)
    if any(mark.isspace() or unicodedata.category(mark)[0] == "C" for mark in key):
        raise InvalidRequest("The API key has spaces or line breaks in it. Copy it again.")
    return Secret(key)


def expiry(text: str) -> datetime | None:
    """The beginning (UTC) of the day on which a key expires, from ``2027-01-31``; None for none.

    Raises ``InvalidRequest`` for what is no day, or not after today, or more than ten years ahead.
    """
    if not text.strip():
        return None
    day = clock.parse_day(text)
    today = clock.now().date()
    if not today < day <= today + _LONGEST_LIFE:
        raise InvalidRequest("Give a day after today, within ten years, or none.")
    return clock.day_start(day)


def may_manage(actor: Actor, managed_by: str = "admin") -> bool:
    """Whether the actor may connect, replace and remove keys; ``managed_by`` is the setting ``keys_managed_by``."""
    if managed_by == "owner" and actor.kind != "operator" and actor.role is not Role.OWNER:
        return False
    return actor.may(Action.PROVIDER_KEY_ADD)


def managers(managed_by: str) -> str:
    """Who may manage keys, in the words of the page."""
    return "the organization's owner" if managed_by == "owner" else "workspace admins"


async def require_manager(db: Database, actor: Actor, action: Action, target: str, managed_by: str) -> None:
    """Raise ``Forbidden``, after recording the attempt, unless the actor may manage keys."""
    if not may_manage(actor, managed_by):
        await audit.record_refusal(db, actor, action, target)
        raise Forbidden(f"AI provider keys are managed by {managers(managed_by)}.")


async def list_keys(db: Database, actor: Actor) -> Sequence[ProviderKey]:
    """The keys of the actor's organization, by provider."""
    query = _query().where(provider_keys.c.organization_id == actor.organization_id)
    async with db.read() as tx:
        return [_provider_key_of(row) for row in await tx.execute(query.order_by(provider_keys.c.provider))]


async def save(
    db: Database,
    keyring: KeyRing,
    actor: Actor,
    provider: Provider,
    secret: Secret,
    health: Health,
    said: str = "",
    *,
    base_url: str = "",
    expires_at: datetime | None = None,
    managed_by: str = "admin",
) -> ProviderKey:
    """Store a key for a provider, in place of the one there may be; no call admitted afterwards uses the old one.

    ``health`` and ``said`` come from the check just made, ``base_url`` from ``Directory.accept``: another address is
    another key. What the organization chose for a failing key stays, unless the new one has an address of its own.
    Raises ``Forbidden`` and ``VaultLocked``.
    """
    old_id = await _current_id(db, actor, provider.slug)
    action = Action.PROVIDER_KEY_REPLACE if old_id else Action.PROVIDER_KEY_ADD
    await require_manager(db, actor, action, old_id or provider.slug, managed_by)
    key = SealedKey(new_id("key"), actor.organization_id, provider.slug, base_url, b"", b"", "")
    sealed = envelope.seal(keyring, secret, key.bound_to)
    detail = {"provider": provider.slug, "health": health.value, "replaced": old_id}
    if base_url:
        detail["address"] = base_url
    if expires_at is not None:
        detail["expires"] = f"{expires_at:%Y-%m-%d}"
    async with perform(db, actor, action, key.id, detail) as tx:
        gone = await _delete(tx, actor.organization_id, provider.slug)
        detail["replaced"] = gone.id if gone else None
        shown = {
            "preview": _preview(provider, secret),
            "fingerprint": secret.fingerprint(keyring.fingerprint_key(key.organization_id)),
            "created_by": actor.label,
            "expires_at": expires_at,
            "fallback_tokens": gone.fallback_tokens if gone and not base_url else None,
        }
        await _insert(tx, key, sealed, shown)
        await key_health.begin(tx, key.id, actor.organization_id, health, said)
        saved = _provider_key_of((await tx.execute(_query().where(provider_keys.c.id == key.id))).one())
    if old_id:
        await db.empty_log()
    return saved


async def remove(db: Database, actor: Actor, provider_slug: str, *, managed_by: str = "admin") -> None:
    """Destroy the organization's key for a provider. Raises ``NotFound`` without one, ``Forbidden``.

    It needs no open vault: a key that cannot be opened any more can still be removed.
    """
    old_id = await _current_id(db, actor, provider_slug)
    await require_manager(db, actor, Action.PROVIDER_KEY_REMOVE, old_id or provider_slug, managed_by)
    detail = {"provider": provider_slug}
    async with perform(db, actor, Action.PROVIDER_KEY_REMOVE, old_id or provider_slug, detail) as tx:
        if await _delete(tx, actor.organization_id, provider_slug) is None:
            raise NotFound
    await db.empty_log()


async def set_fallback(
    db: Database, actor: Actor, provider_slug: str, tokens: int | None, *, managed_by: str = "admin"
) -> ProviderKey:
    """Choose whether the allowance serves calls that the key could not, because of an outage or a rate limit.

    ``tokens`` is how many of the allowance that may take in a month; None: never, which is how it is at first. Calls
    admitted afterwards follow it. Raises ``NotFound`` without a key, ``Forbidden``, and ``InvalidRequest`` for less
    than one token, and for a key with an address of its own, which is another provider.
    """
    if tokens is not None and not 1 <= tokens <= MOST_FALLBACK_TOKENS:
        raise InvalidRequest(f"Give a number of tokens from 1 to {MOST_FALLBACK_TOKENS:,}.")
    action = Action.PROVIDER_KEY_SET_FALLBACK
    key_id = await _current_id(db, actor, provider_slug)
    await require_manager(db, actor, action, key_id or provider_slug, managed_by)
    detail: dict[str, Any] = {"provider": provider_slug, "tokens": tokens}
    async with perform(db, actor, action, key_id or provider_slug, detail) as tx:
        found = (await tx.execute(_query().where(_of(actor.organization_id, provider_slug)))).one_or_none()
        if found is None:
            raise NotFound
        if tokens is not None and found.address:
            raise InvalidRequest("This key has an address of its own, where the allowance has nothing to offer.")
        detail["before"] = found.fallback_tokens
        await tx.execute(
            update(provider_keys).where(_of(actor.organization_id, provider_slug)).values(fallback_tokens=tokens)
        )
        return _provider_key_of((await tx.execute(_query().where(provider_keys.c.id == found.id))).one())


async def sealed_key(db: Database, actor: Actor, provider_slug: str, *, managed_by: str = "admin") -> SealedKey:
    """The organization's key for a provider, sealed, for checking it anew. Raises ``NotFound``, ``Forbidden``."""
    await require_manager(db, actor, Action.PROVIDER_KEY_CHECK, provider_slug, managed_by)
    query = select(*SEALED_COLUMNS).where(_of(actor.organization_id, provider_slug))
    async with db.read() as tx:
        row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise NotFound
    return SealedKey(**row._mapping)


async def sealed_by_id(db: Database, key_ids: Collection[str]) -> Sequence[SealedKey]:
    """Those of the keys that are still there, sealed: for looking after them, whoever they belong to."""
    async with db.read() as tx:
        rows = await tx.execute(select(*SEALED_COLUMNS).where(provider_keys.c.id.in_(key_ids)))
        return [SealedKey(**row._mapping) for row in rows]


def use(keyring: KeyRing, sealed: SealedKey) -> Secret:
    """Open a key: the one place where a stored secret becomes readable.

    Raises ``VaultLocked`` without the key encryption key, and ``EnvelopeBroken`` when the row is not what was stored;
    report that one with ``note_broken``. Neither is a reason to use another key or the allowance.
    """
    return envelope.open_sealed(keyring, sealed.sealed, sealed.bound_to)


async def note_broken(db: Database, sealed: SealedKey) -> None:
    """Write into the audit log that a stored key did not open: somebody changed its row behind our back.

    Once a day for a key, however many calls find out.
    """
    actor = Actor("operator", "ownkey", "Ownkey", sealed.organization_id)
    action = Action.PROVIDER_KEY_CHECK
    latest = await audit.entries(db, sealed.organization_id, action=action.value, limit=50)
    today = clock.now().date()
    if not any(e.target == sealed.id and not e.allowed and e.created_at.date() == today for e in latest):
        async with db.transaction() as tx:
            detail = {"provider": sealed.provider, "reason": "the stored key does not open: its row was changed"}
            await audit.record(tx, actor, action, sealed.id, allowed=False, detail=detail)


async def counts_by_kek(db: Database) -> Mapping[str, int]:
    """How many stored keys are wrapped with which key encryption key, by its id."""
    query = select(provider_keys.c.kek_id, func.count()).group_by(provider_keys.c.kek_id)
    async with db.read() as tx:
        return {row[0]: row[1] for row in await tx.execute(query)}


async def sealed_kek_ids(db: Database) -> set[str]:
    """The ids of the key encryption keys that stored keys are wrapped with: what ``KeyRing.load`` has to find."""
    return set(await counts_by_kek(db))


SEALED_COLUMNS: tuple[ColumnElement[Any], ...] = (
    provider_keys.c.id,
    provider_keys.c.organization_id,
    provider_keys.c.provider,
    provider_keys.c.base_url,
    provider_keys.c.ciphertext,
    provider_keys.c.wrapped_data_key,
    provider_keys.c.kek_id,
)


def _of(organization_id: str, provider_slug: str) -> ColumnElement[bool]:
    return (provider_keys.c.organization_id == organization_id) & (provider_keys.c.provider == provider_slug)


async def _current_id(db: Database, actor: Actor, provider_slug: str) -> str | None:
    async with db.read() as tx:
        found: str | None = await tx.scalar(select(provider_keys.c.id).where(_of(actor.organization_id, provider_slug)))
    return found


async def _delete(tx: Transaction, organization_id: str, provider_slug: str) -> Row[Any, Any] | None:
    """Delete the organization's key for a provider; returns what outlives it. Two changes of its keys take turns."""
    # Not a plain FOR UPDATE: that would wait for every insert that refers to the organization.
    await tx.execute(
        select(organizations.c.id).where(organizations.c.id == organization_id).with_for_update(key_share=True)
    )
    lasting = (provider_keys.c.id, provider_keys.c.fallback_tokens)
    gone = delete(provider_keys).where(_of(organization_id, provider_slug)).returning(*lasting)
    return (await tx.execute(gone)).one_or_none()


def _preview(provider: Provider, secret: Secret) -> str:
    if not secret.reveal():
        return "none"
    return email_of(secret) if provider.credential == "service_account" else secret.preview()


async def _insert(tx: Transaction, key: SealedKey, sealed: Sealed, shown: Mapping[str, Any]) -> None:
    values = {
        "id": key.id,
        "organization_id": key.organization_id,
        "provider": key.provider,
        "base_url": key.base_url,
        "ciphertext": sealed.ciphertext,
        "wrapped_data_key": sealed.wrapped_data_key,
        "kek_id": sealed.kek_id,
        "created_at": clock.now(),
    }
    await tx.execute(insert(provider_keys).values(**values, **shown))


def _query() -> Select[Any]:
    return select(
        provider_keys.c.id,
        provider_keys.c.organization_id,
        provider_keys.c.provider,
        provider_keys.c.base_url.label("address"),
        provider_keys.c.preview,
        provider_keys.c.fingerprint,
        func.coalesce(provider_key_health.c.health, Health.UNVERIFIED.value).label("health"),
        func.coalesce(provider_key_health.c.said, "").label("said"),
        provider_key_health.c.last_checked_at,
        provider_key_health.c.last_used_at,
        func.coalesce(provider_keys.c.created_by, "").label("added_by"),
        provider_keys.c.created_at,
        provider_keys.c.expires_at,
        provider_key_health.c.health_since,
        provider_keys.c.fallback_tokens,
    ).outerjoin(provider_key_health, provider_key_health.c.provider_key_id == provider_keys.c.id)


def _provider_key_of(row: Row[Any]) -> ProviderKey:
    return ProviderKey(**{**row._mapping, "health": Health(row.health)})
