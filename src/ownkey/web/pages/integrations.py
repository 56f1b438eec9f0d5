"""Settings → Integrations: the organization's own provider keys. Everyone sees the page; managers change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from ownkey import clock
from ownkey.access import Action
from ownkey.accounts import subscriptions
from ownkey.accounts.sessions import SignedIn
from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest, NotFound, Unavailable
from ownkey.metering import allowances, fallback_usage, key_usage
from ownkey.metering.allowances import Allowance
from ownkey.metering.fallback_usage import FallbackUsage
from ownkey.metering.key_usage import KeyUsage
from ownkey.node import Node
from ownkey.providers import addresses, registry
from ownkey.providers.addresses import AddressRefused
from ownkey.providers.health import Health
from ownkey.providers.key_check import KeyCheckResult
from ownkey.providers.provider import Provider
from ownkey.vault import key_health, provider_keys
from ownkey.vault.provider_keys import LONGEST_KEY, MOST_FALLBACK_TOKENS, ProviderKey
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render

PATH = "/settings/integrations"


@dataclass(frozen=True, slots=True)
class Impact:
    """What depends on a key: what it served lately, and what the allowance could take over if it is removed.

    ``days`` is how long the rest of the allowance would last at the key's rate; None if nobody used the key.
    """

    usage: KeyUsage
    allowance: Allowance
    days: int | None


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says about one provider. ``impact`` None: there is no key, or it could not be counted now."""

    provider: Provider
    key: ProviderKey | None
    has_platform_key: bool
    usual_address: str
    impact: Impact | None
    expires_in: int | None
    fallbacks: FallbackUsage

    @property
    def can_fall_back(self) -> bool:
        """Whether the allowance has the same to offer as this key."""
        return self.key is not None and self.has_platform_key and not self.key.address


async def show(request: Request) -> Response:
    """``GET /settings/integrations``: everyone."""
    return await _page(request, await session.require(request))


async def open_form(request: Request) -> Response:
    """``GET /settings/integrations/{provider}``: the page with that provider's form open."""
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_ADD)
    return await _page(request, signed_in, editing=provider)


async def save(request: Request) -> Response:
    """``POST /settings/integrations/{provider}``: check the key with its provider, then add or replace it."""
    form = await forms.read(request)
    # Before the provider is asked: who may not save a key does not get one checked either.
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_ADD)
    node = session.node_of(request)
    read = await _read_key(node, provider, form)
    if read is None:
        return await _page(request, signed_in, editing=provider, form=form)
    secret, address, expires_at, found = read
    advice = registry.advice(provider, secret)
    if found.health.blocks_saving:
        form.fail("api_key", _joined(found.said, "Nothing was saved.", advice))
        return await _page(request, signed_in, editing=provider, form=form)
    await provider_keys.save(
        node.db,
        node.keyring,
        signed_in.actor,
        provider,
        secret,
        found.health,
        found.said,
        base_url=address,
        expires_at=expires_at,
        managed_by=node.settings.keys_managed_by,
    )
    if found.health is Health.ACTIVE:
        told = f"{provider.name} accepted the key. From now on everything on {provider.name} runs on it."
    elif "unchecked" in form:
        told = "The key was saved without checking it. The next request will show whether it works."
    else:
        told = _joined("The key was saved.", found.said, found.health.explanation)
    is_clean = found.health is Health.ACTIVE and not advice
    return redirect(request, f"{PATH}#{provider.slug}", _joined(told, advice), "success" if is_clean else "warning")


async def check(request: Request) -> Response:
    """``POST /settings/integrations/{provider}/check``: ask the provider about the stored key anew."""
    await forms.read(request)
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_CHECK)
    node = session.node_of(request)
    managed_by = node.settings.keys_managed_by
    sealed = await provider_keys.sealed_key(node.db, signed_in.actor, provider.slug, managed_by=managed_by)
    try:
        found = await node.providers.check(provider, sealed.base_url, provider_keys.use(node.keyring, sealed))
    except AddressRefused as error:
        return redirect(request, f"{PATH}#{provider.slug}", error.message, "warning")
    await key_health.note_health(node.db, sealed.id, sealed.organization_id, found.health, found.said)
    if found.health is Health.ACTIVE:
        return redirect(request, f"{PATH}#{provider.slug}", f"{provider.name} accepts the key.")
    return redirect(request, f"{PATH}#{provider.slug}", _joined(found.said, found.health.explanation), "warning")


async def set_fallback(request: Request) -> Response:
    """``POST /settings/integrations/{provider}/fallback``: what happens when the key fails."""
    form = await forms.read(request)
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_SET_FALLBACK)
    node, actor = session.node_of(request), signed_in.actor
    managed_by = node.settings.keys_managed_by
    wanted = form.choice("fallback", ("never", "allowance"), "what happens when the key fails")
    tokens = form.tokens("tokens", MOST_FALLBACK_TOKENS) if wanted == "allowance" else None
    if form.ok:
        try:
            await provider_keys.set_fallback(node.db, actor, provider.slug, tokens, managed_by=managed_by)
        except InvalidRequest as error:
            form.fail("tokens", error.message)
    if not form.ok:
        return await _page(request, signed_in, choosing=provider, form=form)
    told = (
        f"While {provider.name} limits your key or is down, the allowance serves up to {tokens:,} tokens a month."
        if tokens
        else f"The allowance is never used in place of your {provider.name} key."
    )
    return redirect(request, f"{PATH}#{provider.slug}", told)


async def confirm_removal(request: Request) -> Response:
    """``GET /settings/integrations/{provider}/remove``: the question, for a browser without the dialog."""
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_REMOVE)
    section = next(section for section in await _sections(request, signed_in) if section.provider is provider)
    if section.key is None:
        raise NotFound
    return render(request, "integrations_remove.html", signed_in=signed_in, section=section)


async def remove(request: Request) -> Response:
    """``POST /settings/integrations/{provider}/remove``: destroy the key; AI falls back to the plan's allowance."""
    await forms.read(request)
    signed_in, provider = await _manager(request, Action.PROVIDER_KEY_REMOVE)
    node = session.node_of(request)
    await provider_keys.remove(node.db, signed_in.actor, provider.slug, managed_by=node.settings.keys_managed_by)
    left = (
        "AI on it runs on your plan's allowance again."
        if node.settings.platform_key(provider.slug)
        else "It is not available until a key is added."
    )
    return redirect(request, f"{PATH}#{provider.slug}", f"The {provider.name} key was removed and destroyed. {left}")


async def _read_key(
    node: Node, provider: Provider, form: Form
) -> tuple[Secret, str, datetime | None, KeyCheckResult] | None:
    """The key, its address and expiry, and what the provider says of it; None when the form says what is wrong."""
    given, secret, expires_at = form.get("address", ""), None, None
    try:
        address = node.providers.accept(provider, given)
    except AddressRefused as error:
        form.fail("address" if provider.address else "api_key", error.message)
    try:
        secret = provider_keys.clean(form.get("api_key", ""), provider, node.settings.google_token_url)
    except InvalidRequest as error:
        form.fail("api_key", error.message)
    try:
        expires_at = provider_keys.expiry(form.get("expires", ""))
    except InvalidRequest as error:
        form.fail("expires", error.message)
    if secret is None or not form.ok:
        return None
    if "unchecked" in form:
        return secret, address, expires_at, KeyCheckResult(Health.UNVERIFIED, "")
    try:
        return secret, address, expires_at, await node.providers.check(provider, address, secret)
    except AddressRefused as error:  # its name leads where no key may go
        form.fail("address", error.message)
        return None


async def _page(
    request: Request,
    signed_in: SignedIn,
    *,
    editing: Provider | None = None,
    choosing: Provider | None = None,
    form: Form | None = None,
) -> Response:
    node = session.node_of(request)
    managed_by = node.settings.keys_managed_by
    may_manage = provider_keys.may_manage(signed_in.actor, managed_by)
    sections = await _sections(request, signed_in)
    return render(
        request,
        "integrations.html",
        signed_in=signed_in,
        status=422 if form else 200,
        sections=sections,
        failing=[(s.provider, s.key) for s in sections if may_manage and s.key and s.key.health.is_trouble],
        may_manage=may_manage,
        managed_by=provider_keys.managers(managed_by),
        locked=node.keyring.locked_reason is not None,
        longest_key=LONGEST_KEY,
        longest_address=addresses.LONGEST,
        editing=editing,
        choosing=choosing,
        form=form,
    )


async def _sections(request: Request, signed_in: SignedIn) -> Sequence[Section]:
    node, actor, now = session.node_of(request), signed_in.actor, clock.now()
    keys = {key.provider: key for key in await provider_keys.list_keys(node.db, actor)}
    impacts = await _impacts(node, signed_in, list(keys.values())) if keys else {}
    fallbacks = await fallback_usage.by_provider(node.db, actor, clock.period_of(now)) if keys else {}
    return [
        Section(
            provider,
            key := keys.get(slug),
            node.settings.platform_key(slug) is not None,
            node.providers.usual_address(provider),
            impacts.get(slug),
            (key.expires_at - now).days + 1 if key and key.expires_at else None,
            fallbacks.get(slug, FallbackUsage()),
        )
        for slug, provider in node.providers.items()
        if provider.own_keys or slug in keys
    ]


async def _impacts(node: Node, signed_in: SignedIn, keys: Sequence[ProviderKey]) -> dict[str, Impact]:
    """Provider to what depends on its key, for those who may change it. Keys can be changed without knowing it."""
    actor, now = signed_in.actor, clock.now()
    if not provider_keys.may_manage(actor, node.settings.keys_managed_by):
        return {}
    try:
        used = await key_usage.of_keys(node.db, actor, now)
        plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
        allowance = await allowances.current(node.db, actor, plan)
    except Unavailable:
        return {}
    usages = {key.provider: used.get(key.id, KeyUsage()) for key in keys}
    return {slug: Impact(usage, allowance, usage.days_of(allowance.remaining, now)) for slug, usage in usages.items()}


async def _manager(request: Request, action: Action) -> tuple[SignedIn, Provider]:
    """Who is signed in, and the provider of this path. Anybody but a manager is refused, and the attempt recorded."""
    signed_in, node = await session.require(request), session.node_of(request)
    slug = request.path_params["provider"]
    adding = action is Action.PROVIDER_KEY_ADD
    provider = node.providers.connectable(slug) if adding else node.providers.find(slug)
    managed_by = node.settings.keys_managed_by
    await provider_keys.require_manager(node.db, signed_in.actor, action, provider.slug, managed_by)
    return signed_in, provider


def _joined(*sentences: str | None) -> str:
    """Sentences as one text; what a provider said may lack its full stop."""
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in sentences if text)
