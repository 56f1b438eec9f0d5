"""The companies the simulated provider plays: one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Company:
    """Where a company's paths begin, which of its models exist here, and which keys it takes."""

    slug: str
    dialect: Literal["openai", "anthropic", "gemini"]
    roots: tuple[str, ...]
    """What stands before ``/chat/completions`` and the like."""
    key_prefixes: tuple[str, ...]
    """A key beginning with one of these is accepted."""
    models: tuple[str, ...]
    """Listed by the models endpoint."""
    model_prefixes: tuple[str, ...]
    """Any model beginning with one of these exists, too; an empty text admits every model."""

    def has_model(self, model: str) -> bool:
        """Whether a request may name this model."""
        return bool(model) and (model in self.models or model.startswith(self.model_prefixes))


_ROWS = (
    Company(
        "openai",
        "openai",
        ("/v1",),
        ("sk-demo-", "sk-proj-demo-"),
        ("gpt-5.2", "gpt-5-mini", "gpt-4.1", "gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "gpt-image-1"),
        ("gpt-", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "dall-e-"),
    ),
    Company(
        "anthropic",
        "anthropic",
        ("/v1",),
        ("sk-ant-demo-", "sk-ant-api03-demo-"),
        ("claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5"),
        ("claude-",),
    ),
    Company(
        "gemini",
        "gemini",
        ("/v1beta", "/v1"),
        ("AIzaDemo", "AIzaSyDemo", "demo-"),
        (
            "gemini-3-flash-preview",
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "gemini-2.5-flash-image",
            "gemini-embedding-001",
        ),
        ("gemini-", "gemma-", "text-embedding-"),
    ),
    Company(
        "groq",
        "openai",
        ("/openai/v1",),
        ("gsk_demo",),
        ("llama-3.3-70b-versatile", "openai/gpt-oss-20b"),
        ("llama-", "openai/", "meta-llama/", "qwen/", "moonshotai/", "groq/"),
    ),
    Company(
        "openrouter",
        "openai",
        ("/api/v1",),
        ("sk-or-demo-", "sk-or-v1-demo"),
        ("openrouter/auto", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4.6"),
        ("openrouter/", "openai/", "anthropic/", "google/", "mistralai/", "meta-llama/", "deepseek/", "qwen/", "x-ai/"),
    ),
    Company(
        "mistral",
        "openai",
        ("/v1",),
        ("demo-",),
        ("mistral-large-latest", "mistral-small-latest", "mistral-embed"),
        ("mistral-", "ministral-", "magistral-", "codestral-", "open-mi", "pixtral-", "devstral-"),
    ),
    Company("deepseek", "openai", ("", "/v1", "/beta"), ("sk-demo-",), ("deepseek-chat",), ("deepseek-",)),
    Company("xai", "openai", ("/v1",), ("xai-demo-",), ("grok-4", "grok-3-mini"), ("grok-",)),
)

COMPANIES = {row.slug: row for row in _ROWS}


_ROOTS = ("/v1", "", "/inference/v1", "/compatibility/v1", "/compatible-mode/v1", "/api/paas/v4", "/openai/v1")


def company(slug: str) -> Company:
    """The row of a slug; any other slug is an OpenAI-compatible company with every model and ``demo-`` keys."""
    found = COMPANIES.get(slug)
    return found or Company(slug, "openai", _ROOTS, ("demo-",), (), ("",))
