"""The wire formats that a provider's row can name. Cohere's and Ollama's own are named by their endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ownkey.gateway.dialects.anthropic import ANTHROPIC
from ownkey.gateway.dialects.bedrock import BEDROCK
from ownkey.gateway.dialects.dialect import Dialect
from ownkey.gateway.dialects.gemini import GEMINI
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.providers.provider import DialectName

DIALECTS: Mapping[DialectName, Dialect] = MappingProxyType(
    {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI, "bedrock": BEDROCK}
)
