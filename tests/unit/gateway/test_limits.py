"""Capping the output of a call, and asking for its usage: what changes in the body, and what does not."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.errors import InvalidRequest
from ownkey.gateway.call import Call
from tests.unit.gateway.samples import call


@pytest.mark.parametrize(
    ("slug", "path", "body", "changed"),
    [
        ("openai", "", {}, {"max_completion_tokens": 50}),
        ("openai", "", {"max_tokens": 900}, {"max_tokens": 50}),
        ("openai", "", {"max_tokens": 20}, {"max_tokens": 20}),
        ("openai", "", {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 50}),
        ("openai", "", {"max_completion_tokens": 900}, {"max_completion_tokens": 50}),
        (
            "openai",
            "",
            {"max_tokens": 900, "max_completion_tokens": 20},
            {"max_tokens": 50, "max_completion_tokens": 20},
        ),
        ("mistral", "", {}, {"max_tokens": 50}),
        ("groq", "", {}, {"max_completion_tokens": 50}),
        ("openai", "/v1/completions", {}, {"max_tokens": 50}),
        ("openai", "/v1/responses", {}, {"max_output_tokens": 50}),
        ("anthropic", "", {"max_tokens": 900}, {"max_tokens": 50}),
        ("anthropic", "/v1/complete", {"max_tokens_to_sample": 900}, {"max_tokens_to_sample": 50}),
        ("gemini", "", {}, {"generationConfig": {"maxOutputTokens": 50}}),
        ("gemini", "", {"generationConfig": None}, {"generationConfig": {"maxOutputTokens": 50}}),
        (
            "gemini",
            "",
            {"generationConfig": {"temperature": 0.5, "maxOutputTokens": 900}},
            {"generationConfig": {"temperature": 0.5, "maxOutputTokens": 50}},
        ),
        (
            "gemini",
            "",
            {"generation_config": {"max_output_tokens": 900}},
            {"generation_config": {"max_output_tokens": 50}},
        ),
        ("gemini", "/v1beta/interactions", {}, {"generation_config": {"max_output_tokens": 50}}),
        ("gemini", "/v1beta/openai/chat/completions", {}, {"max_tokens": 50}),
    ],
)
def test_the_cap_is_set_where_the_format_has_it(slug: str, path: str, body: Any, changed: Any) -> None:
    """The caller's own field is lowered; where there is none the usual one is added; a lower cap stays."""
    before = {"model": "gemini-2.5-flash", "x": 1, **body}
    read = call(slug, before, path)
    assert read.can_limit
    assert json.loads(read.with_output_limit(50)) == {**before, **changed}


@pytest.mark.parametrize("other", [{}, {"max_tokens": None}])
@pytest.mark.parametrize("slug", ["deepseek", "ollama", "mistral"])
def test_a_limit_stands_where_the_provider_reads_it(slug: str, other: dict[str, None]) -> None:
    """``max_completion_tokens`` becomes ``max_tokens`` where that is the provider's field: the other may be ignored.

    Only where tokens are held for it: on an own key the body goes as it came.
    """
    read = call(slug, {"model": "m", "max_completion_tokens": 30, **other}, "/v1/chat/completions")
    assert json.loads(read.outgoing_body(None, held=130)) == {"model": "m", "max_tokens": 30}
    assert json.loads(read.outgoing_body(20, held=120)) == {"model": "m", "max_tokens": 20}
    assert read.outgoing_body(None, held=0) is read.body


def test_a_limit_that_the_provider_reads_leaves_the_body_alone() -> None:
    """Both fields, the provider's own one, and OpenAI's, where either is read."""
    for slug, body in (
        ("deepseek", {"max_tokens": 9, "max_completion_tokens": 30}),
        ("deepseek", {"max_tokens": 9}),
        ("openai", {"max_completion_tokens": 30}),
    ):
        read = call(slug, {"model": "m", **body}, "/v1/chat/completions")
        assert read.outgoing_body(None, held=130) is read.body


def test_a_section_that_is_null_does_not_stand_for_the_other_spelling() -> None:
    """The one with members is lowered, and the empty one is left out: a provider reads one of two."""
    for empty, full in (("generationConfig", "generation_config"), ("generation_config", "generationConfig")):
        body: dict[str, Any] = {empty: None, full: {"maxOutputTokens": 60_000}, "contents": []}
        assert json.loads(call("gemini", body).with_output_limit(50)) == {
            full: {"maxOutputTokens": 50},
            "contents": [],
        }


@pytest.mark.parametrize(
    ("slug", "path"),
    [
        ("openai", "/v1/embeddings"),
        ("openai", "/v1/images/generations"),
        ("openai", "/v1/audio/speech"),
        ("openai", "/v1/responses/compact"),
        ("openai", "/v1/unknown"),
        ("gemini", "/v1beta/models/imagen-4:predict"),
    ],
)
def test_what_cannot_be_capped_stays_as_it_is(slug: str, path: str) -> None:
    """A call without such a field says so, and its body is not touched."""
    body = b'{ "prompt" : "m" }'
    read = call(slug, body, path)
    assert not read.can_limit
    assert read.with_output_limit(5) == body


ODD = (
    '{"model":"m","messages":[{"content":"\\u00e9 \\/ caf\\u00e9"}],'
    ' "seed": 12345678901234567890123, "t": 1.50, "e":1E5}'
)


def test_other_values_keep_their_bytes() -> None:
    """Numbers, escapes and spaces inside other members go to the provider as the caller wrote them."""
    for body in (
        call(body=ODD.encode()).with_output_limit(7),
        call(body=ODD.encode()).with_usage_reported(ODD.encode()),
    ):
        for value in (b'[{"content":"\\u00e9 \\/ caf\\u00e9"}]', b"12345678901234567890123", b"1.50", b"1E5"):
            assert value in body


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_usage_is_asked_for_beside_other_options(options: Any, expected: Any) -> None:
    """``include_usage`` is set and whatever else the caller wanted of the stream stays."""
    body = {"model": "m", "stream": True, "stream_options": options}
    read = call(body=body)
    assert json.loads(read.with_usage_reported(read.body)) == {**body, "stream_options": expected}
    bare = b'{"stream":true}'
    assert json.loads(read.with_usage_reported(bare)) == {"stream": True, "stream_options": {"include_usage": True}}


def test_both_changes_go_together() -> None:
    """A body that was capped can still be asked for usage."""
    read = call(body={"model": "m", "stream": True, "max_tokens": 100})
    body = json.loads(read.with_usage_reported(read.with_output_limit(9)))
    assert body == {"model": "m", "stream": True, "max_tokens": 9, "stream_options": {"include_usage": True}}


def test_a_body_nested_too_deeply_for_the_caller_is_refused() -> None:
    """How deep is too deep depends on where we are called from; wherever that is, it is a refusal and no crash."""
    bodies = [b'{"input_":1,"messages":' + b"[" * depth + b"]" * depth + b"}" for depth in range(600, 1_000, 3)]
    readable = []
    for body in bodies:
        with contextlib.suppress(InvalidRequest):
            readable.append(call(body=body))

    def from_below(frames: int, read: Call) -> None:
        if frames:
            from_below(frames - 1, read)
            return
        assert read.input_ceiling() >= len(read.body)
        with contextlib.suppress(InvalidRequest):
            read.with_output_limit(5)

    assert readable
    for read in readable:
        from_below(60, read)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_ACTED_ON = {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "background", "deferred"}


@given(
    st.dictionaries(st.text(max_size=12).filter(lambda name: name not in _ACTED_ON), json_values, max_size=6),
    st.integers(1, 10_000),
)
def test_nothing_else_of_any_body_changes(members: dict[str, Any], limit: int) -> None:
    """Whatever other members a body has, they mean the same after the cap is set."""
    body = msgspec.json.encode(members)
    after = msgspec.json.decode(call(body=body).with_output_limit(limit))
    assert after == {**msgspec.json.decode(body), "max_completion_tokens": limit}
