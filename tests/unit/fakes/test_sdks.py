"""The official SDKs, used directly against both stand-ins, parse what they say."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types

from ownkey.demo.simulated_provider import PLATFORM_KEYS, SimulatedProvider
from tests.fakes.provider import FakeProvider

pytestmark = pytest.mark.anyio

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used; given to httpx so that it does not load the world's certificates for each request."""

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
QUESTION = "Please tell me the weather in Oslo. [[tool]]"


@dataclass(frozen=True)
class Place:
    """Where an SDK finds each company, and with which key."""

    base_url: Callable[[str], str]
    keys: Mapping[str, str]

    def openai_client(self) -> openai.OpenAI:
        client = openai.DefaultHttpxClient(verify=PLAIN)
        return openai.OpenAI(base_url=f"{self.base_url('openai')}/v1", api_key=self.keys["openai"], http_client=client)

    def async_openai_client(self) -> openai.AsyncOpenAI:
        client = openai.DefaultAsyncHttpxClient(verify=PLAIN)
        url = f"{self.base_url('openai')}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=self.keys["openai"], http_client=client)

    def anthropic_client(self) -> anthropic.Anthropic:
        client = anthropic.DefaultHttpxClient(verify=PLAIN)
        url, key = self.base_url("anthropic"), self.keys["anthropic"]
        return anthropic.Anthropic(base_url=url, api_key=key, http_client=client)

    def async_anthropic_client(self) -> anthropic.AsyncAnthropic:
        client = anthropic.DefaultAsyncHttpxClient(verify=PLAIN)
        url, key = self.base_url("anthropic"), self.keys["anthropic"]
        return anthropic.AsyncAnthropic(base_url=url, api_key=key, http_client=client)

    def gemini_client(self, version: str = "v1beta") -> genai.Client:
        plain = {"verify": PLAIN}
        options = types.HttpOptions(
            base_url=self.base_url("gemini"), api_version=version, client_args=plain, async_client_args=plain
        )
        return genai.Client(api_key=self.keys["gemini"], http_options=options)


@pytest.fixture(scope="module", params=["fake", "simulated"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The fake provider of the tests, and the simulated one of the demo."""
    if request.param == "fake":
        with FakeProvider() as fake:
            yield Place(lambda _slug: fake.url, {slug: f"key-of-{slug}" for slug in PLATFORM_KEYS})
    else:
        with SimulatedProvider(pause=0) as simulated:
            yield Place(simulated.base_url, PLATFORM_KEYS)


@pytest.fixture
async def async_openai(place: Place) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous client, closed after the test."""
    async with place.async_openai_client() as client:
        yield client


def test_openai_chat(place: Place) -> None:
    """A plain chat completion has text and a usage that adds up."""
    with place.openai_client() as client:
        reply = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello there, how are you?"}]
        )
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_openai_chat_stream_with_usage(place: Place) -> None:
    """A stream asked for usage gives it once, in an extra chunk without choices."""
    with place.openai_client() as client:
        chunks = list(
            client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "Hello"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    *spoken, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in spoken)
    texts = [chunk.choices[0].delta.content for chunk in spoken if chunk.choices[0].delta.content]
    assert last.usage.completion_tokens == len(texts)
    assert spoken[-1].choices[0].finish_reason == "stop"


def test_openai_chat_stream_without_usage(place: Place) -> None:
    """A stream that did not ask for usage carries none anywhere."""
    with place.openai_client() as client:
        chunks = list(
            client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], stream=True, max_tokens=3
            )
        )
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert sum(1 for chunk in chunks if chunk.choices[0].delta.content) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_chat_tools(async_openai: openai.AsyncOpenAI, stream: bool) -> None:
    """A tool call has arguments that fit the tool's schema, plain and streamed."""
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    async with (
        async_openai.chat.completions.stream(
            model="gpt-4o", messages=[{"role": "user", "content": QUESTION}], tools=[tool]
        )
        if stream
        else _Plain(async_openai, tool) as reply
    ):
        completion: Any = await reply.get_final_completion()
    call = completion.choices[0].message.tool_calls[0]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert call.function.arguments.startswith('{"city":')


class _Plain:
    """The same interface as a stream's for a plain reply."""

    def __init__(self, client: openai.AsyncOpenAI, tool: Any) -> None:
        self._client, self._tool = client, tool

    async def __aenter__(self) -> _Plain:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def get_final_completion(self) -> Any:
        return await self._client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": QUESTION}], tools=[self._tool]
        )


def test_openai_responses(place: Place) -> None:
    """A plain response has text and usage; one that hit its limit is incomplete."""
    with place.openai_client() as client:
        reply = client.responses.create(model="gpt-4.1", input="Hello there")
        cut = client.responses.create(model="gpt-4.1", input="Hello there", max_output_tokens=2)
    assert reply.output_text
    assert reply.status == "completed"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    assert cut.status == "incomplete"
    assert cut.usage is not None
    assert cut.usage.output_tokens == 2


def test_openai_responses_stream(place: Place) -> None:
    """A streamed response goes from created to completed, and the SDK's own accumulator agrees with it."""
    with place.openai_client() as client, client.responses.stream(model="gpt-4.1", input="Hello there") as stream:
        names = [event.type for event in stream]
        final = stream.get_final_response()
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == "response.completed"
    assert final.usage is not None
    assert final.usage.output_tokens == names.count("response.output_text.delta")


def test_openai_responses_tools(place: Place) -> None:
    """A streamed function call is put together by the SDK."""
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    with (
        place.openai_client() as client,
        client.responses.stream(model="gpt-4.1", input=QUESTION, tools=[tool]) as stream,
    ):
        final = stream.get_final_response()
    call = final.output[0]
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert call.arguments.startswith('{"city":')


async def test_openai_completions(async_openai: openai.AsyncOpenAI) -> None:
    """The older endpoint works plain and streamed."""
    reply = await async_openai.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="Once upon a time", max_tokens=4
    )
    stream = await async_openai.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    usages = [chunk.usage async for chunk in stream if chunk.usage]
    assert reply.usage is not None
    assert [reply.usage.completion_tokens, usages[-1].completion_tokens] == [4, 4]


async def test_openai_embeddings(async_openai: openai.AsyncOpenAI) -> None:
    """Embeddings arrive as floats although the SDK asks for base64."""
    reply = await async_openai.embeddings.create(model="text-embedding-3-small", input=["red apple", "blue sea"])
    assert len(reply.data) == 2
    assert sum(value * value for value in reply.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert reply.usage.total_tokens == 4


def test_openai_images(place: Place) -> None:
    """A picture is a real PNG and has usage."""
    with place.openai_client() as client:
        reply = client.images.generate(model="gpt-image-1", prompt="a red apple", n=2)
    assert reply.data is not None
    assert len(reply.data) == 2
    assert base64.b64decode(reply.data[0].b64_json or "").startswith(b"\x89PNG\r\n")
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 100


def test_models(place: Place) -> None:
    """Each SDK can list models."""
    with place.openai_client() as client:
        assert client.models.list().data
    with place.anthropic_client() as client:
        assert client.models.list().data
    gemini = place.gemini_client()
    assert list(gemini.models.list())
    gemini.close()


def test_anthropic_messages(place: Place) -> None:
    """A plain message has text, usage and a stop reason; a limit of two stops after two tokens."""
    with place.anthropic_client() as client:
        reply = client.messages.create(
            model="claude-sonnet-4-6", max_tokens=500, messages=[{"role": "user", "content": "Hello there"}]
        )
        cut = client.messages.create(
            model="claude-sonnet-4-6", max_tokens=2, messages=[{"role": "user", "content": "Hello there"}]
        )
        counted = client.messages.count_tokens(
            model="claude-sonnet-4-6", messages=[{"role": "user", "content": "Hello there"}]
        )
    assert reply.content[0].type == "text"
    assert reply.stop_reason == "end_turn"
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
    assert counted.input_tokens == reply.usage.input_tokens == 2


async def test_anthropic_stream(place: Place) -> None:
    """A streamed message is put together by the SDK; the last usage is the whole."""
    async with (
        place.async_anthropic_client() as client,
        client.messages.stream(
            model="claude-haiku-4-5", max_tokens=900, messages=[{"role": "user", "content": "Hello"}]
        ) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert final.usage.output_tokens == len(texts)
    assert final.stop_reason == "end_turn"


async def test_anthropic_tools(place: Place) -> None:
    """A tool call's input is an object, plain and streamed."""
    tool: Any = {"name": "get_weather", "description": "The weather.", "input_schema": WEATHER}
    question: Any = {"role": "user", "content": QUESTION}
    async with place.async_anthropic_client() as client:
        plain = await client.messages.create(model="claude-opus-4-6", max_tokens=99, messages=[question], tools=[tool])
        async with client.messages.stream(
            model="claude-opus-4-6", max_tokens=99, messages=[question], tools=[tool]
        ) as stream:
            streamed = await stream.get_final_message()
    for message in (plain, streamed):
        call = message.content[0]
        assert message.stop_reason == "tool_use"
        assert call.type == "tool_use"
        assert call.input == {"city": "Oslo", "days": call.input["days"]}


@pytest.mark.parametrize("version", ["v1beta", "v1"])
def test_gemini_content(place: Place, version: str) -> None:
    """Content has text and usage under both versions of the API."""
    client = place.gemini_client(version)
    reply = client.models.generate_content(model="gemini-2.5-flash", contents="Hello there")
    counted = client.models.count_tokens(model="gemini-2.5-flash", contents="Hello there")
    client.close()
    assert reply.text
    assert reply.usage_metadata is not None
    assert reply.usage_metadata.prompt_token_count == counted.total_tokens == 2
    assert reply.candidates is not None
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP


async def test_gemini_stream(place: Place) -> None:
    """A stream's last chunk has the whole usage and the reason it ended."""
    client = place.gemini_client()
    config = types.GenerateContentConfig(max_output_tokens=4)
    stream = await client.aio.models.generate_content_stream(
        model="gemini-2.5-flash", contents="Hello there", config=config
    )
    chunks = [chunk async for chunk in stream]
    await client.aio.aclose()
    client.close()
    usage = chunks[-1].usage_metadata
    assert usage is not None
    assert usage.candidates_token_count == 4 == sum(1 for chunk in chunks if chunk.text)
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_gemini_tools(place: Place) -> None:
    """A function call has arguments as an object, plain and streamed."""
    declaration = types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declaration])])
    client = place.gemini_client()
    plain = client.models.generate_content(model="gemini-2.5-pro", contents=QUESTION, config=config)
    chunks = list(client.models.generate_content_stream(model="gemini-2.5-pro", contents=QUESTION, config=config))
    client.close()
    calls = [call for chunk in [plain, *chunks] for call in chunk.function_calls or []]
    assert [call.name for call in calls] == ["get_weather", "get_weather"]
    assert all((call.args or {})["city"] == "Oslo" for call in calls)


def test_gemini_embeddings(place: Place) -> None:
    """Several texts are embedded in one request."""
    client = place.gemini_client()
    reply = client.models.embed_content(model="gemini-embedding-001", contents=["red apple", "blue sea"])
    client.close()
    assert reply.embeddings is not None
    assert len(reply.embeddings) == 2
    assert reply.embeddings[0].values


def test_gemini_array_stream(place: Place) -> None:
    """Without ``alt=sse`` a stream is a JSON array."""
    body = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}], "generationConfig": {"maxOutputTokens": 3}}
    url = f"{place.base_url('gemini')}/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    reply = httpx.post(url, json=body, headers={"x-goog-api-key": place.keys["gemini"]}, verify=PLAIN)
    assert reply.headers["content-type"].startswith("application/json")
    assert b"\n,\r\n{" in reply.content
    assert reply.json()[-1]["usageMetadata"]["candidatesTokenCount"] == 3
