"""Whatever a provider reports, the parts of a usage are never more than their wholes, and no charge is negative."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.gateway.dialects.reported import Reported
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import Usage, charge
from ownkey.token_weights import TokenWeights
from tests.unit.gateway.samples import call, events

COUNTS = st.one_of(st.none(), st.integers(-5, 50), st.integers(0, 2_000_000_000), st.floats(-1, 100), st.just("7"))
WEIGHTS = st.builds(TokenWeights, *[st.integers(0, 1_000_000)] * 4)
MODEL = {"model": "m", "messages": []}
BEDROCK = "/model/anthropic.claude-3-haiku/converse"


def counts(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each of these members is there or not, with any number."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, COUNTS))


def within(usage: st.SearchStrategy[dict[str, Any]], **inside: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy:
    """The same objects with others in them."""
    return st.builds(lambda outer, inner: outer | inner, usage, st.fixed_dictionaries({}, optional=inside))


UNITS = counts("input_tokens", "output_tokens")
OPENAI = within(
    counts(
        *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "cached_tokens"),
        *("prompt_cache_hit_tokens", "num_cached_tokens", "reasoning_tokens", "seconds"),
    ),
    prompt_tokens_details=counts("cached_tokens", "cache_write_tokens"),
    completion_tokens_details=counts("reasoning_tokens"),
)
REPORTS = {
    "openai": ("", OPENAI, "usage"),
    "cohere": ("/v2/chat", within(counts("cached_tokens"), billed_units=UNITS, tokens=UNITS), "usage"),
    "anthropic": (
        "",
        within(
            counts("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
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
    """Whether no part is more than its whole, and the call gives nothing back."""
    read, written = usage.cached_input_tokens, usage.cache_write_tokens
    return (
        min(read, written, usage.reasoning_tokens) >= 0
        and read + written <= usage.input_tokens
        and usage.reasoning_tokens <= usage.output_tokens
        and charge(usage, "allowance", weights) >= 0
    )


@given(st.builds(Reported, *[st.none() | st.integers(0, 1_000_000_000)] * 5, st.booleans()), WEIGHTS)
def test_a_part_is_never_more_than_its_whole(reported: Reported, weights: TokenWeights) -> None:
    """Cached and cache-write tokens together are of the input, reasoning is of the output."""
    assert is_sound(reported.usage(), weights)


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
def test_no_call_gives_tokens_back(usage: Usage, weights: TokenWeights) -> None:
    """Whatever the counts are, a charge is never negative."""
    assert charge(usage, "allowance", weights) >= 0
