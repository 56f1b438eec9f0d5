"""Asking a provider about a key: what the answers mean, and that the key goes nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ownkey.credentials import Secret
from ownkey.providers.health import Health
from ownkey.providers.key_check import check, judge
from ownkey.providers.registry import PROVIDERS, find

pytestmark = pytest.mark.anyio

KEY = Secret("sk-test-0123456789abcdef0123456789")


@pytest.mark.parametrize(
    ("slug", "status", "body", "health"),
    [
        ("openai", 200, b'{"data":[]}', Health.ACTIVE),
        ("openai", 401, b'{"error":{"code":"invalid_api_key"}}', Health.REJECTED),
        ("openai", 403, b"{}", Health.UNVERIFIED),
        (
            "openai",
            401,
            b'{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: x.read."}}',
            Health.UNVERIFIED,
        ),
        ("openai", 429, b'{"error":{"code":"insufficient_quota"}}', Health.OUT_OF_CREDIT),
        ("openai", 429, b'{"error":{"code":"rate_limit_exceeded"}}', Health.LIMITED),
        ("openai", 500, b"", Health.UNREACHABLE),
        ("openai", 302, b"", Health.UNVERIFIED),
        ("anthropic", 200, b"{}", Health.ACTIVE),
        ("anthropic", 401, b"{}", Health.REJECTED),
        ("anthropic", 404, b"{}", Health.REJECTED),
        ("anthropic", 400, b"{}", Health.UNVERIFIED),
        ("anthropic", 400, b'{"error":{"message":"Your credit balance is too low"}}', Health.OUT_OF_CREDIT),
        ("gemini", 400, b'{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}', Health.REJECTED),
        ("gemini", 401, b"{}", Health.REJECTED),
        ("gemini", 403, b"{}", Health.LIMITED),
        ("deepseek", 200, b'{"is_available":true}', Health.ACTIVE),
        ("deepseek", 200, b'{"is_available":false}', Health.OUT_OF_CREDIT),
        ("openrouter", 200, b'{"data":{"limit_remaining":null}}', Health.ACTIVE),
        ("openrouter", 200, b'{"data":{"limit_remaining":0}}', Health.OUT_OF_CREDIT),
        ("openrouter", 200, b"not json", Health.ACTIVE),
        ("xai", 400, b"{}", Health.REJECTED),
        ("together", 403, b"{}", Health.UNVERIFIED),
        ("nvidia", 200, b"{}", Health.UNVERIFIED),
        ("mistral", 402, b"{}", Health.OUT_OF_CREDIT),
        ("mistral", 404, b"{}", Health.UNVERIFIED),
        ("azure", 200, b'{"data":[]}', Health.ACTIVE),
        ("azure", 401, b'{"error":{"code":"401","message":"Access denied."}}', Health.REJECTED),
        ("bedrock", 200, b"{}", Health.ACTIVE),
        ("bedrock", 403, b'{"Message":"Authentication failed: your API Key is not valid."}', Health.REJECTED),
        ("bedrock", 403, b'{"message":"You are not authorized to list jobs."}', Health.UNVERIFIED),
        (
            "bedrock",
            403,
            b'{"message":"INVALID_PAYMENT_INSTRUMENT: a payment instrument is needed"}',
            Health.OUT_OF_CREDIT,
        ),
        ("huggingface", 200, b"{}", Health.UNVERIFIED),
        ("qwen", 400, b'{"error":{"code":"Arrearage","message":"x"}}', Health.OUT_OF_CREDIT),
        ("zai", 429, b'{"error":{"code":"1113","message":"x"}}', Health.OUT_OF_CREDIT),
        ("ollama", 200, b'{"models":[]}', Health.ACTIVE),
    ],
)
def test_an_answer_is_read_as_the_provider_means_it(slug: str, status: int, body: bytes, health: Health) -> None:
    """Only a clear no is a rejection; 403, 429 and 5xx leave the key usable with a warning."""
    assert judge(find(slug), status, body).health is health


@pytest.mark.parametrize("slug", sorted(PROVIDERS))
def test_401_is_a_rejection_everywhere(slug: str) -> None:
    """Whoever answers 401 refuses the key."""
    result = judge(find(slug), 401, b"{}")
    assert result.health is Health.REJECTED
    assert result.health.blocks_saving


def test_every_state_has_a_label_and_an_explanation() -> None:
    """A badge is never empty, and says what to do."""
    assert [health.label for health in Health] == [
        "Active",
        "Unverified",
        "Rejected",
        "Out of credit",
        "Limited",
        "Unreachable",
    ]
    assert all(health.explanation.endswith(".") for health in Health)


@asynccontextmanager
async def answering(reply: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request with raw bytes, or never; its address and what it got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head)
        answer = reply(head)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def http(status: str, body: bytes, *headers: bytes) -> bytes:
    """A whole HTTP/1.1 reply that closes the connection."""
    lines = [b"HTTP/1.1 " + status.encode(), *headers, b"content-length: %d" % len(body), b"connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("slug", "line"),
    [
        ("openai", b"authorization: Bearer sk-test-0123456789abcdef0123456789"),
        ("anthropic", b"x-api-key: sk-test-0123456789abcdef0123456789"),
        ("gemini", b"x-goog-api-key: sk-test-0123456789abcdef0123456789"),
    ],
)
async def test_the_key_goes_where_the_provider_wants_it(slug: str, line: bytes) -> None:
    """The request is the row's path with the key in the row's header, and never in the address."""
    provider = find(slug)
    async with answering(lambda _: http("200 OK", b"{}")) as (url, requests):
        result = await check(provider, url, KEY)
    assert result.health is Health.ACTIVE
    head = requests[0].lower()
    assert line.lower() in head
    first_line = head.split(b"\r\n")[0]
    assert first_line == f"GET {provider.check.path} HTTP/1.1".lower().encode()
    if slug == "anthropic":
        assert b"anthropic-version: 2023-06-01" in head


async def test_what_the_provider_says_is_shown_without_the_key() -> None:
    """An answer that quotes the key, whole or masked, is shown with it taken out."""
    body = b'{"error":{"message":"Bad key sk-test-0123456789abcdef0123456789 (sk-test-****6789)","code":"x"}}'
    async with answering(lambda _: http("401 Unauthorized", body)) as (url, _):
        result = await check(find("openai"), url, KEY)
    assert result.health is Health.REJECTED
    assert result.said == "OpenAI answered 401: Bad key [redacted] ([redacted])"


@pytest.mark.parametrize("before", range(240, 301, 5))
async def test_where_words_are_cut_no_part_of_the_key_is_left(before: int) -> None:
    """A long answer is cut after the key was taken out of it, not in the middle of the key."""
    body = b'{"error":{"message":"' + b"x" * before + b" " + KEY.reveal().encode() + b'"}}'
    async with answering(lambda _: http("401 Unauthorized", body)) as (url, _):
        result = await check(find("openai"), url, KEY)
    assert KEY.reveal()[:4] not in result.said


async def test_what_everybody_is_told_says_nothing_of_a_key() -> None:
    """The list of models at Ollama's cloud is public; at a server of one's own it is for those who get in."""
    ollama = find("ollama")
    assert "ollama.com" in ollama.check.public_at
    cloud = replace(ollama, check=replace(ollama.check, public_at=("127.0.0.1",)))
    async with answering(lambda _: http("200 OK", b'{"models":[]}')) as (url, _):
        assert (await check(cloud, url, KEY)).health is Health.UNVERIFIED
        assert (await check(ollama, url, KEY)).health is Health.ACTIVE


async def test_a_redirect_is_not_followed() -> None:
    """The key is not carried to wherever a reply points."""
    async with (
        answering(lambda _: http("200 OK", b"{}")) as (elsewhere, visits),
        answering(lambda _: http("302 Found", b"", b"location: " + elsewhere.encode())) as (url, _),
    ):
        result = await check(find("openai"), url, KEY)
    assert result.health is Health.UNVERIFIED
    assert visits == []


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable does not reroute the key."""
    async with (
        answering(lambda _: http("200 OK", b"{}")) as (proxy, visits),
        answering(lambda _: http("200 OK", b"{}")) as (url, _),
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
        assert (await check(find("openai"), url, KEY)).health is Health.ACTIVE
    assert visits == []


async def test_certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes tens of milliseconds, in which the process does nothing else."""
    async with answering(lambda _: http("200 OK", b"{}")) as (url, _):
        await check(find("openai"), url, KEY)
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", None)
        assert (await check(find("openai"), url, KEY)).health is Health.ACTIVE


async def test_silence_is_unreachable_within_the_time_given() -> None:
    """A provider that accepts and says nothing ends the check after its time-out."""
    async with answering(lambda _: None) as (url, _):
        result = await check(find("openai"), url, KEY, timeout=0.2)
    assert result.health is Health.UNREACHABLE
    assert "did not answer within 0.2 seconds" in result.said


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort"])
async def test_a_broken_answer_is_unreachable(answer: bytes) -> None:
    """A connection that is cut or does not speak HTTP raises nothing."""
    async with answering(lambda _: answer) as (url, _):
        result = await check(find("openai"), url, KEY)
    assert result.health is Health.UNREACHABLE


async def test_nobody_there_is_unreachable() -> None:
    """A refused connection and an unusable address raise nothing."""
    assert (await check(find("openai"), "http://127.0.0.1:1", KEY)).health is Health.UNREACHABLE
    assert (await check(find("openai"), "ftp://127.0.0.1", KEY)).health is Health.UNREACHABLE


async def test_an_endless_answer_is_cut() -> None:
    """Only the first 64 KiB are read."""
    async with answering(lambda _: http("200 OK", b"x" * 3_000_000)) as (url, _):
        assert (await check(find("openai"), url, KEY)).health is Health.ACTIVE


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel", "tab\tkey"])
async def test_a_key_that_cannot_stand_in_a_header_is_not_sent(key: str) -> None:
    """White space, control characters and other scripts are refused here, so they cannot split the request."""
    async with answering(lambda _: http("200 OK", b"{}")) as (url, requests):
        result = await check(find("openai"), url, Secret(key))
    assert result.health is Health.REJECTED
    assert requests == []


async def test_the_path_is_below_the_address_given() -> None:
    """A base URL with a path prefix, as an operator may set it, keeps its prefix."""
    provider = replace(find("openai"), base_url="https://unused.invalid")
    async with answering(lambda _: http("200 OK", b"{}")) as (url, requests):
        await check(provider, url + "/proxy/", KEY)
    assert requests[0].startswith(b"GET /proxy/v1/models HTTP/1.1\r\n")
