"""``ownkey keys``: an organization's own provider keys. A key is read from standard input, never from an argument."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

from cyclopts import App, Parameter

from ownkey.cli.installation import installation
from ownkey.cli.output import Json, show, warn
from ownkey.cli.parameters import Org
from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.providers import key_check, registry
from ownkey.providers.health import Health
from ownkey.vault import provider_keys

app = App(name="keys", help="An organization's own provider keys.")
ProviderSlug = Annotated[str, Parameter(name="PROVIDER", help="The provider, for example `openai` or `anthropic`.")]
# Longer than any key; a file given by mistake is not read to its end.
_LONGEST_INPUT = 64 * 1024


@app.command(name="set")
async def set_key(
    org: Org,
    provider: ProviderSlug,
    /,
    *,
    unchecked: Annotated[bool, Parameter(help="Save the key without asking the provider about it.")] = False,
    json: Json = False,
) -> None:
    """Connect the organization's own key, or replace it; the key is read from standard input.

    The key is checked with the provider, without spending tokens. One that the provider rejects is not saved.
    """
    company = registry.find(provider)
    async with installation() as here:
        _, actor = await here.organization(org)
        secret = read_key()
        looks = registry.advice(company, secret)
        health, said = Health.UNVERIFIED, ""
        if not unchecked:
            base_url = here.settings.base_url(company.slug) or company.base_url
            result = await key_check.check(company, base_url, secret)
            health, said = result.health, result.said
        if health.blocks_saving:
            raise InvalidRequest(f"{company.name} rejected this key, so it was not saved: {said} {looks or ''}")
        key = await provider_keys.save(here.db, await here.keyring(), actor, company, secret, health, said)
    if health is Health.ACTIVE and (mistake := registry.mistaken(company, secret)):
        warn(mistake)
    elif health is not Health.ACTIVE:
        warn(f"{health.label}. {health.explanation} {said} {looks or ''}")
    show({"id": key.id, "provider": key.provider, "preview": key.preview, "health": key.health.value}, json)


@app.command(name="list")
async def list_keys(org: Org, /, *, json: Json = False) -> None:
    """List the organization's keys: their first characters, fingerprint and health."""
    async with installation() as here:
        _, actor = await here.organization(org)
        found = await provider_keys.list_keys(here.db, actor)
    show(
        [
            {
                "id": key.id,
                "provider": key.provider,
                "preview": key.preview,
                "fingerprint": key.fingerprint,
                "health": key.health.value,
                "added_by": key.added_by,
                "created_at": key.created_at,
                "last_checked_at": key.last_checked_at,
                "last_used_at": key.last_used_at,
            }
            for key in found
        ],
        json,
    )


@app.command
async def remove(org: Org, provider: ProviderSlug, /, *, json: Json = False) -> None:
    """Remove a key and destroy it; the organization's calls fall back to its allowance."""
    company = registry.find(provider)
    async with installation() as here:
        _, actor = await here.organization(org)
        await provider_keys.remove(here.db, actor, company.slug)
    show({"provider": company.slug, "removed": True}, json)


def read_key() -> Secret:
    """The key on standard input, or typed unseen at a terminal. Raises ``InvalidRequest`` if it cannot be one."""
    if sys.stdin.isatty():
        try:
            return provider_keys.clean(getpass("API key (not shown while you type): "))
        except EOFError:
            raise InvalidRequest("No API key was given.") from None
    given = sys.stdin.buffer.read(_LONGEST_INPUT)
    try:
        return provider_keys.clean(given.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("What came on standard input is not text, so it is no API key.") from None
