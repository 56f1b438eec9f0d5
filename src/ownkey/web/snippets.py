"""The lines a developer copies: base URLs and programs for the official SDKs, with this installation's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ownkey.providers.provider import Provider
from ownkey.providers.registry import PROVIDERS

_OPENAI = """\
from openai import OpenAI

client = OpenAI(
    base_url="{public_url}{path}",
    api_key="YOUR_API_TOKEN",
)
reply = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Say hello."}}],
)
print(reply.choices[0].message.content)"""

_ANTHROPIC = """\
from anthropic import Anthropic

client = Anthropic(
    base_url="{public_url}{path}",
    api_key="YOUR_API_TOKEN",
)
reply = client.messages.create(
    model="{model}",
    max_tokens=200,
    messages=[{{"role": "user", "content": "Say hello."}}],
)
print(reply.content[0].text)"""

_GEMINI = """\
from google import genai

client = genai.Client(
    api_key="YOUR_API_TOKEN",
    http_options={{"base_url": "{public_url}{path}"}},
)
reply = client.models.generate_content(
    model="{model}",
    contents="Say hello.",
)
print(reply.text)"""

_CURL = """\
curl {public_url}{path}/chat/completions \\
  -H "Authorization: Bearer YOUR_API_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A program to copy."""

    name: str
    text: str


def for_programs(public_url: str) -> Sequence[Snippet]:
    """One program for each official SDK, and one line for the shell."""
    programs = (
        ("OpenAI SDK", _OPENAI, "openai"),
        ("Anthropic SDK", _ANTHROPIC, "anthropic"),
        ("Google Gen AI SDK", _GEMINI, "gemini"),
        ("curl", _CURL, "openai"),
    )
    return [
        Snippet(name, text.format(public_url=public_url, path=_path(slug), model=PROVIDERS[slug].assistant_model))
        for name, text, slug in programs
    ]


def base_urls(public_url: str, providers: Mapping[str, Provider]) -> Sequence[tuple[str, str]]:
    """Each provider's name, and the base URL that a program gives its SDK."""
    return [(provider.name, f"{public_url}/{slug}{provider.sdk_path}") for slug, provider in providers.items()]


def _path(slug: str) -> str:
    return f"/{slug}{PROVIDERS[slug].sdk_path}"
