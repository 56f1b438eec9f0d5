"""The organization's own provider keys. They are written and never read: a reply shows the first characters only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from ownkey.access import Action
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Given, Page, Shown
from ownkey.errors import InvalidRequest, NotFound
from ownkey.providers import addresses, registry
from ownkey.providers.health import Health
from ownkey.providers.key_check import KeyCheckResult
from ownkey.vault import key_health, provider_keys


class ProviderKey(Shown):
    """What anybody may ever see of a key. ``said`` is what the provider said at the last check.

    ``address`` is where the key goes, empty for the provider's usual address. ``fallback_tokens``: so many of the
    allowance may serve requests in a month that this key could not, on an outage or a rate limit; null: never.
    """

    id: str
    provider: str
    address: str
    preview: str
    fingerprint: str
    health: Health
    said: str
    added_by: str
    created_at: datetime
    last_checked_at: datetime | None
    last_used_at: datetime | None
    health_since: datetime | None
    expires_at: datetime | None
    fallback_tokens: int | None


class NewKey(Given):
    """A key to connect, or to put in place of the one there is, its address included."""

    key: Annotated[str, Field(max_length=provider_keys.LONGEST_KEY, json_schema_extra={"writeOnly": True})] = ""
    address: Annotated[
        str,
        Field(
            max_length=addresses.LONGEST,
            description="For a provider whose host is yours: the resource, region or address it asks for.",
        ),
    ] = ""
    expires: Annotated[
        str,
        Field(max_length=10, description="The day on which the key expires, as 2027-01-31: admins are reminded."),
    ] = ""
    unchecked: Annotated[bool, Field(description="Save it without asking the provider about it.")] = False


class Fallback(Given):
    """What happens to requests that the key could not serve because of an outage or a rate limit."""

    tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=provider_keys.MOST_FALLBACK_TOKENS,
            description="So many tokens of the allowance may serve them in a month; null: never.",
        ),
    ]


class SavedKey(ProviderKey):
    """A key just saved. ``advice`` names what looks wrong about its form, without being a reason to refuse it."""

    advice: str | None


async def list_keys(node: Here, actor: Caller) -> Page[ProviderKey]:
    """List the organization's keys."""
    found = await provider_keys.list_keys(node.db, actor)
    return Page(items=[ProviderKey.model_validate(key) for key in found])


async def save(node: Here, actor: Caller, provider: str, given: NewKey) -> SavedKey:
    """Connect a key, or replace it: no call admitted after the reply uses the old one.

    The key is checked with the provider first, without spending tokens. A rejected one is not saved.
    """
    company = node.providers.connectable(provider)
    # Before the provider is asked: nobody else's key is sent anywhere.
    managed_by = node.settings.keys_managed_by
    await provider_keys.require_manager(node.db, actor, Action.PROVIDER_KEY_ADD, company.slug, managed_by)
    secret = provider_keys.clean(given.key, company, node.settings.google_token_url)
    address, expires_at = node.providers.accept(company, given.address), provider_keys.expiry(given.expires)
    found = KeyCheckResult(Health.UNVERIFIED, "")
    if not given.unchecked:
        found = await node.providers.check(company, address, secret)
    if found.health.blocks_saving:
        raise InvalidRequest(
            f"{company.name} rejected this key, so it was not saved: {found.said}",
            detail={"health": found.health.value},
        )
    key = await provider_keys.save(
        node.db,
        node.keyring,
        actor,
        company,
        secret,
        found.health,
        found.said,
        base_url=address,
        expires_at=expires_at,
        managed_by=managed_by,
    )
    shown = ProviderKey.model_validate(key)
    return SavedKey(**dict(shown), advice=registry.advice(company, secret))


async def check(node: Here, actor: Caller, provider: str) -> ProviderKey:
    """Ask the provider about the stored key now, without spending tokens."""
    company = node.providers.find(provider)
    managed_by = node.settings.keys_managed_by
    sealed = await provider_keys.sealed_key(node.db, actor, company.slug, managed_by=managed_by)
    found = await node.providers.check(company, sealed.base_url, provider_keys.use(node.keyring, sealed))
    await key_health.note_health(node.db, sealed.id, sealed.organization_id, found.health, found.said)
    keys = await provider_keys.list_keys(node.db, actor)
    for key in keys:
        if key.provider == company.slug:
            return ProviderKey.model_validate(key)
    raise NotFound  # it was removed meanwhile


async def set_fallback(node: Here, actor: Caller, provider: str, given: Fallback) -> ProviderKey:
    """Choose whether the allowance serves requests that the key could not, on an outage or a rate limit."""
    company, managed_by = node.providers.find(provider), node.settings.keys_managed_by
    key = await provider_keys.set_fallback(node.db, actor, company.slug, given.tokens, managed_by=managed_by)
    return ProviderKey.model_validate(key)


async def remove(node: Here, actor: Caller, provider: str) -> None:
    """Destroy a key; calls fall back to the plan's allowance."""
    company = node.providers.find(provider)
    await provider_keys.remove(node.db, actor, company.slug, managed_by=node.settings.keys_managed_by)
