"""The providers of one installation: those of the registry, those the operator added, and where each of them is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.providers import addresses, key_check
from ownkey.providers.addresses import AddressRefused, AllowedHosts, Guard, Lookup, look_up
from ownkey.providers.key_check import KeyCheckResult
from ownkey.providers.provider import Capability, KeyCheck, Provider
from ownkey.providers.registry import PROVIDERS, find
from ownkey.providers.service_account import ServiceAccount
from ownkey.settings import Settings

log = structlog.get_logger(__name__)

# The first words of our own paths: a provider of such a name would hide them. A test compares them with the routes.
RESERVED = frozenset(
    {"account", "admin", "api", "assets", "assistant", "confirm-password", "docs", "health", "healthz", "help"}
    | {"invitations", "metrics", "settings", "sign-in", "sign-out", "static", "v1", "workspace"}
)
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_HEADER = r"^[A-Za-z0-9-]{1,64}$"


class Added(BaseModel):
    """A table of the operator's providers file: an OpenAI-compatible address, and what is unusual about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    name: Annotated[str, Field(min_length=1, max_length=60)] = ""
    api_root: Annotated[str, Field(pattern=r"^(/[\w.~-]+)*$")] = "/v1"
    check: Annotated[str, Field(pattern=r"^/[\x21-\x7e]*$")] = ""
    console_url: Annotated[str, Field(pattern=r"^https?://[\x21-\x7e]+$|^$")] = ""
    header: Annotated[str, Field(pattern=_HEADER)] = "authorization"
    prefix: Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")] = "Bearer "
    key_optional: bool = False
    own_keys: bool = True
    assistant_model: str | None = None
    capabilities: tuple[Capability, ...] = (Capability.TEXT,)
    asks_for_usage: bool = True
    chat_limit: Literal["max_completion_tokens", "max_tokens"] = "max_tokens"

    def provider(self, slug: str) -> Provider:
        """The row it stands for."""
        return Provider(
            slug=slug,
            name=self.name or slug.replace("-", " ").title(),
            base_url=self.address.rstrip("/"),
            console_url=self.console_url,
            check=KeyCheck(self.check or f"{self.api_root}/models"),
            api_roots=(self.api_root,),
            credential_header=self.header.lower(),
            credential_prefix=self.prefix,
            key_optional=self.key_optional,
            own_keys=self.own_keys,
            assistant_model=self.assistant_model,
            capabilities=self.capabilities,
            asks_for_usage=self.asks_for_usage,
            chat_limit=self.chat_limit,
        )


class Directory(Mapping[str, Provider]):
    """Slug to provider, and what the settings say of each. Never changes while a process runs."""

    def __init__(self, settings: Settings, lookup: Lookup = look_up) -> None:
        """Raises ``InvalidRequest`` for a setting that cannot be used, naming it."""
        self._settings = settings
        self._rows = _rows(settings)
        self.guard = Guard(AllowedHosts.parse(settings.allowed_hosts), lookup)

    def __getitem__(self, slug: str) -> Provider:
        return self._rows[slug]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, slug: str) -> Provider:
        """The provider with this slug; raises ``NotFound`` if there is none."""
        return find(slug, self._rows)

    def connectable(self, slug: str) -> Provider:
        """The provider, if organizations may bring keys for it; raises ``NotFound`` or ``InvalidRequest``."""
        provider = self.find(slug)
        if not provider.own_keys:
            raise InvalidRequest(f"{provider.name} is served by whoever runs this service. It takes no keys.")
        return provider

    def usual_address(self, provider: Provider) -> str:
        """Where a key goes that came without an address: the operator's choice, else the row's; empty if nowhere."""
        return self._settings.base_url(provider.slug) or provider.base_url

    def platform_key(self, provider: Provider) -> Secret | None:
        """The operator's own key for a provider, or None; empty where the operator wrote ``none``: without any."""
        secret = self._settings.platform_key(provider.slug)
        if secret is not None and provider.key_optional and secret.reveal().lower() == "none":
            return Secret("")
        return secret

    def accept(self, provider: Provider, given: str) -> str:
        """The address to store with a key, from what a person gave; empty for the usual one.

        Raises ``AddressRefused``, which says what to write instead.
        """
        if given.strip():
            return addresses.accept(provider, given, self.guard.allowed)
        if provider.address is not None and not self.usual_address(provider):
            raise AddressRefused(
                f"{provider.name} needs its {provider.address.label.lower()} beside the key, "
                f"for example {provider.address.example}."
            )
        return ""

    def guard_for(self, provider: Provider, address: str) -> Guard | None:
        """What judges each connection of a key stored with ``address``; None for the usual address.

        Raises ``AddressRefused`` if the settings do not allow its host any more.
        """
        if not address:
            return None
        addresses.judge(provider, address, self.guard.allowed)
        return self.guard

    async def check(self, provider: Provider, address: str, secret: Secret) -> KeyCheckResult:
        """Ask the provider about a key that is, or is to be, stored with ``address``. Raises ``AddressRefused``."""
        return await key_check.check(
            provider,
            address or self.usual_address(provider),
            secret,
            guard=self.guard_for(provider, address),
            token_url=self._settings.google_token_url,
        )


def _rows(settings: Settings) -> Mapping[str, Provider]:
    rows = {**PROVIDERS}
    for slug, added in _added(settings).items():
        if slug in PROVIDERS:
            raise InvalidRequest(f"The provider {slug!r} that you added has the slug of {PROVIDERS[slug].name}.")
        if not _SLUG.fullmatch(slug) or slug in RESERVED:
            raise InvalidRequest(
                f"A provider cannot have the slug {slug!r}: it is a path of the service, or not made of a-z, 0-9 and -."
            )
        _require_address(f"The address of the provider {slug!r}", added.address)
        rows[slug] = added.provider(slug)
    for slug, url in settings.base_urls.items():
        _require_address(f"OWNKEY_BASE_URL_{slug.upper().replace('-', '_')}", url)
    for slug, secret in settings.platform_keys.items():
        if slug in rows:
            _require_usable(rows[slug], secret, settings)
        else:
            log.warning("a platform key is for no provider that there is", provider=slug)
    return rows


def _require_usable(provider: Provider, platform_key: Secret, settings: Settings) -> None:
    suffix = provider.slug.upper().replace("-", "_")
    if not (settings.base_url(provider.slug) or provider.base_url):
        raise InvalidRequest(f"OWNKEY_PLATFORM_KEY_{suffix} needs OWNKEY_BASE_URL_{suffix} beside it.")
    if provider.credential == "service_account":
        try:
            ServiceAccount.read(platform_key.reveal(), settings.google_token_url)
        except InvalidRequest as error:
            raise InvalidRequest(f"OWNKEY_PLATFORM_KEY_{suffix}: {error}") from None
    elif not (platform_key.reveal().isascii() and platform_key.reveal().isprintable()):
        raise InvalidRequest(f"OWNKEY_PLATFORM_KEY_{suffix} is not one key: a line break or the like is in it.")


def _added(settings: Settings) -> Mapping[str, Added]:
    """Those of the file, and a bare one for each ``OWNKEY_BASE_URL_…`` that names no other."""
    added = _read_file(settings.providers_file) if settings.providers_file else {}
    bare = {slug: Added(address=url) for slug, url in settings.base_urls.items() if slug not in {*PROVIDERS, *added}}
    for slug in bare:
        log.info("a provider was added by its base URL", provider=slug)  # so that a typing error is seen
    return {**added, **bare}


def _read_file(file: Path) -> Mapping[str, Added]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))["providers"]
        return {slug: Added(**table) for slug, table in tables.items()}
    except OSError as error:
        raise InvalidRequest(f"The providers file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InvalidRequest(
            f"The providers file {file} needs a [providers.<slug>] table for each provider: {error}."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"The providers file {file} is wrong at {field}: {first['msg']}.") from error


def _require_address(what: str, url: str) -> None:
    """The operator may name private hosts and plain HTTP; what it names must be an address all the same."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc or parts.query or parts.fragment or not url.isascii() or not url.isprintable():
        raise InvalidRequest(f"{what} must be https://host or http://host:port, with a path prefix at most.")
