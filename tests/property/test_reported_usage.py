"""Whatever a provider reports, a charge is never negative, nor more than the dearest of its tokens make it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import Usage, charge
from ownkey.token_weights import TokenWeights, rounded_up
from tests.unit.gateway.samples import call, events

COUNTS = st.one_of(st.none(), st.integers(-5, 50), st.integers(0, 2_000_000_000), st.floats(-1, 100), st.just("7"))
WEIGHTS = st.builds(TokenWeights, *[st.integers(0, 1_000_000)] * 4)
MODEL = {"model": "m", "messages": []}
BEDROCK = "/model/anthropic.claude-3-haiku/converse"


def counts(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each of these members is there or not, with any number."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, COUNTS))


def within(usage: st.SearchStrategy[dict[str, Any]], **inside: st.SearchStrategy[Any]) -> st.SearchStrategy:
    """The same objects with others in them."""
    return st.builds(lambda outer, inner: outer | inner, usage, st.fixed_dictionaries({}, optional=inside))


UNITS = counts("input_tokens", "output_tokens")
OPENAI = within(
    counts(
        *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "cached_tokens"),
        *("prompt_cache_hit_tokens", "num_cached_tokens", "reasoning_tokens", "citation_tokens", "seconds"),
    ),
    prompt_tokens_details=counts("cached_tokens", "cache_write_tokens"),
    completion_tokens_details=counts("reasoning_tokens"),
)
STEPS = st.sampled_from(["message", "compaction", "advisor_message", 5])
ANTHROPIC = counts("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
REPORTS = {
    "openai": ("", OPENAI, "usage"),
    "cohere": ("/v2/chat", within(counts("cached_tokens"), billed_units=UNITS, tokens=UNITS), "usage"),
    "anthropic": (
        "",
        within(
            ANTHROPIC,
            iterations=st.lists(within(ANTHROPIC, type=STEPS), max_size=3),
            output_tokens_details=counts("thinking_tokens"),
            cache_creation=counts("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
        ),
        "usage",
    ),
    "gemini": (
        "",
        counts(
            *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "cachedContentTokenCount"),
            *("thoughtsTokenCount", "toolUsePromptTokenCount"),
        ),
        "usageMetadata",
    ),
    "bedrock": (
        BEDROCK,
        counts("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "totalTokens"),
        "usage",
    ),
}


def is_sound(usage: Usage, weights: TokenWeights) -> bool:
    """Whether no count is below zero, and the charge is of what was used: no part counts beyond its whole."""
    counts = (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens)
    most = rounded_up(usage.input_tokens * weights.most_input + usage.output_tokens * weights.output)
    return min(counts) >= 0 and 0 <= charge(usage, "allowance", weights) <= most


@pytest.mark.parametrize("slug", REPORTS)
@given(st.data())
def test_whatever_a_provider_reports_is_sound(slug: str, data: st.DataObject) -> None:
    """In every format, of a reply that ended and of one that broke off, as a document and as events."""
    path, report, name = REPORTS[slug]
    document = {name: data.draw(report)}
    weights, finished = data.draw(WEIGHTS), data.draw(st.booleans())
    for content_type, reply in (
        ("application/json", json.dumps(document).encode()),
        ("text/event-stream", events(document, {**document, name: data.draw(report)})),
    ):
        watch = ReplyWatch(call(slug, {} if slug == "gemini" else MODEL, path), content_type, "")
        watch.feed(reply)
        assert is_sound(watch.usage(finished), weights)


@given(st.builds(Usage, *[st.integers(0, 1_000_000_000)] * 5), WEIGHTS)
def test_any_counts_make_a_sound_charge(usage: Usage, weights: TokenWeights) -> None:
    """Cached and cache-write tokens beyond the input, which some report, neither add to it nor take from it."""
    assert is_sound(usage, weights)
