"""The provider table, and what can be said about a key by looking at it."""

from __future__ import annotations

import re

import pytest

from ownkey.credentials import Secret
from ownkey.errors import NotFound
from ownkey.providers.registry import PROVIDERS, advice, find

OPENAI_KEY = "sk-proj-" + "a1B2" * 10 + "T3BlbkFJ" + "c3D4" * 10
ANTHROPIC_KEY = "sk-ant-api03-" + "x" * 93 + "AA"
GEMINI_KEY = "AIzaSy" + "k" * 33
GROQ_KEY = "gsk_" + "g" * 52
DEEPSEEK_KEY = "sk-" + "0123456789abcdef" * 2
OPENROUTER_KEY = "sk-or-v1-" + "0f" * 32


@pytest.mark.parametrize("slug", sorted(PROVIDERS))
def test_a_row_can_be_used(slug: str) -> None:
    """Every row has an address that is a host and nothing else, a console page, and a check that is a path."""
    provider = PROVIDERS[slug]
    assert provider.slug == slug
    assert re.fullmatch(r"[a-z][a-z0-9-]*", slug)
    assert re.fullmatch(r"https://[a-z0-9.-]+", provider.base_url) or provider.address is not None
    assert provider.console_url.startswith("https://")
    assert provider.check.path.startswith("/") or provider.credential == "service_account"
    assert "key=" not in provider.check.path
    assert provider.credential_header == provider.credential_header.lower()
    assert all(root == "" or re.fullmatch(r"(/[a-z0-9-]+)+", root) for root in provider.api_roots)


def test_the_three_formats_have_a_provider_that_the_assistant_can_use() -> None:
    """OpenAI, Anthropic and Gemini each speak their own format and name a model for the assistant page."""
    for slug in ("openai", "anthropic", "gemini"):
        assert find(slug).dialect == slug
        assert find(slug).assistant_model


def test_sdk_paths_are_those_of_the_contract() -> None:
    """What follows ``{public}/<slug>`` in an SDK's base URL is the provider's own root."""
    paths = {slug: find(slug).sdk_path for slug in ("openai", "anthropic", "gemini", "groq", "openrouter", "mistral")}
    assert paths == {
        "openai": "/v1",
        "anthropic": "",
        "gemini": "",
        "groq": "/openai/v1",
        "openrouter": "/api/v1",
        "mistral": "/v1",
    }


def test_the_key_field_shows_an_example() -> None:
    """Where a form of key is known its beginning is shown, and nothing where none is."""
    assert find("anthropic").key_example == "sk-ant-…"
    assert find("moonshot").key_example == ""


def test_an_unknown_slug_is_not_found() -> None:
    """Looking up a provider that has no row raises the error a caller can see."""
    with pytest.raises(NotFound):
        find("nobody")


@pytest.mark.parametrize(
    ("slug", "key"),
    [
        ("openai", OPENAI_KEY),
        ("openai", "sk-" + "a" * 20 + "T3BlbkFJ" + "b" * 20),
        ("anthropic", ANTHROPIC_KEY),
        ("gemini", GEMINI_KEY),
        ("gemini", "AQ." + "a" * 40),
        ("groq", GROQ_KEY),
        ("deepseek", DEEPSEEK_KEY),
        ("openrouter", OPENROUTER_KEY),
        ("mistral", "anything at all is possible here".replace(" ", "")),
    ],
)
def test_a_key_of_a_known_form_needs_no_advice(slug: str, key: str) -> None:
    """A key that looks like its provider's, or whose provider has no known form, is not remarked upon."""
    assert advice(find(slug), Secret(key)) is None


@pytest.mark.parametrize(
    ("slug", "key", "word"),
    [
        ("openai", ANTHROPIC_KEY, "Anthropic"),
        ("anthropic", OPENAI_KEY, "OpenAI"),
        ("openai", DEEPSEEK_KEY, "DeepSeek"),
        ("deepseek", OPENAI_KEY, "OpenAI"),
        ("mistral", GROQ_KEY, "Groq"),
        ("openai", OPENROUTER_KEY, "OpenRouter"),
        ("openai", "sk-admin-" + "a" * 40, "admin key"),
        ("openai", "sk-admin-" + "aB3_" * 18 + "T3BlbkFJ" + "cD4-" * 18, "admin key"),
        ("anthropic", "sk-admin-" + "aB3_" * 18 + "T3BlbkFJ" + "cD4-" * 18, "admin key of OpenAI"),
        ("anthropic", "sk-ant-admin01-" + "a" * 40, "admin key"),
        ("openai", "sk-proj-••••••••", "masked"),
        ("openai", "sk-proj-abc...wxyz", "masked"),
        ("openai", "sk-********wxyz", "masked"),
        ("openai", OPENAI_KEY + "\n", "white space"),
        ("openai", OPENAI_KEY[:20] + " " + OPENAI_KEY[20:], "white space"),
        ("anthropic", "hello-world-hello-world", "sk-ant-"),
    ],
)
def test_what_looks_wrong_is_named(slug: str, key: str, word: str) -> None:
    """Another provider's key, an admin key, a pasted mask and white space are named, and nothing of the key shown."""
    said = advice(find(slug), Secret(key))
    assert said is not None
    assert word in said
    assert key.strip()[:12] not in said or key.strip()[:12] in "sk-ant-api03-"
