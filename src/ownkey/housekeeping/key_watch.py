"""Looks after connected provider keys: checks them now and then, tells admins what changed, reminds of expiry.

A key that was revoked is noticed without anybody using it. Every node runs this, and each piece of work is claimed, so
that one of them does it. A check is the one made at *Save*: it spends no token.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from ownkey import clock
from ownkey.access import Actor
from ownkey.accounts import managers, organizations
from ownkey.errors import NotFound
from ownkey.housekeeping.rounds import whole
from ownkey.node import Node
from ownkey.providers.addresses import AddressRefused
from ownkey.providers.health import Health
from ownkey.providers.key_check import KeyCheckResult
from ownkey.providers.provider import Provider
from ownkey.vault import key_health, provider_keys
from ownkey.vault.key_health import Change, Expiring
from ownkey.vault.keyring import VaultLocked
from ownkey.vault.provider_keys import EnvelopeBroken, SealedKey

log = structlog.get_logger(__name__)

_ROUND_SECONDS = 15
# A node's share of a round: what was missed while all nodes stood still is made up for little by little.
_MOST_CHECKS = 10
_MOST_MESSAGES = 20
_MAILS_AT_ONCE = 5

_BECAME = {
    Health.REJECTED: "{provider} refuses the API key of {organization}",
    Health.OUT_OF_CREDIT: "The {provider} account of {organization} is out of credit",
    Health.LIMITED: "{provider} limits the API key of {organization}",
    Health.UNREACHABLE: "{provider} cannot be reached with the API key of {organization}",
    Health.ACTIVE: "The {provider} key of {organization} works again",
}
_MEANS = "Until this is mended, requests to {provider} fail. Your plan's allowance is not used in its place."
_MEANS_WITH_FALLBACK = (
    "Until this is mended, requests to {provider} may fail. Your plan's allowance steps in only on an outage or a rate "
    "limit, with up to {tokens} tokens in a month, as you chose."
)
_CHANGED = """\
{subject}, since {since} UTC.

Key: {preview}
{said}
{explanation} {means}

{url}/settings/integrations#{slug}

You get this once for each change, because you manage the AI provider keys of {organization}.
"""
_EXPIRES = """\
The date given for the {provider} key of {organization} is {day}. From then on {provider} may refuse it.

Key: {preview}

Create a new key in the provider's console and put it in under Settings → Integrations → Update API Key; it takes over
at once.

{url}/settings/integrations#{slug}
"""


async def run(node: Node) -> None:
    """Do a little every quarter of a minute, until cancelled. What fails is done in a later round."""
    await asyncio.sleep(secrets.randbelow(_ROUND_SECONDS * 1000) / 1000)  # nodes that start together take turns
    jobs: Sequence[Callable[[Node], Coroutine[Any, Any, int]]] = (check_due, tell_changes, remind)
    while True:
        for job in jobs:
            try:
                await whole(job(node))
            except Exception as error:
                log.warning("provider keys could not be looked after", job=job.__name__, error=repr(error))
        await asyncio.sleep(_ROUND_SECONDS)


async def check_due(node: Node) -> int:
    """Check the keys whose time has come, a few at once; returns how many."""
    if node.keyring.is_locked:
        return 0
    due = {each.key_id: each.health for each in await key_health.claim_checks(node.db, _MOST_CHECKS)}
    keys = await provider_keys.sealed_by_id(node.db, due) if due else ()
    done = await asyncio.gather(*(_check(node, key, due[key.id]) for key in keys), return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, Exception):
            raise outcome
    return len(keys)


async def tell_changes(node: Node) -> int:
    """Tell the admins of keys whose health has changed; returns of how many keys."""
    changes = await key_health.claim_changes(node.db, _MOST_MESSAGES)
    for change in changes:
        log.info("a provider key changed", organization=change.organization_id, provider=change.provider,
                 before=change.before.value, health=change.health.value)  # fmt: skip
        await _tell(node, change, _BECAME[change.health], _CHANGED)
    return len(changes)


async def remind(node: Node) -> int:
    """Remind the admins of keys that expire soon; returns of how many."""
    expiring = await key_health.claim_reminders(node.db, _MOST_MESSAGES)
    for key in expiring:
        await _tell(node, key, "The {provider} key of {organization} expires on {day}", _EXPIRES)
    return len(expiring)


async def _check(node: Node, key: SealedKey, before: Health) -> None:
    began = clock.now()
    try:
        provider = node.providers.find(key.provider)
        secret = provider_keys.use(node.keyring, key)
        found = _learned(provider, before, await node.providers.check(provider, key.base_url, secret))
    except (VaultLocked, NotFound):  # the operator's business: a missing key encryption key, a provider taken out
        return
    except EnvelopeBroken as error:
        await provider_keys.note_broken(node.db, key)
        found = Health.UNREACHABLE, error.message
    except AddressRefused as error:
        found = Health.UNREACHABLE, error.message
    await key_health.note_health(node.db, key.id, key.organization_id, *found, as_of=began)


def _learned(provider: Provider, before: Health, found: KeyCheckResult) -> tuple[Health, str | None]:
    """The health after a check, and what to keep of what was said.

    An answer that tells nothing changes nothing but what passes by itself: it was an answer. And that a key is accepted
    does not tell, at most providers, that its account has credit again.
    """
    tells_credit = provider.check.tells_credit
    if (found.health is Health.UNVERIFIED and not before.passes) or (
        found.health is Health.ACTIVE and before is Health.OUT_OF_CREDIT and not tells_credit
    ):
        return before, None
    return found.health, found.said


async def _tell(node: Node, what: Change | Expiring, subject: str, text: str) -> None:
    """Mail every manager. Mail is a help: the page says the same, so what does not arrive is not sent again.

    Each of those that were claimed is told, whatever becomes of the others.
    """
    try:
        await _mail(node, what, subject, text)
    except Exception as error:
        log.warning("admins were not told of a provider key", organization=what.organization_id,
                    provider=what.provider, error=repr(error))  # fmt: skip


async def _mail(node: Node, what: Change | Expiring, subject: str, text: str) -> None:
    organization = await organizations.by_reference(node.db, what.organization_id)
    provider = node.providers.get(what.provider)
    words = {
        "organization": organization.name,
        "provider": provider.name if provider else what.provider,
        "slug": what.provider,
        "preview": what.preview,
        "url": node.settings.public_url,
    }
    if isinstance(what, Change):
        said = " ".join(what.said.split())
        words["since"] = f"{what.since:%Y-%m-%d %H:%M}"
        words["said"] = f"The last check: {said}\n" if said and what.health.is_trouble else ""
        words["explanation"] = what.health.explanation
        words["tokens"] = f"{what.fallback_tokens or 0:,}"
        means = _MEANS_WITH_FALLBACK if what.fallback_tokens else _MEANS
        words["means"] = means.format(**words) if what.health.is_trouble else ""
    else:
        words["day"] = f"{what.expires_at:%Y-%m-%d}"
    words["subject"] = subject.format(**words)
    body = text.format(**words)
    owner_only = node.settings.keys_managed_by == "owner"
    people = await managers.list_managers(
        node.db, Actor.operator(organization.id), owner_only=owner_only, everywhere=True
    )
    for start in range(0, len(people), _MAILS_AT_ONCE):
        few = people[start : start + _MAILS_AT_ONCE]
        await asyncio.gather(*(node.mailer.send(person.email, words["subject"], body) for person in few))
