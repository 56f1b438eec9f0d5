"""The shape of a row of the provider table: what has to be known about an AI company to serve its API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ownkey.providers.health import Health

DialectName = Literal["openai", "anthropic", "gemini", "bedrock"]


class Capability(StrEnum):
    """What a provider's models can make, as the help page says it."""

    TEXT = "text"
    IMAGES = "images"
    EMBEDDINGS = "embeddings"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class KeyHint:
    """A form that keys of a provider are known to have. Advice for people, never a gate.

    ``example`` is what the input field shows in grey; ``pattern`` matches the whole key. An ``admin`` key
    manages the provider's organization and cannot be used for AI requests.
    """

    example: str
    pattern: re.Pattern[str]
    admin: bool = False


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """The request that tells whether a key works without spending a token, and how to read its answer.

    ``verdicts`` holds this provider's exceptions to the common reading of a status (see ``key_check``).
    ``public_at`` are hosts where everybody gets a good answer, so that it tells nothing of the key.
    ``empty_when`` names a member of the answer and the value by which a good key tells that it has no credit left, as
    ``("data.limit_remaining", 0)``; ``tells_credit`` says that without this sign its account has some. An empty
    ``path``: getting an access token is the whole check, which only a service account has.
    """

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[int, Health] = field(default_factory=dict)
    public_at: tuple[str, ...] = ()
    empty_when: tuple[str, object] | None = None
    tells_credit: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """What to ask a person for when the host of a provider belongs to the customer.

    ``label`` names the field, as "Resource" or "Region"; ``example`` stands in it in grey; ``hint`` says where the
    answer is found. A short form that ``pattern`` matches wholly becomes an https address by ``template``, whose
    ``{}`` it replaces, unless ``exceptions`` has an address of its own for it. With ``whole`` an address in full,
    ``https://…``, may be given instead. ``domains`` are the provider's own: a host equal to or below one of them needs
    no approval by the operator, nor does one that a short form becomes; any other has to stand in
    ``OWNKEY_ALLOWED_HOSTS``.
    """

    label: str
    example: str
    hint: str = ""
    pattern: re.Pattern[str] | None = None
    template: str = ""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    domains: tuple[str, ...] = ()

    def makes(self, url: str) -> bool:
        """Whether an address is one that a short form becomes."""
        before, mark, after = self.template.partition("{}")
        short = url.removeprefix(before).removesuffix(after)
        made = mark and self.pattern is not None and self.pattern.fullmatch(short) and url == before + short + after
        return bool(made) or url in self.exceptions.values()


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One AI company. A row is itself and nothing else, so two are equal only if they are the same row.

    ``base_url`` is scheme and host only: everything after ``/<slug>`` in a gateway path is the provider's own
    path. With an ``address`` the host is the customer's and comes with the key; ``base_url`` is then what counts
    when none is given, and empty if one must be. ``api_roots`` are the prefixes below which its API lives, the usual
    one first; they tell known endpoints from unknown ones. ``asks_for_usage`` says that a chat stream carries usage
    only when the request has ``stream_options.include_usage``; ``usage_since`` is the earliest ``api-version`` of a
    query that knows this member. ``chat_limit`` is the field that caps the output of a chat.

    The credential goes into ``credential_header`` after ``credential_prefix``. With ``credential`` ``key`` it is what
    was stored; with ``service_account`` that is a service account's JSON document, and what is sent is the access
    token which Google gives for it. ``key_optional``: the provider may ask for no credential at all.
    ``own_keys``: organizations may connect keys of their own.
    """

    slug: str
    name: str
    base_url: str
    console_url: str
    check: KeyCheck
    dialect: DialectName = "openai"
    api_roots: tuple[str, ...] = ("/v1",)
    credential_header: str = "authorization"
    credential_prefix: str = "Bearer "
    credential: Literal["key", "service_account"] = "key"
    key_optional: bool = False
    own_keys: bool = True
    address: Address | None = None
    key_hints: tuple[KeyHint, ...] = ()
    assistant_model: str | None = None
    capabilities: tuple[Capability, ...] = (Capability.TEXT,)
    asks_for_usage: bool = True
    usage_since: str = ""
    chat_limit: Literal["max_completion_tokens", "max_tokens"] = "max_tokens"

    @property
    def sdk_path(self) -> str:
        """What follows ``{public}/<slug>`` in the base URL that a program gives its SDK."""
        return self.api_roots[0] if self.dialect == "openai" else ""

    @property
    def needs_address(self) -> bool:
        """Whether a key is of no use without an address beside it."""
        return self.address is not None and not self.base_url

    @property
    def key_example(self) -> str:
        """A hint for the API Key field, such as ``sk-proj-…``; empty where no form is known."""
        return self.key_hints[0].example if self.key_hints else ""
