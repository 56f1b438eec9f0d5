"""``ownkey keys``: an organization's own provider keys. A key is read from standard input, never from an argument."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

from cyclopts import App, Parameter

from ownkey.cli.ending import BadUsage
from ownkey.cli.installation import installation
from ownkey.cli.numbers import whole
from ownkey.cli.output import Json, show, warn
from ownkey.cli.parameters import Org
from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest, NotFound
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.providers.provider import Provider
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
    address: Annotated[
        str, Parameter(help="For a provider whose host is the customer's: its resource, region or address.")
    ] = "",
    expires: Annotated[
        str, Parameter(help="The day on which the key expires, as 2027-01-31: admins are reminded.")
    ] = "",
    unchecked: Annotated[bool, Parameter(help="Save the key without asking the provider about it.")] = False,
    json: Json = False,
) -> None:
    """Connect the organization's own key, or replace it; the key is read from standard input.

    The key is checked with the provider, without spending tokens. One that the provider rejects is not saved.
    """
    async with installation() as here:
        company = here.providers.connectable(provider)
        place, ends = here.providers.accept(company, address), provider_keys.expiry(expires)
        _, actor = await here.organization(org)
        secret = read_key(company, here.settings.google_token_url)
        looks = registry.advice(company, secret)
        health, said = Health.UNVERIFIED, ""
        if not unchecked:
            result = await here.providers.check(company, place, secret)
            health, said = result.health, result.said
        if health.blocks_saving:
            raise InvalidRequest(f"{company.name} rejected this key, so it was not saved: {said} {looks or ''}")
        keyring = await here.keyring()
        key = await provider_keys.save(
            here.db, keyring, actor, company, secret, health, said, base_url=place, expires_at=ends
        )
    if health is Health.ACTIVE and (mistake := registry.mistaken(company, secret)):
        warn(mistake)
    elif health is not Health.ACTIVE:
        warn(f"{health.label}. {health.explanation} {said} {looks or ''}")
    shown = {"id": key.id, "provider": key.provider, "preview": key.preview, "health": key.health.value}
    show({**shown, "address": key.address} if company.address else shown, json)


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
                "address": key.address,
                "preview": key.preview,
                "fingerprint": key.fingerprint,
                "health": key.health.value,
                "added_by": key.added_by,
                "created_at": key.created_at,
                "last_checked_at": key.last_checked_at,
                "last_used_at": key.last_used_at,
                "expires_at": key.expires_at,
                "fallback_tokens": key.fallback_tokens,
            }
            for key in found
        ],
        json,
    )


@app.command
async def fallback(
    org: Org,
    provider: ProviderSlug,
    /,
    *,
    tokens: Annotated[
        int | None, whole("Let the allowance serve them, up to so many of its tokens a month.", least=1)
    ] = None,
    never: Annotated[bool, Parameter(help="Let them fail, as they do unless something else was chosen.")] = False,
    json: Json = False,
) -> None:
    """Choose what happens to requests that a key could not serve because of an outage or a rate limit.

    Give either `--tokens` or `--never`. A rejected key, or one without credit, never uses the allowance.
    """
    if never == (tokens is not None):
        raise BadUsage("Give either --tokens N or --never.")
    async with installation() as here:
        company = here.providers.find(provider)
        _, actor = await here.organization(org)
        key = await provider_keys.set_fallback(here.db, actor, company.slug, tokens)
    show({"provider": key.provider, "fallback_tokens": key.fallback_tokens}, json)


@app.command
async def remove(org: Org, provider: ProviderSlug, /, *, json: Json = False) -> None:
    """Remove a key and destroy it; the organization's calls fall back to its allowance."""
    async with installation() as here:
        _, actor = await here.organization(org)
        try:
            await provider_keys.remove(here.db, actor, provider)
        except NotFound:
            here.providers.find(provider)  # a key may be left of a provider that was taken out of the settings
            raise
    show({"provider": provider, "removed": True}, json)


def read_key(provider: Provider, token_url: str) -> Secret:
    """The key on standard input, or typed unseen at a terminal. Raises ``InvalidRequest`` if it cannot be one."""
    if sys.stdin.isatty():
        try:
            return provider_keys.clean(getpass("API key (not shown while you type): "), provider, token_url)
        except EOFError:
            raise InvalidRequest("No API key was given.") from None
    given = sys.stdin.buffer.read(_LONGEST_INPUT)
    try:
        return provider_keys.clean(given.decode(), provider, token_url)
    except UnicodeDecodeError:
        raise InvalidRequest("What came on standard input is not text, so it is no API key.") from None
