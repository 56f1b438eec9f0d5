"""The demo's provider answers as the real ones do: keys, states, errors, tools, limits and pace."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ownkey.credentials import Secret
from ownkey.demo.simulated import model, pictures, schemas
from ownkey.demo.simulated_provider import PLATFORM_KEYS, SimulatedProvider
from ownkey.providers.health import Health
from ownkey.providers.key_check import check
from ownkey.providers.registry import PROVIDERS

pytestmark = pytest.mark.anyio

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used; given to httpx so that it does not load the world's certificates for each request."""


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    """The provider, in no hurry to look human."""
    with SimulatedProvider(pause=0) as one:
        yield one


def chat(text: str = "Hello there", **more: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def post(provider: SimulatedProvider, path: str, body: Any, slug: str = "openai", **headers: str) -> httpx.Response:
    """One request with the platform's key."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if slug == "anthropic":
        named = {"anthropic-version": "2023-06-01", **named}
    sent = {"authorization": f"Bearer {PLATFORM_KEYS[slug]}", **named}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(provider.base_url(slug) + path, content=content, headers=sent, timeout=5, verify=PLAIN)


KEYS = {**PLATFORM_KEYS, **dict.fromkeys(PROVIDERS.keys() - PLATFORM_KEYS.keys(), "demo-key")}


# Whoever has a service account gets an access token first, which is not a company's business.
CHECKED = [slug for slug, row in PROVIDERS.items() if row.credential == "key"]


@pytest.mark.parametrize("slug", CHECKED)
async def test_a_demo_key_is_good(provider: SimulatedProvider, slug: str) -> None:
    """Our own key check finds every company's demo key good, at the path it asks the real company."""
    result = await check(PROVIDERS[slug], provider.base_url(slug), Secret(KEYS[slug]))
    assert result.health in (Health.ACTIVE, PROVIDERS[slug].check.verdicts.get(200)), result.said


@pytest.mark.parametrize("slug", CHECKED)
async def test_any_other_key_is_bad(provider: SimulatedProvider, slug: str) -> None:
    """A key that does not begin as demo keys do is rejected as that company rejects one, and not shown."""
    result = await check(PROVIDERS[slug], provider.base_url(slug), Secret("some-real-looking-key-0123456789"))
    assert result.health is Health.REJECTED
    assert "0123456" not in result.said


@pytest.mark.parametrize("slug", PLATFORM_KEYS)
async def test_states(provider: SimulatedProvider, slug: str) -> None:
    """A word in a key asks for a state, and our key check reads it as meant."""
    row, base_url, key = PROVIDERS[slug], provider.base_url(slug), PLATFORM_KEYS[slug]
    found = {
        word: (await check(row, base_url, Secret(f"{key}-{word}"))).health for word in ("nocredit", "limited", "slow")
    }
    limited = row.check.verdicts.get(403, Health.LIMITED)
    assert found == {"nocredit": Health.OUT_OF_CREDIT, "limited": limited, "slow": Health.LIMITED}


def test_slow_says_when_to_come_back(provider: SimulatedProvider) -> None:
    """Too many requests come with Retry-After."""
    for slug, path in (("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")):
        reply = post(provider, path, chat(), slug, authorization=f"Bearer {PLATFORM_KEYS[slug]}-slow")
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")


@pytest.mark.parametrize(
    ("key", "path", "said"),
    [
        ("sk-demo-1", "/v1/chat/completions", "chat.completion"),
        ("gsk_demo1", "/openai/v1/chat/completions", "x_groq"),
        ("sk-or-demo-1", "/api/v1/chat/completions", "chat.completion"),
        ("demo-1", "/v1/chat/completions", '"usage":{'),
        ("sk-demo-1", "/chat/completions", "chat.completion"),
    ],
)
def test_companies_at_one_address(provider: SimulatedProvider, key: str, path: str, said: str) -> None:
    """Without a mount, path and key tell which company is meant; Groq and Mistral report usage unasked."""
    models = {"gsk": "llama-3.3-70b-versatile", "sk-or": "openai/gpt-4o-mini", "demo": "mistral-small-latest"}
    name = next((one for start, one in models.items() if key.startswith(start)), "gpt-4o")
    body = chat(stream=True) | {"model": "deepseek-chat" if path.startswith("/chat") else name}
    reply = httpx.post(provider.address + path, json=body, headers={"authorization": f"Bearer {key}"}, verify=PLAIN)
    assert reply.status_code == 200
    assert said in reply.text


def test_models_at_one_address(provider: SimulatedProvider) -> None:
    """``/v1/models`` is three companies' path; the kind of credential tells whose."""
    version = {"anthropic-version": "2023-06-01"}
    for headers, member in (
        ({"authorization": "Bearer sk-demo-1"}, "object"),
        ({"x-api-key": "sk-ant-demo-1", **version}, "has_more"),
        ({"x-goog-api-key": "AIzaDemo1"}, "models"),
    ):
        assert member in httpx.get(f"{provider.address}/v1/models", headers=headers, verify=PLAIN).json()


GEMINI = "/v1beta/models/gemini-2.5-pro:generateContent"


@pytest.mark.parametrize(
    ("slug", "path", "body", "status", "said"),
    [
        ("openai", "/v1/chat/completions", b"{", 400, "parse the JSON body"),
        ("openai", "/v1/chat/completions", [1], 400, "expected an object"),
        ("openai", "/v1/chat/completions", {"model": "gpt-4o"}, 400, "missing_required_parameter"),
        ("openai", "/v1/chat/completions", chat(tools=[7]), 400, "documented shape"),
        ("openai", "/v1/chat/completions", chat(max_tokens="5"), 400, "invalid_type"),
        ("openai", "/v1/chat/completions", chat(max_tokens=0), 400, "integer_below_min_value"),
        ("openai", "/v1/chat/completions", chat(n=129), 400, "integer_above_max_value"),
        ("openai", "/v1/chat/completions", chat(stream_options={"include_usage": True}), 400, "only allowed when"),
        ("openai", "/v1/chat/completions", {**chat(), "model": "parrot-1"}, 404, "model_not_found"),
        ("openai", "/v1/parrots", chat(), 404, "Invalid URL"),
        ("anthropic", "/v1/messages", {**chat(), "model": "claude-opus-4-6"}, 400, "max_tokens: Field required"),
        ("anthropic", "/v1/messages", chat(max_tokens=5), 404, "not_found_error"),
        ("anthropic", "/v1/messages", b"", 400, "invalid_request_error"),
        ("gemini", GEMINI, {}, 400, "contents is not specified"),
        ("gemini", GEMINI.replace("gemini-2.5-pro", "parrot"), {}, 404, "is not found for API version v1beta"),
        ("gemini", GEMINI, b"[]", 400, "INVALID_ARGUMENT"),
    ],
)
def test_errors(provider: SimulatedProvider, slug: str, path: str, body: Any, status: int, said: str) -> None:
    """What is wrong with a request is said in the company's own shape."""
    reply = post(provider, path, body, slug)
    assert reply.status_code == status
    assert said in reply.text
    members = {"openai": {"param", "type"}, "anthropic": {"type"}, "gemini": {"status"}}[slug]
    assert members | {"message"} <= reply.json()["error"].keys()


def test_anthropic_wants_a_version(provider: SimulatedProvider) -> None:
    """Without ``anthropic-version`` Anthropic refuses."""
    reply = post(provider, "/v1/messages", chat(max_tokens=5), "anthropic", anthropic_version="")
    assert (reply.status_code, "anthropic-version" in reply.text) == (400, True)


def test_a_conversation_with_a_tool(provider: SimulatedProvider) -> None:
    """After the tool's result the model answers with it instead of calling again."""
    tool = {"type": "function", "function": {"name": "getWeather", "parameters": {"type": "object", "properties": {}}}}
    asked = chat("What is the weather?", tools=[tool])
    message = post(provider, "/v1/chat/completions", asked).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Sunny, 21 degrees"}
    asked["messages"] += [message, result]
    assert (
        "Sunny, 21 degrees" in post(provider, "/v1/chat/completions", asked).json()["choices"][0]["message"]["content"]
    )


def test_tool_choice(provider: SimulatedProvider) -> None:
    """A tool can be forbidden, forced, or chosen by name."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "send_mail")]

    def called(choice: Any) -> list[str]:
        body = chat("What is the weather?", tools=tools, tool_choice=choice)
        message = post(provider, "/v1/chat/completions", body).json()["choices"][0]["message"]
        return [call["function"]["name"] for call in message.get("tool_calls", [])]

    assert called("none") == []
    assert called("auto") == ["get_weather"]
    assert called({"type": "function", "function": {"name": "send_mail"}}) == ["send_mail"]


def test_structured_answers(provider: SimulatedProvider) -> None:
    """An answer for which a schema is given is JSON that fits it."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    said = post(provider, "/v1/chat/completions", chat("Who is Ada, aged 36?", response_format=wanted)).json()
    assert json.loads(said["choices"][0]["message"]["content"]) == {"name": "Ada", "age": 36}


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_limit_and_choices(provider: SimulatedProvider, choices: int, stream: bool) -> None:
    """The output limit holds for each choice, and usage counts them all."""
    body = chat(n=choices, max_completion_tokens=5, stream=stream)
    reply = post(
        provider, "/v1/chat/completions", body | ({"stream_options": {"include_usage": True}} if stream else {})
    )
    usage = json.loads(reply.text.splitlines()[-4].removeprefix("data: "))["usage"] if stream else reply.json()["usage"]
    assert usage["completion_tokens"] == 5 * choices
    assert reply.text.count('"finish_reason":"length"') == choices


def test_gemini_candidates_and_pictures(provider: SimulatedProvider) -> None:
    """Candidates are counted; a picture model draws if the limit has room for a picture."""
    path = "/v1beta/models/gemini-2.5-flash-image:generateContent"
    body = {
        "contents": {"parts": [{"text": "an apple"}]},
        "generation_config": {"candidate_count": 2, "max_output_tokens": 9},
    }
    small = post(provider, path, body, "gemini").json()
    assert (len(small["candidates"]), small["usageMetadata"]["candidatesTokenCount"]) == (2, 18)
    body["generation_config"] = {}
    drawn = post(provider, path, body, "gemini").json()
    assert drawn["candidates"][0]["content"]["parts"][-1]["inlineData"]["mimeType"] == "image/png"
    assert drawn["usageMetadata"]["candidatesTokenCount"] > 1290


def test_answers_are_useful_and_honest(provider: SimulatedProvider) -> None:
    """An answer repeats the question, says that it is simulated, and is the same each time."""
    first, second = (post(provider, "/v1/chat/completions", chat("How do volcanoes erupt?")).json() for _ in range(2))
    text = first["choices"][0]["message"]["content"]
    assert "How do volcanoes erupt?" in text
    assert "simulated model" in text
    assert "\n- " in text
    assert text == second["choices"][0]["message"]["content"]


def test_a_long_answer_on_demand(provider: SimulatedProvider) -> None:
    """Asking for so many words gives about as many."""
    said = post(provider, "/v1/chat/completions", chat("Write 300 words on tea")).json()
    assert len(said["choices"][0]["message"]["content"].split()) == pytest.approx(300, rel=0.2)


def test_human_pace() -> None:
    """A stream takes its time for each token; a plain reply at most a second."""
    with SimulatedProvider(pause=0.01) as provider:
        begun = time.monotonic()
        post(provider, "/v1/chat/completions", chat(stream=True, max_tokens=20))
        assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("text", ["", "  ", "Hello, world!  ", "日本語のテキスト 🙂", "x" * 30, "a\n\nb\t1.5\n"])
def test_the_rule_of_tokens(text: str) -> None:
    """Tokens joined give the text again; there are never more than bytes."""
    found = model.tokens(text)
    assert "".join(found) == (text if text.strip() else "")
    assert len(found) == model.count(text) <= len(text.encode())
    assert all(len(token.strip()) <= 12 for token in found)


def test_input_is_everything_the_model_reads() -> None:
    """Texts, instructions, tools and attachments count; roles and ids do not."""
    said = [{"role": "user", "id": "msg_1", "content": [{"type": "text", "text": "one two"}, {"type": "image_url"}]}]
    assert model.count_input(said) == 2 + model.ATTACHMENT_TOKENS
    assert model.count_input(said, "be kind") == 4 + model.ATTACHMENT_TOKENS
    assert model.count_input("one", tools=[{"name": "f"}]) == 1 + model.count('[{"name":"f"}]')
    assert model.count_input([]) == 1


def test_examples_fit_their_schema() -> None:
    """References, alternatives, enums, formats and Gemini's upper-case types are understood; recursion ends."""
    schema = {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "at": {"format": "date"}}}
        },
        "properties": {
            "unit": {"enum": ["C", "F"]},
            "city": {"type": "STRING"},
            "days": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "sure": {"type": ["null", "boolean"]},
            "node": {"$ref": "#/$defs/node"},
        },
        "required": ["unit", "city", "days", "tags", "sure", "node"],
    }
    value: Any = schemas.example(schema, "The weather in Paris for 3 days")
    assert value["node"]["at"] == "2026-01-15"
    value.pop("node")
    assert value == {"unit": "C", "city": "Paris", "days": 3, "tags": ["Paris"], "sure": True}


def test_embeddings_know_similar_from_different() -> None:
    """Texts that share words lie closer than texts that share none."""
    tea, more_tea, stone = (model.embedding(text, 256) for text in ("green tea", "cold green tea", "grey stone wall"))

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(tea, tea) == pytest.approx(1, abs=1e-3)
    assert near(tea, more_tea) > 0.5 > abs(near(tea, stone))


def test_pictures_are_small_and_differ() -> None:
    """A prompt always gives the same picture, another prompt another one."""
    assert pictures.picture("a") == pictures.picture("a") != pictures.picture("b")
    assert len(pictures.picture("a")) < 60_000


def test_a_taken_port() -> None:
    """A port that is taken is an error at once, in the thread that asked."""
    with SimulatedProvider(pause=0) as one, pytest.raises(OSError, match="in use"):
        SimulatedProvider(port=int(one.address.rpartition(":")[2])).start()
