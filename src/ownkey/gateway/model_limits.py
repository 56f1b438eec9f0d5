"""What a model reads and writes at most in one answer, and what one image is to it, as the providers document it.

Sources: the model pages of https://platform.openai.com/docs/models, https://docs.claude.com/en/docs/about-claude/models,
https://ai.google.dev/gemini-api/docs/models, https://api-docs.deepseek.com/quick_start/pricing and
https://docs.x.ai/docs/models, and Alibaba's and Amazon's pages of their Qwen and Nova models.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Limits(NamedTuple):
    """The most tokens that a model reads (its context window) and writes, and that one image counts."""

    reads: int
    writes: int
    image: int


UNKNOWN = Limits(300_000, 131_072, 16_384)
"""A model that no row names: above what most others read (Azure's own limit of its largest is 300,000), write, and
count an image (OpenAI's ``detail: original`` up to 14,400, Qwen's ``vl_high_resolution_images`` 16,384)."""

_MILLION = 1_048_576
_SMALL_IMAGE = 8_192
_MODELS: tuple[tuple[str, Limits], ...] = (
    # The longest prefix that fits decides.
    ("gpt-3.5", Limits(16_385, 4_096, _SMALL_IMAGE)),
    ("gpt-4", Limits(128_000, 8_192, _SMALL_IMAGE)),
    ("gpt-4-turbo", Limits(128_000, 4_096, _SMALL_IMAGE)),
    ("gpt-4o", Limits(128_000, 16_384, _SMALL_IMAGE)),
    ("gpt-4o-mini", Limits(128_000, 16_384, 49_152)),
    ("gpt-4.1", Limits(_MILLION, 32_768, _SMALL_IMAGE)),
    ("gpt-4.5", Limits(128_000, 16_384, _SMALL_IMAGE)),
    ("gpt-5", Limits(272_000, 128_000, _SMALL_IMAGE)),
    ("gpt-5-pro", Limits(400_000, 272_000, _SMALL_IMAGE)),
    ("gpt-5.", Limits(1_050_000, 128_000, 16_384)),
    ("gpt-5.1", Limits(272_000, 128_000, _SMALL_IMAGE)),
    ("gpt-5.2", Limits(272_000, 128_000, _SMALL_IMAGE)),
    ("gpt-5.3", Limits(272_000, 128_000, _SMALL_IMAGE)),
    ("gpt-6", Limits(1_050_000, 131_072, 16_384)),
    ("chatgpt-4o", Limits(128_000, 16_384, _SMALL_IMAGE)),
    ("o1", Limits(200_000, 100_000, _SMALL_IMAGE)),
    ("o3", Limits(200_000, 100_000, _SMALL_IMAGE)),
    ("o4", Limits(200_000, 100_000, _SMALL_IMAGE)),
    ("claude", Limits(_MILLION, 131_072, _SMALL_IMAGE)),
    ("claude-haiku-4", Limits(200_000, 131_072, _SMALL_IMAGE)),
    ("claude-opus-4-1", Limits(200_000, 131_072, _SMALL_IMAGE)),
    ("claude-opus-4-2", Limits(200_000, 131_072, _SMALL_IMAGE)),
    ("claude-opus-4-5", Limits(200_000, 131_072, _SMALL_IMAGE)),
    ("claude-3", Limits(200_000, 131_072, _SMALL_IMAGE)),
    ("claude-3-haiku", Limits(200_000, 4_096, _SMALL_IMAGE)),
    ("claude-3-opus", Limits(200_000, 4_096, _SMALL_IMAGE)),
    ("claude-3-5", Limits(200_000, 8_192, _SMALL_IMAGE)),
    ("gemini", Limits(_MILLION, 131_072, _SMALL_IMAGE)),
    ("gemini-1.5", Limits(2_097_152, 8_192, _SMALL_IMAGE)),
    ("gemini-2.0", Limits(_MILLION, 8_192, _SMALL_IMAGE)),
    ("gemini-2.5", Limits(_MILLION, 65_536, _SMALL_IMAGE)),
    ("gemini-3", Limits(_MILLION, 65_536, _SMALL_IMAGE)),
    ("deepseek", Limits(_MILLION, 393_216, _SMALL_IMAGE)),
    ("grok", Limits(2_000_000, 131_072, _SMALL_IMAGE)),
    ("grok-3", Limits(131_072, 131_072, _SMALL_IMAGE)),
    ("grok-4", Limits(256_000, 131_072, _SMALL_IMAGE)),
    ("grok-4-fast", Limits(2_000_000, 131_072, _SMALL_IMAGE)),
    ("grok-4-1", Limits(2_000_000, 131_072, _SMALL_IMAGE)),
    ("grok-4.", Limits(2_000_000, 131_072, _SMALL_IMAGE)),
    ("nova", Limits(1_000_000, 131_072, _SMALL_IMAGE)),
    ("qwen", Limits(1_000_000, 131_072, 16_384)),
    ("qwen-omni", Limits(131_072, 131_072, 16_384)),
    ("qwen3-omni", Limits(131_072, 131_072, 16_384)),
    ("qwen-vl", Limits(131_072, 131_072, 16_384)),
    ("qwen3-vl", Limits(262_144, 131_072, 16_384)),
    ("qwen-long", Limits(10_000_000, 131_072, 16_384)),
)
# Bedrock's ids begin with a region and the model's maker: us.anthropic.claude-…
_MAKERS = re.compile(r"^(?:[a-z0-9-]+\.)+(?=[a-z])")


@lru_cache(1_024)
def limits_of(model: str) -> Limits:
    """The limits of a model by any of its names: with its maker before it, or a version behind."""
    name = _MAKERS.sub("", model.rsplit("/", 1)[-1])
    fitting = [(len(prefix), limits) for prefix, limits in _MODELS if name.startswith(prefix)]
    return max(fitting)[1] if fitting else UNKNOWN
