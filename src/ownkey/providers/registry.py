"""Every provider, one row each; and what can be said about a key by looking at it.

Adding a provider is adding a row. Addresses, key forms and check requests come from the providers' own
documentation and SDKs. A form nobody confirmed is left out: a hint advises people and never refuses a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ownkey.credentials import Secret
from ownkey.errors import NotFound
from ownkey.providers.health import Health
from ownkey.providers.provider import Capability, KeyCheck, KeyHint, Provider

__all__ = ["PROVIDERS", "Provider", "advice", "find"]

_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO = Capability.TEXT, Capability.IMAGES, Capability.EMBEDDINGS, Capability.AUDIO


def _hint(example: str, pattern: str, *, admin: bool = False) -> KeyHint:
    return KeyHint(example, re.compile(pattern), admin)


_ROWS: tuple[Provider, ...] = (
    Provider(
        slug="openai",
        name="OpenAI",
        base_url="https://api.openai.com",
        console_url="https://platform.openai.com/api-keys",
        # A restricted key may be refused the list of models and still serve requests.
        check=KeyCheck("/v1/models", verdicts={403: Health.UNVERIFIED}),
        key_hints=(
            _hint("sk-proj-…", r"sk-(?:proj|svcacct|service)-[\w-]{20,}"),
            _hint("sk-…", r"sk-[\w-]*T3BlbkFJ[\w-]*"),
            _hint("sk-admin-…", r"sk-admin-[\w-]+", admin=True),
        ),
        assistant_model="gpt-5-mini",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
        chat_limit="max_completion_tokens",
    ),
    Provider(
        slug="anthropic",
        name="Anthropic",
        base_url="https://api.anthropic.com",
        console_url="https://console.anthropic.com/settings/keys",
        check=KeyCheck(
            "/v1/models",
            headers={"anthropic-version": "2023-06-01"},
            # 400 is never a bad key here: it is how Anthropic says that the credit balance is too low.
            verdicts={400: Health.UNVERIFIED, 404: Health.REJECTED},
        ),
        dialect="anthropic",
        credential_header="x-api-key",
        credential_prefix="",
        key_hints=(
            _hint("sk-ant-api03-…", r"sk-ant-api\d\d-[\w-]{80,}"),
            _hint("sk-ant-admin01-…", r"sk-ant-admin\d*-[\w-]+", admin=True),
        ),
        assistant_model="claude-sonnet-4-6",
    ),
    Provider(
        slug="gemini",
        name="Google Gemini",
        base_url="https://generativelanguage.googleapis.com",
        console_url="https://aistudio.google.com/apikey",
        check=KeyCheck("/v1beta/models?pageSize=1"),
        dialect="gemini",
        api_roots=("/v1beta", "/v1", "/v1alpha"),
        credential_header="x-goog-api-key",
        credential_prefix="",
        key_hints=(_hint("AIzaSy…", r"AIzaSy[\w-]{33}"), _hint("AQ.…", r"AQ\.[\w.-]+")),
        assistant_model="gemini-2.5-flash",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
    ),
    Provider(
        slug="mistral",
        name="Mistral",
        base_url="https://api.mistral.ai",
        console_url="https://console.mistral.ai/api-keys",
        check=KeyCheck("/v1/models"),
        assistant_model="mistral-small-latest",
        capabilities=(_TEXT, _EMBEDDINGS, _AUDIO),
        # Always reports usage, and answers 422 to stream_options.include_usage (openai/openai-agents-python#442).
        asks_for_usage=False,
    ),
    Provider(
        slug="groq",
        name="Groq",
        base_url="https://api.groq.com",
        console_url="https://console.groq.com/keys",
        check=KeyCheck("/openai/v1/models"),
        api_roots=("/openai/v1",),
        key_hints=(_hint("gsk_…", r"gsk_[A-Za-z0-9]{40,}"),),
        assistant_model="llama-3.3-70b-versatile",
        capabilities=(_TEXT, _AUDIO),
        asks_for_usage=False,  # x_groq.usage is in the last chunk of every stream
        chat_limit="max_completion_tokens",
    ),
    Provider(
        slug="deepseek",
        name="DeepSeek",
        base_url="https://api.deepseek.com",
        console_url="https://platform.deepseek.com/api_keys",
        check=KeyCheck("/user/balance", empty_when=("is_available", False)),
        api_roots=("", "/v1", "/beta"),
        key_hints=(_hint("sk-…", r"sk-[0-9a-f]{32}"),),
        assistant_model="deepseek-chat",
    ),
    Provider(
        slug="xai",
        name="xAI",
        base_url="https://api.x.ai",
        console_url="https://console.x.ai",
        check=KeyCheck("/v1/api-key", verdicts={400: Health.REJECTED}),
        key_hints=(_hint("xai-…", r"xai-[A-Za-z0-9]{60,}"),),
        assistant_model="grok-4",
        capabilities=(_TEXT, _IMAGES),
    ),
    Provider(
        slug="openrouter",
        name="OpenRouter",
        base_url="https://openrouter.ai",
        console_url="https://openrouter.ai/settings/keys",
        check=KeyCheck("/api/v1/key", empty_when=("data.limit_remaining", 0)),
        api_roots=("/api/v1",),
        key_hints=(_hint("sk-or-v1-…", r"sk-or-v1-[0-9a-f]{64}"),),
        assistant_model="openrouter/auto",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS),
    ),
    Provider(
        slug="together",
        name="Together AI",
        base_url="https://api.together.xyz",
        console_url="https://api.together.ai/settings/api-keys",
        # 403 is how Together says that the input is too long; on this request it says nothing about the key.
        check=KeyCheck("/v1/models", verdicts={403: Health.UNVERIFIED}),
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
    ),
    Provider(
        slug="fireworks",
        name="Fireworks AI",
        base_url="https://api.fireworks.ai",
        console_url="https://app.fireworks.ai/settings/users/api-keys",
        check=KeyCheck("/inference/v1/models"),
        api_roots=("/inference/v1",),
        key_hints=(_hint("fw_…", r"fw_[A-Za-z0-9]{16,}"),),
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
    ),
    Provider(
        slug="perplexity",
        name="Perplexity",
        base_url="https://api.perplexity.ai",
        console_url="https://www.perplexity.ai/settings/api",
        check=KeyCheck("/models"),
        api_roots=("", "/v1"),
        key_hints=(_hint("pplx-…", r"pplx-[A-Za-z0-9]{30,}"),),
        asks_for_usage=False,  # usage is in every chunk
    ),
    Provider(
        slug="cerebras",
        name="Cerebras",
        base_url="https://api.cerebras.ai",
        console_url="https://cloud.cerebras.ai",
        check=KeyCheck("/v1/models"),
        key_hints=(_hint("csk-…", r"csk-[A-Za-z0-9]{30,}"),),
        chat_limit="max_completion_tokens",
    ),
    Provider(
        slug="moonshot",
        name="Moonshot AI",
        base_url="https://api.moonshot.ai",
        console_url="https://platform.moonshot.ai/console/api-keys",
        check=KeyCheck("/v1/models"),
    ),
    Provider(
        slug="nvidia",
        name="NVIDIA",
        base_url="https://integrate.api.nvidia.com",
        console_url="https://build.nvidia.com/settings/api-keys",
        # The list of models is public there, so that a 200 would say nothing; the key service is on another
        # host, which a key may not be sent to. An answer to this one is never more than unverified.
        check=KeyCheck("/v1/models", verdicts={200: Health.UNVERIFIED}),
        key_hints=(_hint("nvapi-…", r"nvapi-[\w-]{40,}"),),
        capabilities=(_TEXT, _EMBEDDINGS),
    ),
    Provider(
        slug="cohere",
        name="Cohere",
        base_url="https://api.cohere.com",
        console_url="https://dashboard.cohere.com/api-keys",
        check=KeyCheck("/v1/models"),
        api_roots=("/compatibility/v1", "/v2", "/v1"),
        capabilities=(_TEXT, _EMBEDDINGS),
    ),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType({row.slug: row for row in _ROWS})

_MASK = re.compile(r"[•●…*]|\.\.\.")


def find(slug: str) -> Provider:
    """The provider with this slug; raises ``NotFound`` if there is none."""
    provider = PROVIDERS.get(slug)
    if provider is None:
        raise NotFound(f"There is no provider called {slug[:40]!r} here.")
    return provider


def _matching(key: str, providers: Iterable[Provider]) -> tuple[Provider, KeyHint] | None:
    for provider in providers:
        for hint in provider.key_hints:
            if hint.pattern.fullmatch(key):
                return provider, hint
    return None


def advice(provider: Provider, key: Secret) -> str | None:
    """What looks wrong about a key, in one sentence that shows nothing of it; None if nothing does.

    Advice only: providers change their formats without asking us, so a key that looks odd is still checked
    with the provider and may be saved.
    """
    usable = [hint.example for hint in provider.key_hints if not hint.admin]
    if (mistake := mistaken(provider, key)) or not usable or _matching(key.reveal(), [provider]):
        return mistake
    return f"{provider.name} keys usually look like {' or '.join(usable)}. Check it."


def mistaken(provider: Provider, key: Secret) -> str | None:
    """What a key is taken for that it should not be: a mask, an admin key, another provider's; None if nothing."""
    text = key.reveal()
    if text != text.strip() or any(c.isspace() for c in text):
        return "This has white space in it. Copy the key again, without spaces or line breaks."
    if _MASK.search(text):
        return "This looks like a masked preview, not the key itself. Copy the whole key when it is created."
    found = _matching(text, [provider]) or _matching(text, PROVIDERS.values())
    if found is None:
        return None
    owner, hint = found
    if hint.admin:
        return f"This looks like an admin key of {owner.name}. It manages an account and serves no AI requests."
    if owner is not provider:
        return f"This looks like a key of {owner.name}, not of {provider.name}."
    return None
