"""The official SDKs, unchanged, pointed at us: text, streams, tools, embeddings, images, typed errors, cancelling.

All of it directly, behind nginx and behind HAProxy, set up as README.md says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from tests.fakes.provider import FakeProvider
from tests.fixtures.missing import leave_out
from tests.gateway import front_ends
from tests.gateway.conftest import PLANS
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for

OWN_KEY = "sk-own-key-of-the-customer-0123456789"
HELLO: Any = [{"role": "user", "content": "Hello"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module", params=["directly", *front_ends.FRONT_ENDS])
def service(
    request: pytest.FixtureRequest, oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service, and the address at which a front end leads to it."""
    folder: Path = tmp_path_factory.mktemp("service")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    if request.param != "directly" and not front_ends.program(request.param):
        leave_out(request.config, "--require-front-ends", f"no {request.param} here: tests behind it left out")
    with running(settings_for(oracle, data_dir=folder, plans_file=plans), oracle) as service:
        if request.param == "directly":
            yield service
        else:
            with front_ends.before(request.param, service.url, folder) as service.url:
                yield service


@pytest.fixture
def chatgpt(customer: Customer) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, with our address and our token."""
    with openai.OpenAI(base_url=f"{customer.service.url}/openai/v1", api_key=customer.token, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(customer: Customer) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, with our address and our token."""
    with anthropic.Anthropic(
        base_url=f"{customer.service.url}/anthropic", api_key=customer.token, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def gemini(customer: Customer) -> Iterator[genai.Client]:
    """Google's SDK, with our address and our token."""
    with genai_client(customer) as client:
        yield client


def genai_client(customer: Customer) -> genai.Client:
    """Google's SDK for this customer."""
    options = types.HttpOptions(base_url=f"{customer.service.url}/gemini")
    return genai.Client(api_key=customer.token, http_options=options)


def counted(customer: Customer, provider: FakeProvider) -> None:
    """Our one event is what the provider counted, the allowance moved by it, and the platform's key was used."""
    (event,) = customer.settled(1)
    received = provider.last
    assert received.key == PLATFORM_KEY
    assert (event.input_tokens, event.output_tokens) == (received.tokens_in, received.tokens_out)
    assert not event.estimated
    assert event.billed_to == "allowance"
    assert customer.allowance().used == event.charged_tokens == received.tokens_in + received.tokens_out
    assert customer.allowance().reserved == 0
    customer.check_ledger()


def test_openai_chat(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """A chat answers and is counted exactly."""
    provider.script(tokens=20)
    reply = chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert reply.choices[0].message.content
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 20
    counted(customer, provider)


def test_openai_chat_stream(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """A stream that did not ask for usage gets none, and is counted exactly all the same."""
    provider.script(tokens=20)
    with chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert all(chunk.choices for chunk in chunks)
    assert provider.last.json["stream_options"] == {"include_usage": True}
    counted(customer, provider)


def test_openai_chat_stream_with_usage(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """A stream that asked for usage gets its usage chunk."""
    with chatgpt.chat.completions.create(
        model="gpt-4o-mini",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].usage is not None
    counted(customer, provider)


def test_openai_tools(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """Tools are called through us as they are directly."""
    provider.script(tool=True)
    reply = chatgpt.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Weather in Paris?"}],
        tools=[{"type": "function", "function": TOOL}],
    )
    calls = reply.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    counted(customer, provider)


def test_openai_responses(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """The Responses API answers and is counted exactly."""
    assert chatgpt.responses.create(model="gpt-4o-mini", input="Hello").output_text
    counted(customer, provider)


def test_openai_responses_stream(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """A Responses stream ends with its completed event and is counted exactly."""
    with chatgpt.responses.create(model="gpt-4o-mini", input="Hello", stream=True) as stream:
        events = [event.type for event in stream]
    assert events[-1] == "response.completed"
    counted(customer, provider)


def test_openai_embeddings(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """Embeddings cost their input."""
    reply = chatgpt.embeddings.create(model="text-embedding-3-small", input=["Hello", "world"])
    assert len(reply.data) == 2
    counted(customer, provider)


def test_openai_images(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """Images are counted in the tokens the provider reports."""
    reply = chatgpt.images.generate(model="gpt-image-1", prompt="A bridge")
    assert reply.data
    counted(customer, provider)


def test_openai_models_are_free(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """Listing models is relayed and costs nothing."""
    assert list(chatgpt.models.list())
    (event,) = customer.settled(1)
    assert (event.charged_tokens, customer.allowance().used) == (0, 0)


def test_anthropic_messages(claude: anthropic.Anthropic, customer: Customer, provider: FakeProvider) -> None:
    """A message answers and is counted exactly, cached input included."""
    provider.script(tokens=20, cached=7)
    reply = claude.messages.create(
        model="claude-sonnet-4-6", max_tokens=100, messages=[{"role": "user", "content": "Hello there, and again"}]
    )
    assert reply.content[0].type == "text"
    counted(customer, provider)
    assert customer.events()[0].cached_input_tokens == reply.usage.cache_read_input_tokens


def test_anthropic_stream(claude: anthropic.Anthropic, customer: Customer, provider: FakeProvider) -> None:
    """A stream's cumulative usage is taken last, never summed."""
    provider.script(tokens=30)
    with claude.messages.stream(model="claude-sonnet-4-6", max_tokens=100, messages=HELLO) as stream:
        assert stream.get_final_message().usage.output_tokens == 30
    counted(customer, provider)


def test_anthropic_tools_and_counting(claude: anthropic.Anthropic, customer: Customer, provider: FakeProvider) -> None:
    """Tools are called through us; counting tokens is free."""
    tool: Any = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}
    question: Any = [{"role": "user", "content": "Weather in Paris?"}]
    count = claude.messages.count_tokens(model="claude-sonnet-4-6", messages=question)
    assert count.input_tokens > 0
    provider.script(tool=True)
    reply = claude.messages.create(
        model="claude-sonnet-4-6",
        max_tokens=100,
        messages=question,
        tools=[tool],
    )
    assert any(block.type == "tool_use" for block in reply.content)
    free, paid = customer.settled(2)
    assert (free.charged_tokens, paid.output_tokens) == (0, provider.last.tokens_out)


def test_gemini_content(gemini: genai.Client, customer: Customer, provider: FakeProvider) -> None:
    """Content is generated and counted exactly, thoughts included."""
    provider.script(tokens=20, reasoning=9)
    reply = gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    assert reply.text
    counted(customer, provider)
    assert customer.events()[0].reasoning_tokens == 9


def test_gemini_stream(gemini: genai.Client, customer: Customer, provider: FakeProvider) -> None:
    """Of the usage in every chunk the last counts."""
    provider.script(tokens=25)
    chunks = list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello"))
    assert "".join(chunk.text or "" for chunk in chunks)
    counted(customer, provider)


def test_gemini_tools_and_embeddings(gemini: genai.Client, customer: Customer, provider: FakeProvider) -> None:
    """Function calls and embeddings work through us."""
    provider.script(tool=True)
    declaration = types.FunctionDeclaration(
        name="get_weather", description="The weather of a city.", parameters_json_schema=TOOL["parameters"]
    )
    reply = gemini.models.generate_content(
        model="gemini-2.5-flash",
        contents="Weather in Paris?",
        config=types.GenerateContentConfig(
            tools=[types.Tool(function_declarations=[declaration])],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        ),
    )
    assert reply.function_calls
    embedded = gemini.models.embed_content(model="gemini-embedding-001", contents="Hello")
    assert embedded.embeddings
    customer.settled(2)
    customer.check_ledger()


@pytest.mark.anyio
async def test_the_asynchronous_clients(customer: Customer, provider: FakeProvider) -> None:
    """All three SDKs' asynchronous clients work, plain and streaming."""
    url = customer.service.url
    async with openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key=customer.token) as chatgpt:
        await chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
        stream: Any = await chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)
        assert [chunk async for chunk in stream]
    async with anthropic.AsyncAnthropic(base_url=f"{url}/anthropic", api_key=customer.token) as claude:
        await claude.messages.create(model="claude-sonnet-4-6", max_tokens=50, messages=HELLO)
        async with claude.messages.stream(model="claude-sonnet-4-6", max_tokens=50, messages=HELLO) as reply:
            assert await reply.get_final_text()
    gemini = genai_client(customer).aio
    await gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    async for chunk in await gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello"):
        assert chunk.candidates
    await gemini.aclose()
    events = customer.settled(6)
    assert provider.totals() == (sum(e.input_tokens for e in events), sum(e.output_tokens for e in events))
    customer.check_ledger()


def test_own_key_serves_without_limit(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """With an own key the provider gets that key, the allowance does not move, and the reply says who pays."""
    customer.connect("openai", OWN_KEY)
    reply = chatgpt.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=HELLO)
    assert reply.headers["x-ownkey-billed-to"] == "own_key"
    assert "x-ownkey-allowance-remaining" not in reply.headers
    assert provider.last.key == OWN_KEY
    (event,) = customer.settled(1)
    assert (event.billed_to, event.charged_tokens, event.output_tokens) == ("own_key", 0, provider.last.tokens_out)
    assert customer.allowance().used == 0


def test_replacing_and_removing_a_key(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """The next call after a replacement uses the new key; after removal it is on the allowance."""

    def key_of_next_call() -> str:
        chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
        return provider.last.key

    customer.connect("openai", OWN_KEY)
    assert key_of_next_call() == OWN_KEY
    customer.connect("openai", OWN_KEY + "-second")
    assert key_of_next_call() == OWN_KEY + "-second"
    customer.disconnect("openai")
    assert key_of_next_call() == PLATFORM_KEY
    assert [event.billed_to for event in customer.settled(3)] == ["own_key", "own_key", "allowance"]


@pytest.fixture(scope="module")
def poor(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose plan has no tokens at all."""
    folder = tmp_path_factory.mktemp("poor")
    plans = folder / "plans.toml"
    plans.write_text('[plans.none]\nname = "None"\nmonthly_tokens = 0\napi_access = true\n')
    with running(settings_for(oracle, data_dir=folder, plans_file=plans), oracle) as service:
        yield service


def test_a_spent_allowance_in_every_sdk(poor: Service, provider: FakeProvider) -> None:
    """429 in each SDK's own exception, with our code, not retried, and the provider is not asked."""
    customer = new_customer(poor)
    chatgpt = openai.OpenAI(base_url=f"{poor.url}/openai/v1", api_key=customer.token)
    with chatgpt, pytest.raises(openai.RateLimitError) as of_openai:
        chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert of_openai.value.code == "allowance_exhausted"
    assert of_openai.value.type == "insufficient_quota"
    claude = anthropic.Anthropic(base_url=f"{poor.url}/anthropic", api_key=customer.token)
    with claude, pytest.raises(anthropic.RateLimitError) as of_anthropic:
        claude.messages.create(model="claude-sonnet-4-6", max_tokens=10, messages=HELLO)
    body = of_anthropic.value.body
    assert isinstance(body, dict)
    assert body["error"]["code"] == "allowance_exhausted"
    assert "x-should-retry" in of_anthropic.value.response.headers
    with genai_client(customer) as gemini, pytest.raises(genai_errors.ClientError) as of_gemini:
        gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    assert of_gemini.value.code == 429
    assert "allowance_exhausted" in str(of_gemini.value.details)
    assert provider.requests == []
    assert customer.events() == []


def test_a_bad_token_in_every_sdk(service: Service, provider: FakeProvider) -> None:
    """401 in each SDK's own exception; the provider is not asked."""
    token = "ownkey_" + "x" * 40
    chatgpt = openai.OpenAI(base_url=f"{service.url}/openai/v1", api_key=token)
    with chatgpt, pytest.raises(openai.AuthenticationError) as of_openai:
        chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert of_openai.value.code == "not_authenticated"
    claude = anthropic.Anthropic(base_url=f"{service.url}/anthropic", api_key=token)
    with claude, pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model="claude-sonnet-4-6", max_tokens=10, messages=HELLO)
    gemini = genai.Client(api_key=token, http_options=types.HttpOptions(base_url=f"{service.url}/gemini"))
    with gemini, pytest.raises(genai_errors.ClientError) as of_gemini:
        gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    assert of_gemini.value.code == 401
    assert provider.requests == []


def test_a_refused_own_key_in_every_sdk(customer: Customer, provider: FakeProvider) -> None:
    """403 naming the provider, the key redacted; the platform's key is never reached for, nothing is charged."""
    for name in ("openai", "anthropic", "gemini"):
        customer.connect(name, OWN_KEY)
    provider.accept({PLATFORM_KEY})
    chatgpt = openai.OpenAI(base_url=f"{customer.service.url}/openai/v1", api_key=customer.token)
    with chatgpt, pytest.raises(openai.PermissionDeniedError) as of_openai:
        chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert of_openai.value.code == "provider_key_rejected"
    assert "OpenAI" in of_openai.value.message
    claude = anthropic.Anthropic(base_url=f"{customer.service.url}/anthropic", api_key=customer.token)
    with claude, pytest.raises(anthropic.PermissionDeniedError) as of_anthropic:
        claude.messages.create(model="claude-sonnet-4-6", max_tokens=10, messages=HELLO)
    with genai_client(customer) as gemini, pytest.raises(genai_errors.ClientError) as of_gemini:
        gemini.models.generate_content(model="gemini-2.5-flash", contents="Hello")
    assert of_gemini.value.code == 403
    for error in (of_openai, of_anthropic, of_gemini):
        assert OWN_KEY not in str(error.value)
    assert {request.key for request in provider.requests} == {OWN_KEY}
    assert [(e.charged_tokens, e.outcome) for e in customer.settled(3)] == [(0, "refused")] * 3
    assert customer.allowance().used == 0


def test_cancelling_in_mid_stream(chatgpt: openai.OpenAI, customer: Customer, provider: FakeProvider) -> None:
    """When the client hangs up, the provider's connection is closed and what was delivered is charged."""
    provider.script(tokens=10_000, pause=0.005)
    with chatgpt.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True) as stream:
        delivered = sum(bool(chunk.choices[0].delta.content) for chunk, _ in zip(stream, range(30), strict=False))
    provider.wait(lambda p: p.last.closed_at is not None, timeout=1.0)
    (event,) = customer.settled(1)
    assert event.outcome == "cancelled"
    assert event.estimated
    assert delivered <= event.output_tokens <= delivered + 256
    assert customer.allowance().reserved == 0
    customer.check_ledger()
