"""Reading a request: the few fields we act on, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.call import LEAST_OUTPUT, read_call
from ownkey.providers.registry import find
from tests.unit.gateway.samples import call


@pytest.mark.parametrize(
    ("slug", "path", "body", "model", "stream", "limit", "choices"),
    [
        ("openai", "", {"model": "gpt-4o"}, "gpt-4o", False, None, 1),
        ("openai", "", {"model": "gpt-4o", "stream": True, "max_tokens": 5, "n": 3}, "gpt-4o", True, 5, 3),
        ("openai", "", {"max_tokens": 5, "max_completion_tokens": 9}, "", False, 9, 1),
        ("openai", "", {"model": None, "stream": None, "max_tokens": None, "n": None}, "", False, None, 1),
        ("openai", "/v1/completions", {"prompt": ["a", "b", "c"], "n": 2, "best_of": 4}, "", False, None, 12),
        ("openai", "/v1/completions", {"prompt": [1, 2, 3], "n": 2}, "", False, None, 2),
        ("openai", "/v1/completions", {"prompt": [[1], [2, 3]]}, "", False, None, 2),
        ("openai", "/v1/completions", {"prompt": "a"}, "", False, None, 1),
        ("openai", "/v1/responses", {"model": "o3", "max_output_tokens": 7, "stream": True}, "o3", True, 7, 1),
        ("openai", "/v1/images/generations", {"prompt": "x", "n": 4}, "", False, None, 4),
        ("openai", "/openai/deployments/mine/chat/completions", {"model": "x"}, "mine", False, None, 1),
        ("anthropic", "", {"model": "claude", "max_tokens": 4, "stream": True}, "claude", True, 4, 1),
        ("anthropic", "/v1/complete", {"model": "c", "max_tokens_to_sample": 6}, "c", False, 6, 1),
        ("gemini", "", {}, "gemini-2.5-flash", False, None, 1),
        ("gemini", "", {"generationConfig": {"maxOutputTokens": 8}}, "gemini-2.5-flash", False, 8, 1),
        ("gemini", "", {"generation_config": {"max_output_tokens": 8}}, "gemini-2.5-flash", False, 8, 1),
        ("gemini", "", {"generationConfig": {"candidateCount": 3}}, "gemini-2.5-flash", False, None, 3),
        ("gemini", "", {"model": "models/gemini-2.5-flash"}, "gemini-2.5-flash", False, None, 1),
        ("gemini", "", {"stream": True}, "gemini-2.5-flash", False, None, 1),
        ("gemini", "/v1beta/models/m:streamGenerateContent?alt=sse", {}, "m", True, None, 1),
        ("gemini", "/v1beta/tunedModels/t:generateContent", {}, "tunedModels/t", False, None, 1),
        ("gemini", "/v1beta/models/imagen-4:predict", {}, "imagen-4", False, None, 4),
        ("gemini", "/v1beta/models/imagen-4:predict", {"parameters": {"sampleCount": 2}}, "imagen-4", False, None, 2),
        ("gemini", "/v1beta/interactions", {"model": "m", "stream": True}, "m", True, None, 1),
        ("gemini", "/v1beta/interactions", {"agent": "deep-research"}, "deep-research", False, None, 1),
        ("gemini", "/v1beta/openai/chat/completions", {"model": "m", "max_tokens": 3}, "m", False, 3, 1),
    ],
)
def test_fields_are_found_where_each_format_has_them(
    slug: str, path: str, body: Any, model: str, stream: bool, limit: int | None, choices: int
) -> None:
    """Model, streaming, output limit and number of answers have one place in each kind of request."""
    read = call(slug, body, path)
    assert (read.model, read.stream, read.output_limit, read.choices) == (model, stream, limit, choices)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", ["5", True, False, 0, -1, 1.5, 5.0, 1e400, 10**9, 10_000_001, [], {}, [5]])
def test_an_absurd_limit_is_refused(field: str, value: Any) -> None:
    """An output limit is a whole number from 1 to ten million; anything else names the field at fault."""
    with pytest.raises(InvalidRequest) as refused:
        call(body=b'{"%b":%b}' % (field.encode(), json.dumps(value).replace("Infinity", "1e400").encode()))
    assert value == 1e400 or refused.value.detail["param"] == field


@pytest.mark.parametrize(
    ("slug", "path", "body"),
    [
        ("openai", "", {"n": 129}),
        ("openai", "", {"n": 0}),
        ("openai", "", {"n": "2"}),
        ("openai", "/v1/completions", {"best_of": 1000}),
        ("openai", "/v1/responses", {"max_output_tokens": "7"}),
        ("openai", "/v1/images/generations", {"n": -1}),
        ("anthropic", "", {"max_tokens": 10**12}),
        ("gemini", "", {"generationConfig": {"maxOutputTokens": "10"}}),
        ("gemini", "", {"generationConfig": {"candidateCount": 500}}),
        ("gemini", "", {"generationConfig": []}),
        ("gemini", "", {"generationConfig": {}, "generation_config": {"max_output_tokens": 9}}),
        ("gemini", "", {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}}),
        ("openai", "", {"stream": "true"}),
        ("openai", "", {"stream": 1}),
        ("openai", "", {"stream": True, "stream_options": "yes"}),
        ("openai", "", {"model": 5}),
        ("openai", "", {"model": ["gpt-4o"]}),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(slug: str, path: str, body: Any) -> None:
    """What we would have to guess about is not passed on."""
    with pytest.raises(InvalidRequest):
        call(slug, body, path)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../b", "a\\b", "a?b", "a#b", "%2e%2e%2fx", "a\r\nb", "a\x00b", "a\tb", "a//b", "m" * 257, "a\u2028b"],
)
def test_a_model_name_that_could_mean_another_path_is_refused(name: str) -> None:
    """A model's name is never dots, slashes twice, escapes, controls, or longer than 256 characters."""
    with pytest.raises(InvalidRequest) as refused:
        call(body={"model": name})
    assert refused.value.detail["param"] == "model"


@pytest.mark.parametrize("name", ["gpt-4o", "meta-llama/Llama-3.3-70B", "ft:gpt-4o:acme::x", "a b", "x" * 256, "模型"])
def test_real_model_names_pass(name: str) -> None:
    """Slashes, colons, dots and other scripts are part of names that exist."""
    assert call(body={"model": name}).model == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../v1/chat/completions",
        "/v1/models/%2e%2e/chat/completions",
        "/v1/models/%2E%2E%2fchat",
        "/v1/./models",
        "/v1//models",
        "/v1/models\\x",
        "/v1/models%5cx",
        "/v1/models%00",
        "/v1/models%0d%0ax",
        "/v1/models%252e",
        "/v1/models%3fx=1",
        "/v1/models%23x",
        "/v1/mod els",
        "/v1/modéls",
        "/v1/mod%C3%A9ls",
        "v1/models",
        "",
    ],
)
def test_an_ambiguous_path_is_refused(path: str) -> None:
    """A path that whoever handles it next could read as another one is not passed on."""
    with pytest.raises(InvalidRequest):
        read_call(find("openai"), "GET", path, "", [], b"")


def test_escapes_do_not_hide_what_a_path_is() -> None:
    """The endpoint and the model are those of the path with its escapes undone; the path itself stays as it came."""
    path = "/v1beta/models/gemini-2.5-flash%3AgenerateContent"
    read = read_call(find("gemini"), "POST", path, "", [], b"{}")
    assert (read.endpoint.kind, read.model, read.path) == ("generate", "gemini-2.5-flash", path)


def test_path_and_body_may_not_name_different_models() -> None:
    """One resolver: where the path names the model, a body that names another is refused."""
    with pytest.raises(InvalidRequest, match="other"):
        call("gemini", {"model": "models/other"})


@pytest.mark.parametrize(
    ("slug", "body"),
    [
        ("openai", '{"model":"a","model":"b"}'),
        ("openai", '{"max_tokens":1,"messages":[],"max_tokens":9000000}'),
        ("openai", '{"stream":true,"stream":false}'),
        ("openai", '{"n":1, "n" : 100}'),
        ("openai", '{"max_tokens":5,"max\\u005ftokens":9000000}'),
        ("openai", '{"n":5,"\\u006e":57}'),
        ("openai", '{"n":5,"\\u006E":5}'),
        ("openai", '{"max_tokens":5,"x":"\\"","max_tokens":57}'),
        ("anthropic", '{"max_tokens":1,"max_tokens":2}'),
        ("gemini", '{"generationConfig":{"maxOutputTokens":1},"generationConfig":{"maxOutputTokens":900000}}'),
        ("gemini", '{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":900000}}'),
        ("gemini", '{"generationConfig":{"maxOutputTokens":1,"maxOutput\\u0054okens":900000}}'),
    ],
)
def test_a_field_that_stands_there_twice_is_refused(slug: str, body: str) -> None:
    """Of two values we might read one and the provider the other, however the name is spelled."""
    with pytest.raises(InvalidRequest, match="more than once"):
        call(slug, body.encode())


@pytest.mark.parametrize(
    "body", ['{"options":{},"Options":{}}', '{"Model":"a","model":"b"}', '{"STREAM":1,"Stream":2}']
)
def test_upper_and_lower_case_are_one_name_to_ollama(body: str) -> None:
    """It takes a member's name in any case, and the last one."""
    with pytest.raises(InvalidRequest, match="more than once"):
        call("ollama", body.encode(), "/api/chat")


@pytest.mark.parametrize("slug", ["gemini", "vertex"])
@pytest.mark.parametrize(
    "query",
    [
        *(
            "fields=candidates",
            "alt=proto",
            "alt=sse&fields=candidates",
            "%66ields=candidates",
            "$fields=a",
            "callback=x",
        ),
        *("$alt=proto", "alt=json&alt=media", "ALT=proto", "alt=", "a=b;fields=c", "alt=jsonp"),
    ],
)
def test_a_partial_reply_is_not_asked_for(slug: str, query: str) -> None:
    """What leaves the usage out of Google's replies is refused, and named."""
    project = "/v1/projects/p/locations/l/publishers/google" if slug == "vertex" else "/v1beta"
    with pytest.raises(InvalidRequest, match="Leave out the parameter"):
        call(slug, {}, f"{project}/models/gemini-2.5-flash:generateContent?{query}")


@pytest.mark.parametrize(
    "query",
    ["alt=sse", "alt=json", "$alt=json;enum-encoding=int", "%24alt=json%3Benum-encoding=int", "prettyPrint=false"],
)
def test_parameters_that_leave_the_reply_whole_go_on(query: str) -> None:
    """Google's own clients send these."""
    assert call("gemini", {}, f"/v1beta/models/m:streamGenerateContent?{query}").query == query


def test_a_path_with_a_slash_at_its_end_is_the_same_path() -> None:
    """Most servers take it for that, so a free row must not be reached by it."""
    assert call(path="/v1/threads/t1/runs/").endpoint.deferred
    assert call(path="/v1/chat/completions/").endpoint.kind == "chat"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "a", "tools": [{"type": "function", "function": {"parameters": {"model": {"n": 1}, "stream": {}}}}]},
        {"model": "a", "messages": [{"role": "model", "content": '"model": "b", "n": 1'}], "n": 1},
        {"model": "\u00e9\u0041", "messages": [{"content": "A\u0000"}]},
        {"user": "a", "metadata": {"model": "b", "max_tokens": "c"}, "model": "a"},
    ],
)
def test_the_same_name_elsewhere_is_no_repetition(body: Any) -> None:
    """Only members of the object itself count: tools, texts and metadata may hold the same words."""
    assert call(body=json.dumps(body).encode()).model == body["model"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"model=gpt-4o", "not valid JSON"),
        (b'\xef\xbb\xbf{"model":"a"}', "not valid JSON"),
        (b'{"model":NaN}', "not valid JSON"),
        (b'{"model":"\xff"}', "not UTF-8"),
        (b'{"messages":"\xff"}', "not UTF-8"),
        (b'{"\xff":1}', "not UTF-8"),
        (b'{"x":"' + b"y" * 65_529 + "é".encode()[:1], "not UTF-8"),
        (b'{"model":"\\ud800"}', "not valid JSON"),
        (b'{"model":' + b"[" * 100_000, "nested too deeply"),
        (b'{"x":' + b"[" * 300_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_not_an_object_is_refused(body: bytes, said: str) -> None:
    """A generating endpoint takes a JSON object; the refusal says what is wrong, and nothing crashes."""
    with pytest.raises(InvalidRequest, match=said):
        call(body=body)


def test_a_compressed_body_is_refused() -> None:
    """We would have to guess what it says."""
    with pytest.raises(InvalidRequest, match="uncompressed"):
        call(content_encoding="gzip")


def test_two_content_types_are_refused() -> None:
    """They could make us and the provider read different bodies."""
    headers = [(b"content-type", b"application/json"), (b"content-type", b"multipart/form-data")]
    with pytest.raises(InvalidRequest, match="Content-Type"):
        read_call(find("openai"), "POST", "/v1/chat/completions", "", headers, b"{}")


def test_a_websocket_is_marked_refused() -> None:
    """Whatever path it is asked on, an upgrade is never relayed."""
    assert call(path="/v1/responses", method="GET", upgrade="WebSocket").endpoint.refused


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("alt=sse", "alt=sse"),
        ("key=secret", ""),
        ("key=secret&alt=sse", "alt=sse"),
        ("alt=sse&KEY=secret", "alt=sse"),
        ("alt=sse&%6bey=secret&pageSize=5", "alt=sse&pageSize=5"),
        ("key&x=1", "x=1"),
        ("pageToken=a%3D&monkey=1", "pageToken=a%3D&monkey=1"),
    ],
)
def test_a_key_in_the_query_goes_no_further(query: str, kept: str) -> None:
    """Every ``key`` parameter is dropped, however it is written; the rest stays byte for byte."""
    assert read_call(find("gemini"), "GET", "/v1beta/models", query, [], b"").query == kept


def test_a_free_call_is_not_looked_into() -> None:
    """What generates nothing may have any body."""
    read = read_call(find("openai"), "POST", "/v1/files", "", [], b"not json at all")
    assert (read.model, read.input_ceiling(), read.input_estimate(), read.output_maximum()) == ("", 0, 0, 0)


@pytest.mark.parametrize("body", [b"", b"text", b'{"model":"m","stream":true}', b'{"stream":"odd","model":[]}'])
def test_an_unknown_path_takes_any_body(body: bytes) -> None:
    """What members mean there is the provider's business, so nothing of it is refused; it is metered all the same."""
    read = read_call(find("openai"), "POST", "/v1/new/thing", "", [], body)
    assert read.endpoint.generates
    assert read.output_maximum() > 0
    assert read.input_estimate() > 0
    assert not read.can_limit


@pytest.mark.parametrize(
    ("slug", "path", "body"),
    [
        ("openai", "/v1/responses", {"background": True}),
        ("gemini", "/v1beta/interactions", {"agent": "a", "background": True}),
        ("xai", "/v1/chat/completions", {"deferred": True}),
    ],
)
def test_work_in_the_background_is_deferred(slug: str, path: str, body: Any) -> None:
    """A request whose answer comes later cannot be metered from its reply."""
    assert call(slug, body, path).endpoint.deferred
    assert not call(slug, dict.fromkeys(body, None), path).endpoint.deferred


@pytest.mark.parametrize(
    ("slug", "path", "body", "reports"),
    [
        ("openai", "", {"stream": True}, False),
        ("openai", "", {"stream": True, "stream_options": None}, False),
        ("openai", "", {"stream": True, "stream_options": {"include_usage": False}}, False),
        ("openai", "", {"stream": True, "stream_options": {"include_usage": True}}, True),
        ("openai", "", {"stream": False}, True),
        ("openai", "/v1/completions", {"stream": True}, False),
        ("openai", "/v1/responses", {"stream": True}, True),
        ("gemini", "/v1beta/openai/chat/completions", {"stream": True}, False),
        ("anthropic", "", {"stream": True}, True),
        ("mistral", "", {"stream": True}, True),
        ("groq", "", {"stream": True}, True),
    ],
)
def test_who_has_to_be_asked_for_usage(slug: str, path: str, body: Any, reports: bool) -> None:
    """Only a chat stream that did not ask needs our help, and not at providers that refuse to be asked."""
    assert call(slug, body, path).reports_usage is reports


def test_thinking_needs_room_before_it_answers() -> None:
    """An Anthropic call with a thinking budget is not worth admitting with less than that and one token."""
    thinking = {"type": "enabled", "budget_tokens": 3000}
    assert call("anthropic", {"max_tokens": 4000, "thinking": thinking}).least_output == 3001
    assert call("anthropic", {"max_tokens": 4000}).least_output == LEAST_OUTPUT


def test_headers_that_do_not_matter_are_passed_over() -> None:
    """An identity encoding, another upgrade and any other header change nothing."""
    read = call(content_encoding="identity", upgrade="h2c", accept="*/*", content_type="application/json")
    assert read.endpoint.kind == "chat"
    assert read.head.content_type == "application/json"


def test_a_generating_call_may_have_no_body_where_none_is_needed() -> None:
    """Work that is resumed, and forms that are still to come, are not refused for it."""
    assert call(body=b"", path="/v1/fine_tuning/jobs/j1/resume").endpoint.deferred
    assert call(body=b"", path="/v1/audio/transcriptions").model == ""


def test_a_long_path_is_read_like_any_other() -> None:
    """Beyond what is worth remembering the answer is the same."""
    name = "m" * 600
    assert not call(path=f"/v1/models/{name}", method="GET", body=b"").endpoint.generates
    with pytest.raises(InvalidRequest):
        call("gemini", {}, f"/v1beta/models/{name}:generateContent")


def test_an_empty_list_of_prompts_is_one() -> None:
    """There is at least one answer to reserve for."""
    assert call(body={"prompt": []}, path="/v1/completions").choices == 1


def test_a_character_may_lie_anywhere() -> None:
    """A large body is checked in pieces, and a character at their border is whole."""
    for shift in range(4):
        body = b'{"x":"' + b"y" * (65_526 + shift) + "🎈世é".encode() * 3 + b'"}'
        assert call(body=body).endpoint.kind == "chat"


def test_a_list_of_models_may_write_as_much_as_any() -> None:
    """Whichever of them answers: a small first one says nothing of the others."""
    alone = {"model": "gpt-3.5-turbo", "messages": []}
    assert call("openrouter", alone, "/api/v1/chat/completions").output_maximum() == 4_096
    listed = {**alone, "models": ["openai/gpt-5"]}
    assert call("openrouter", listed, "/api/v1/chat/completions").output_maximum() >= 128_000
