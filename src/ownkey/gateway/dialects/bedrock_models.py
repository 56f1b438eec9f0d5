"""Bedrock's Invoke takes the body of the model's maker: which one it is, by the model's id or by the body.

An id is ``anthropic.claude-…``, one of a region (``us.anthropic.…``), or an ARN that ends so. An application
inference profile, an imported or a bought model has an id that says nothing; then the body's own members tell
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html).
"""

from __future__ import annotations

import re
from collections.abc import Collection

INVOKE = "invoke"
"""The kind of an Invoke whose body we do not know: it cannot be limited, so all of its output is reserved or none."""

# The first that is found in the id decides. A kind is a row of ``request_fields.FORMS``, or one that writes no text.
_BY_MODEL: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?:^|[./:]){pattern}"), kind)
    for pattern, kind in (
        (r"[a-z0-9-]+\.(?:[a-z0-9-]*embed|[a-z0-9-]*rerank)", "embeddings"),
        (r"(?:stability\.|amazon\.titan-image|amazon\.nova-canvas)", "bedrock_images"),
        (r"anthropic\.", "messages"),
        (r"amazon\.nova", "nova"),
        (r"amazon\.titan", "titan"),
        (r"meta\.", "llama"),
        (r"cohere\.", "cohere_generate"),
        (r"ai21\.j2", "jurassic"),
        (r"(?:ai21|mistral|deepseek|openai|qwen|moonshot|moonshotai|minimax|nvidia|google|writer|zai)\.", "raw_chat"),
    )
)
_BY_MEMBER = (
    ("anthropic_version", "messages"),
    ("inferenceConfig", "nova"),
    ("textGenerationConfig", "titan"),
    ("imageGenerationConfig", "bedrock_images"),
    ("max_gen_len", "llama"),
    ("texts", "embeddings"),
    ("singleEmbeddingParams", "embeddings"),
    ("maxTokens", "jurassic"),
)


def invoke_kind(model: str, members: Collection[str]) -> str:
    """The kind of an Invoke, from its model and the names of its body's members."""
    kind = next((kind for pattern, kind in _BY_MODEL if pattern.search(model)), "")
    kind = kind or next((kind for member, kind in _BY_MEMBER if member in members), INVOKE)
    # Claude's older text completions.
    return "complete" if kind == "messages" and "messages" not in members and "prompt" in members else kind
