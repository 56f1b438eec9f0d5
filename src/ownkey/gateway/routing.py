"""Whose key serves a call, and where it goes.

The organization's own key, if there is one for the provider; else the operator's platform key. One in place of the
other because of a failure only where the organization chose so (``fallback``).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ownkey.credentials import Secret
from ownkey.errors import OwnkeyError, ProviderFailed, ProviderKeyRejected, ProviderNotAvailable
from ownkey.gateway.access_tokens import AccessTokens
from ownkey.gateway.call import Call
from ownkey.gateway.origin import Origin
from ownkey.gateway.redacting import Needles
from ownkey.gateway.upstream import Pool
from ownkey.metering.reservations import Admission, Admit, Caller, Fallback, KeyRow
from ownkey.providers.addresses import AddressRefused
from ownkey.providers.directory import Directory
from ownkey.providers.provider import Provider
from ownkey.providers.service_account import ServiceAccount
from ownkey.settings import Settings
from ownkey.vault import provider_keys
from ownkey.vault.keyring import KeyRing

log = structlog.get_logger(__name__)

_MOST_OPENED = 10_000

# An id that a provider gave out: nobody guesses it, so who names it may have what it names.
_ID = re.compile(r"/(?=[^/]*\d)[\w-]{10,}")
_ABOUT_THE_ACCOUNT = re.compile(
    r"/(organizations?|projects|webhook_endpoints|api-key|keys?|credits|activity|users?)(/|$)"
)


def own_key_only(call: Call) -> str:
    """Why the platform's key may not serve a call, in a sentence; empty if it may.

    All organizations on the allowance share the operator's account at a provider, so what would show one what
    another keeps there is for own keys, and so is work whose cost is known only later.
    """
    if call.endpoint.deferred and not call.endpoint.generates:
        return "This changes the server itself, which is shared on the allowance."
    if call.endpoint.deferred:
        return "What the provider does later, or keeps by the hour, cannot be metered on the allowance."
    if call.endpoint.kind == "unknown":
        return "We do not know what this path does, so it cannot be metered on the allowance."
    if call.endpoint.account_wide:
        unscoped = call.method != "POST" and not _ID.search(call.path)
        if unscoped or _ABOUT_THE_ACCOUNT.search(call.path):
            return "This is about the whole account at the provider, which is shared on the allowance."
    return ""


def admission_request(
    call: Call, caller: Caller, request_id: str, router: Router, fallback: Fallback | None = None
) -> Admit:
    """What the ledger has to know of a call to admit it."""
    endpoint = call.endpoint
    limited = endpoint.deferred or endpoint.account_wide or endpoint.kind == "unknown"
    # By position: names would cost as much as all the rest here.
    return Admit(
        request_id,
        caller,
        call.provider.slug,
        call.model,
        endpoint.dialect.name,
        router.has_platform_key(call.provider),
        endpoint.generates,
        own_key_only(call) if limited else "",
        router.key_managers,
        call.input_ceiling(),
        call.input_estimate(),
        call.output_limit,
        call.output_maximum(),
        call.least_output,
        call.choices,
        call.can_limit,
        fallback,
    )


def key_rejected(provider: Provider, own_key: bool, said: str, key_managers: str) -> OwnkeyError:
    """The caller's error when a provider refused the key: whose it was decides. ``said`` is redacted already."""
    if own_key:
        return ProviderKeyRejected(
            f"{provider.name} refused your organization's API key; {key_managers} of your organization can update it "
            f"under Settings → Integrations. {provider.name} said: {said}",
            detail={"provider": provider.slug},
        )
    # The caller can do nothing about the operator's key, and must not take it for their own.
    log.error("the platform key was refused", provider=provider.slug)
    return ProviderFailed(f"{provider.name} could not serve this request. The people who run this service were told.")


@dataclass(slots=True, repr=False, eq=False)
class Route:
    """Where a call goes and the credential line it carries there; prints nothing, because that is a secret.

    ``secrets`` must not be in anything that comes back; ``needles`` are their texts, ready to be looked for. With
    ``access`` the line is that of the newest access token, and empty before the first.
    """

    origin: Origin
    credential: bytes
    secrets: Sequence[Secret]
    needles: Needles
    access: AccessTokens | None = None


class Router:
    """Routes calls. Opened keys are kept under their whole row: neither a new nor a tampered one finds an old one."""

    def __init__(self, settings: Settings, keyring: KeyRing, providers: Directory, pool: Pool) -> None:
        self.key_managers = settings.key_managers
        self._settings = settings
        self._keyring = keyring
        self._providers = providers
        self._pool = pool
        self._opened: OrderedDict[KeyRow, Route] = OrderedDict()
        self._platform: dict[str, Route | None] = {}

    def has_platform_key(self, provider: Provider) -> bool:
        """Whether the operator set a key for this provider."""
        return self._platform_route(provider) is not None

    def route(self, provider: Provider, admission: Admission) -> Route:
        """The route of an admitted call.

        Raises ``Unavailable`` if the own key cannot be opened, and ``ProviderFailed`` if its address is not allowed:
        no other is used.
        """
        if admission.key is not None:
            return self._own_route(provider, admission.key)
        route = self._platform_route(provider)
        if route is None:
            raise ProviderNotAvailable
        return route

    def _own_route(self, provider: Provider, row: KeyRow) -> Route:
        route = self._opened.get(row)
        if route is None:
            secret = provider_keys.use(self._keyring, provider_keys.SealedKey(*row.sealed))
            route = self._opened[row] = self._build(provider, row.base_url, secret)
            if len(self._opened) > _MOST_OPENED:
                self._opened.popitem(last=False)
        return route

    def _platform_route(self, provider: Provider) -> Route | None:
        slug = provider.slug
        if slug not in self._platform:
            secret = self._providers.platform_key(provider)
            self._platform[slug] = self._build(provider, "", secret) if secret else None
        return self._platform[slug]

    def _build(self, provider: Provider, address: str, secret: Secret) -> Route:
        try:
            guard = self._providers.guard_for(provider, address)
            origin = self._pool.origin(address or self._providers.usual_address(provider), guard)
        except (AddressRefused, ValueError) as error:
            reason = error if isinstance(error, AddressRefused) else f"{provider.name} has no usable address here."
            raise ProviderFailed(f"The provider key cannot be used. {reason}") from error
        if provider.credential == "service_account":
            return self._with_access_tokens(provider, origin, secret)
        secrets = (secret,) if secret.reveal() else ()
        return Route(origin, _line(provider, secret), secrets, Needles(secrets))

    def _with_access_tokens(self, provider: Provider, origin: Origin, secret: Secret) -> Route:
        token_url = self._settings.google_token_url
        account = ServiceAccount.read(secret.reveal(), token_url)
        lasting = (secret, *account.secrets)
        route = Route(origin, b"", lasting, Needles(lasting))

        def put(token: Secret, earlier: Sequence[Secret]) -> None:
            route.credential = _line(provider, token)
            route.secrets = (*lasting, token, *earlier)
            route.needles = Needles(route.secrets)

        route.access = AccessTokens(account, token_url, self._settings.connect_timeout, put)
        return route


def _line(provider: Provider, secret: Secret) -> bytes:
    text = secret.reveal()
    return f"{provider.credential_header}: {provider.credential_prefix}{text}\r\n".encode() if text else b""
