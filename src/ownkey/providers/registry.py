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
from ownkey.providers.provider import Address, Capability, KeyCheck, KeyHint, Provider

__all__ = ["PROVIDERS", "Provider", "advice", "find"]

_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO = Capability.TEXT, Capability.IMAGES, Capability.EMBEDDINGS, Capability.AUDIO


def _hint(example: str, pattern: str, *, admin: bool = False) -> KeyHint:
    # An example is short enough not to be taken for a key, and blanked, where it is said (``logs.blank``).
    return KeyHint(example, re.compile(pattern), admin)


def _in_china(where: str, url: str) -> Address:
    """The choice of a second address, for keys that come from ``where``."""
    hint = f"Write china for a key of {where}; neither place knows the other's keys."
    return Address("Region", "china", hint, pattern=re.compile("china"), exceptions={"china": url})


# Where Bedrock has an endpoint that is validated for FIPS (https://docs.aws.amazon.com/general/latest/gr/bedrock.html).
_FIPS_REGIONS = ("us-east-1", "us-east-2", "us-west-2", "us-gov-east-1", "us-gov-west-1", "ca-central-1")

_ROWS: tuple[Provider, ...] = (
    Provider(
        slug="openai",
        name="OpenAI",
        base_url="https://api.openai.com",
        console_url="https://platform.openai.com/api-keys",
        # A restricted key may be refused the list of models and still serve requests.
        check=KeyCheck("/v1/models", verdicts={401: Health.UNVERIFIED, 403: Health.UNVERIFIED}),
        key_hints=(
            _hint("sk-proj-…", r"sk-(?:proj|svcacct|service)-[\w-]{20,}"),
            _hint("sk-…", r"sk-(?!admin-)[\w-]*T3BlbkFJ[\w-]*"),
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
            _hint("sk-ant-…", r"sk-ant-api\d\d-[\w-]{80,}"),
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
        slug="azure",
        name="Azure OpenAI",
        base_url="",
        console_url="https://portal.azure.com",
        check=KeyCheck("/openai/deployments?api-version=2023-03-15-preview"),
        api_roots=("/openai/v1", "/openai"),
        credential_header="api-key",
        credential_prefix="",
        address=Address(
            label="Resource",
            example="my-resource",
            hint="The name of your resource, or its endpoint in full, from Keys and Endpoint in the portal.",
            pattern=re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"),
            template="https://{}.openai.azure.com",
            whole=True,
            domains=(
                "openai.azure.com",
                "cognitiveservices.azure.com",
                "services.ai.azure.com",
                "openai.azure.us",
                "cognitiveservices.azure.us",
            ),
        ),
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
        usage_since="2024-09-01",
        chat_limit="max_completion_tokens",
    ),
    Provider(
        slug="bedrock",
        name="Amazon Bedrock",
        base_url="",
        console_url="https://console.aws.amazon.com/bedrock/home#/api-keys",
        # A list of jobs: the one thing to read on this host. A key limited to models may be refused it and still work.
        check=KeyCheck("/async-invoke?maxResults=1", verdicts={403: Health.UNVERIFIED}),
        dialect="bedrock",
        api_roots=("", "/openai/v1", "/v1"),
        address=Address(
            label="Region",
            example="us-east-1",
            hint="The AWS region whose models you use, or an endpoint in full, as https://bedrock-mantle.….api.aws.",
            pattern=re.compile(rf"[a-z]{{2,3}}(?:-[a-z]+){{1,3}}-[0-9]|(?:{'|'.join(_FIPS_REGIONS)})-fips"),
            template="https://bedrock-runtime.{}.amazonaws.com",
            exceptions={
                f"{region}-fips": f"https://bedrock-runtime-fips.{region}.amazonaws.com" for region in _FIPS_REGIONS
            },
            whole=True,
            domains=("api.aws",),
        ),
        key_hints=(
            _hint("ABSK…", r"ABSK[A-Za-z0-9+/=]{40,}"),
            _hint("bedrock-api-key-…", r"bedrock-api-key-[A-Za-z0-9+/=_-]{20,}"),
        ),
        assistant_model="openai.gpt-oss-20b-1:0",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS),
    ),
    Provider(
        slug="vertex",
        name="Google Vertex AI",
        base_url="https://aiplatform.googleapis.com",
        console_url="https://console.cloud.google.com/iam-admin/serviceaccounts",
        check=KeyCheck(""),  # that Google gives an access token for the document is the check
        dialect="gemini",
        api_roots=("/v1", "/v1beta1"),
        credential="service_account",
        address=Address(
            label="Location",
            example="us-central1",
            hint="The location in your requests' paths.",
            pattern=re.compile(r"[a-z]+(?:-[a-z]+[0-9]+)?"),
            template="https://{}-aiplatform.googleapis.com",
            exceptions={
                "global": "https://aiplatform.googleapis.com",
                "us": "https://aiplatform.us.rep.googleapis.com",
                "eu": "https://aiplatform.eu.rep.googleapis.com",
            },
            domains=("googleapis.com",),
        ),
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
        check=KeyCheck("/user/balance", empty_when=("is_available", False), tells_credit=True),
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
        # What remains of the key's own limit, if it has one: of the account's credit this says nothing.
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
        address=_in_china("platform.moonshot.cn", "https://api.moonshot.cn"),
    ),
    Provider(
        slug="nvidia",
        name="NVIDIA",
        base_url="https://integrate.api.nvidia.com",
        console_url="https://build.nvidia.com/settings/api-keys",
        # The list of models is public there; the key service is on another host, which a key may not be sent to.
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
    Provider(
        slug="huggingface",
        name="Hugging Face",
        base_url="https://router.huggingface.co",
        console_url="https://huggingface.co/settings/tokens",
        # The list of models is public there, and the service that knows keys is on another host.
        check=KeyCheck("/v1/models", verdicts={200: Health.UNVERIFIED}),
        key_hints=(_hint("hf_…", r"(?:hf|api_org)_[A-Za-z0-9]{30,}"),),
        assistant_model="openai/gpt-oss-20b",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
    ),
    Provider(
        slug="qwen",
        name="Alibaba Qwen",
        base_url="https://dashscope-intl.aliyuncs.com",
        console_url="https://modelstudio.console.alibabacloud.com/?tab=dashboard#/api-key",
        check=KeyCheck("/compatible-mode/v1/models"),
        api_roots=("/compatible-mode/v1", "/api/v1", "/compatible-api/v1"),
        address=_in_china("mainland China", "https://dashscope.aliyuncs.com"),
        key_hints=(_hint("sk-…", r"sk-[0-9a-f]{32}"),),
        assistant_model="qwen-plus",
        capabilities=(_TEXT, _IMAGES, _EMBEDDINGS, _AUDIO),
    ),
    Provider(
        slug="zai",
        name="Z.ai",
        base_url="https://api.z.ai",
        console_url="https://z.ai/manage-apikey/apikey-list",
        check=KeyCheck("/api/paas/v4/models"),
        api_roots=("/api/paas/v4", "/api/coding/paas/v4"),
        key_hints=(_hint("0123….abc…", r"[0-9a-f]{32}\.[A-Za-z0-9]{16}"),),
        assistant_model="glm-4.6",
        capabilities=(_TEXT, _IMAGES, _AUDIO),
    ),
    Provider(
        slug="ollama",
        name="Ollama",
        base_url="",
        console_url="https://ollama.com/settings/keys",
        check=KeyCheck("/api/tags", public_at=("ollama.com",)),
        api_roots=("/v1", "/api"),
        key_optional=True,
        address=Address(
            label="Address",
            example="https://ollama.example.com",
            hint="Where your Ollama server answers, without a path; https://ollama.com for its cloud.",
            whole=True,
            domains=("ollama.com",),
        ),
        capabilities=(_TEXT, _EMBEDDINGS),
    ),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType({row.slug: row for row in _ROWS})

_MASK = re.compile(r"[•●…*]|\.\.\.")


def find(slug: str, providers: Mapping[str, Provider] = PROVIDERS) -> Provider:
    """The provider with this slug; raises ``NotFound`` if there is none."""
    provider = providers.get(slug)
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
