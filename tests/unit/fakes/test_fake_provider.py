"""The fake provider does what it is told, and remembers it truthfully."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.behaviour import MALFORMED, Behaviour
from tests.fakes.provider import FakeProvider

pytestmark = pytest.mark.anyio

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used; given to httpx so that it does not load the world's certificates for each request."""

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeProvider]:
    """One provider for the module: starting it is cheap, but not free."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: FakeProvider) -> FakeProvider:
    """The provider, with nothing remembered."""
    shared.clear()
    return shared


def chat(text: str = "Hello there", **more: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def post(
    provider: FakeProvider, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str
) -> httpx.Response:
    """Send one request with the key ``sk-1``, or with the headers given."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()} or {"authorization": "Bearer sk-1"}
    return httpx.post(provider.url + path, json=body, headers=sent, timeout=5, verify=PLAIN)


def test_remembers_the_request(provider: FakeProvider) -> None:
    """A record has the key, its place, host, path, query, headers and body as they came."""
    before = time.time()
    post(provider, chat(), "/v1/chat/completions?a=1", authorization="Bearer sk-9", x_api_key="sk-9", cookie="c=1")
    seen = provider.last
    assert (seen.key, seen.slot) == ("sk-9", "x-api-key|authorization")
    assert (seen.method, seen.path, seen.query) == ("POST", "/v1/chat/completions", "a=1")
    assert seen.host == f"127.0.0.1:{provider.port}"
    assert seen.header("cookie") == "c=1"
    assert seen.json == chat()
    assert before <= seen.at <= time.time()


@pytest.mark.parametrize(
    ("headers", "query", "slot"),
    [
        ({"x-goog-api-key": "k"}, "", "x-goog-api-key"),
        ({"api-key": "k"}, "", "api-key"),
        ({}, "?key=k", "query"),
        ({}, "", ""),
    ],
)
def test_finds_the_key(provider: FakeProvider, headers: dict[str, str], query: str, slot: str) -> None:
    """A key is found wherever an SDK may put it."""
    httpx.get(f"{provider.url}/v1/models{query}", headers=headers, verify=PLAIN)
    assert (provider.last.key, provider.last.slot) == ("k" if slot else "", slot)


def test_counts_honestly(provider: FakeProvider) -> None:
    """What is reported, what is remembered and what is sent are the same."""
    provider.script(tokens=7, reasoning=3, cached=1)
    usage = post(provider, chat("one two three")).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 10)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 1
    assert (provider.last.tokens_in, provider.last.tokens_out, provider.last.reported) == (3, 10, (3, 10))
    assert provider.last.finished
    assert provider.totals("sk-1") == (3, 10)
    assert provider.totals("another") == (0, 0)


STREAMS = {
    "chat": ("/v1/chat/completions", chat("Hi [[tokens:4]]", stream=True, stream_options={"include_usage": True})),
    "responses": ("/v1/responses", {"model": "gpt-4o", "input": "Hi [[tokens:4]]", "stream": True}),
    "messages": ("/v1/messages", {**chat("Hi [[tokens:4]]", stream=True), "max_tokens": 99}),
    "gemini": (
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "Hi [[tokens:4]]"}]}]},
    ),
}


def marked(stream: str, markers: str) -> tuple[str, dict[str, Any]]:
    """A streamed request of a dialect, with more markers in its text."""
    path, body = STREAMS[stream]
    return path, json.loads(json.dumps(body).replace("[[tokens:4]]", f"[[tokens:4]]{markers}"))


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    ("kind", "reported"),
    [
        ("normal", "true"),
        ("missing", None),
        ("null", None),
        ("zero", (0, 0)),
        ("every", "true"),
        ("duplicate", "true"),
        ("decreasing", "true"),
    ],
)
def test_usage_kinds(provider: FakeProvider, stream: str, kind: str, reported: object) -> None:
    """Each stream can report usage in every wrong way; the record says what was reported and what is true."""
    path, body = marked(stream, f"[[usage:{kind}]]")
    reply = post(provider, body, path)
    seen = provider.last
    assert reply.status_code == 200
    assert seen.tokens_out == 4
    assert seen.reported == ((seen.tokens_in, 4) if reported == "true" else reported)
    assert bytes(seen.sent) == reply.content


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_can_break(provider: FakeProvider, stream: str) -> None:
    """A cut stream is broken for the client, and only the tokens before the cut count."""
    for how in ("fin", "rst"):
        path, body = marked(stream, f"[[cut:2:{how}]]")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            post(provider, body, path)
        seen = provider.last
        provider.wait(lambda _: provider.requests[-1].closed_at is not None)
        assert (seen.tokens_out, seen.finished, seen.closed_by) == (2, False, "provider")


def test_reset_is_a_reset(provider: FakeProvider) -> None:
    """``rst`` resets the connection: the client's socket says so."""
    body = json.dumps(chat("Hi [[cut:1:rst]][[pause:0.01]]", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", provider.port)) as client:
        client.sendall(head + body)
        with pytest.raises(ConnectionResetError):
            deque(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("stream", STREAMS)
def test_an_error_in_the_stream(provider: FakeProvider, stream: str) -> None:
    """The dialect's own error event can come after some tokens, with no end marker after it."""
    path, body = marked(stream, "[[error_after:2]]")
    reply = post(provider, body, path)
    assert b'"error"' in reply.content
    assert not any(end in reply.content for end in (b"[DONE]", b"message_stop", b"response.completed", b"finishReason"))
    assert provider.last.tokens_out == 2


@pytest.mark.parametrize(("stream", "end"), [("chat", b"[DONE]"), ("messages", b"message_stop"), ("gemini", b"STOP")])
def test_a_stream_without_its_end(provider: FakeProvider, stream: str, end: bytes) -> None:
    """A stream may end as HTTP without the dialect's end marker."""
    path, body = marked(stream, "[[no_end]]")
    reply = post(provider, body, path)
    assert end not in reply.content
    assert provider.last.tokens_out == 4


@pytest.mark.parametrize(("ends", "bytes_"), [("crlf", b"\r\n"), ("cr", b"\r"), ("lf", b"\n")])
def test_line_ends_and_comments(provider: FakeProvider, ends: str, bytes_: bytes) -> None:
    """Streams can have any line end of the standard, and comments."""
    path, body = marked("messages", f"[[line_end:{ends}]][[comments]]")
    content = post(provider, body, path).content
    assert content.startswith(b": keep-alive" + bytes_ * 2)
    assert content.endswith(bytes_ * 2)


async def test_a_stall_and_a_client_that_leaves(provider: FakeProvider) -> None:
    """A stalled stream stays open until the client leaves; the record says that it was the client."""
    async with httpx.AsyncClient(verify=PLAIN) as client:
        body = chat("Hi [[stall:3]]", stream=True)
        async with client.stream("POST", f"{provider.url}/v1/chat/completions", json=body) as reply:
            lines = reply.aiter_lines()
            while provider.last.tokens_out < 3:
                await anext(lines)
            await asyncio.sleep(0.05)
            assert (provider.last.tokens_out, provider.last.closed_at) == (3, None)
    await provider.wait_async(lambda _: provider.last.closed_at is not None)
    assert (provider.last.finished, provider.last.closed_by) == (False, "client")


def test_a_plain_reply_can_break_or_stall(provider: FakeProvider) -> None:
    """A plain reply broken in its body was generated in full; one stalled after its head is not there in time."""
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider, chat("Hi [[cut:1]]"))
    assert (provider.last.tokens_out, provider.last.reported, provider.last.finished) == (10, None, False)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{provider.url}/v1/chat/completions", json=chat("Hi [[stall:0]]"), timeout=0.2, verify=PLAIN)


def test_no_reply(provider: FakeProvider) -> None:
    """The connection can be closed instead of an answer; then nothing was accepted."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        post(provider, chat("Hi [[no_reply:rst]]"))
    assert (provider.last.accepted, provider.totals()) == (False, (0, 0))


async def test_hold_and_release(provider: FakeProvider) -> None:
    """Held requests are received, counted and answered when they are let go, in the order they came."""
    provider.hold()
    async with httpx.AsyncClient(verify=PLAIN) as client:
        waiting = [
            asyncio.create_task(client.post(f"{provider.url}/v1/chat/completions", json=chat())) for _ in range(3)
        ]
        await provider.wait_async(lambda p: p.held == 3)
        provider.release(1)
        await provider.wait_async(lambda p: p.held == 2)
        assert sum(one.finished for one in provider.requests) <= 1
        provider.release()
        assert [reply.status_code for reply in await asyncio.gather(*waiting)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v1/chat/completions", 401, b"invalid_api_key"),
        ("/v1/messages", 401, b"authentication_error"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", 400, b"API_KEY_INVALID"),
    ],
)
def test_accepts_only_some_keys(provider: FakeProvider, path: str, status: int, expected: bytes) -> None:
    """A key that is not accepted gets the dialect's own refusal and costs nothing; others are served."""
    provider.accept({"sk-2"})
    refused = post(provider, chat(), path)
    assert (refused.status_code, expected in refused.content) == (status, True)
    assert post(provider, {**chat(), "contents": []}, path, authorization="Bearer sk-2").status_code == 200
    assert [one.accepted for one in provider.requests] == [False, True]


def test_the_next_requests(provider: FakeProvider) -> None:
    """``next()`` counts for so many requests, then the script again."""
    provider.script(tokens=2)
    provider.next(status=429, retry_after="7", times=2)
    replies = [post(provider, chat()) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert replies[0].headers["retry-after"] == "7"
    assert replies[2].json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(("status", "kind"), [(529, "overloaded_error"), (503, "api_error"), (429, "rate_limit_error")])
def test_statuses(provider: FakeProvider, status: int, kind: str) -> None:
    """A status is answered in the dialect's own shape."""
    reply = post(provider, {**chat(f"Hi [[status:{status}]]"), "max_tokens": 5}, "/v1/messages")
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, kind)


def test_any_body(provider: FakeProvider) -> None:
    """A test may give the whole reply itself."""
    provider.next(
        status=302, body=b"elsewhere", headers=(("location", "http://169.254.169.254/"), ("set-cookie", "a=b"))
    )
    reply = post(provider, chat())
    assert (reply.status_code, reply.content, reply.headers["set-cookie"]) == (302, b"elsewhere", "a=b")


def test_echoes_the_key(provider: FakeProvider) -> None:
    """A bad provider shows the key it was sent, in the error and in a header."""
    reply = post(provider, chat("Hi [[echo]]"))
    assert reply.status_code == 401
    assert "sk-1" in reply.json()["error"]["message"]
    assert "sk-1" in reply.headers["x-echo"]


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_although_identity_was_asked(provider: FakeProvider, stream: bool) -> None:
    """A bad provider compresses whatever is asked; the content is the same."""
    reply = post(provider, chat("Hi [[gzip]]", stream=stream), accept_encoding="identity")
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.content == bytes(provider.last.sent) or not stream
    assert b"gpt-4o" in reply.content


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("stream", [False, True])
def test_framings(provider: FakeProvider, framing: str, stream: bool) -> None:
    """The end of a body can be told in all three ways of HTTP/1.1."""
    reply = post(provider, chat(f"Hi [[framing:{framing}]]", stream=stream))
    names = {"length": "content-length", "chunked": "transfer-encoding", "close": "connection"}
    assert names[framing] in reply.headers
    assert reply.content == bytes(provider.last.sent)


def test_drip(provider: FakeProvider) -> None:
    """A reply can come byte by byte."""
    assert post(provider, chat("Hi [[drip:0]][[tokens:1]]")).json()["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed(provider: FakeProvider, how: str) -> None:
    """A malformed reply reaches the client as such and breaks the connection."""
    body = json.dumps(chat(f"Hi [[malformed:{how}]]")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    received = b""
    with socket.create_connection(("127.0.0.1", provider.port)) as client:
        client.settimeout(5)
        client.sendall(head + body)
        while data := client.recv(1 << 20):
            received += data
    assert received
    assert provider.last.accepted


def test_hang_up(provider: FakeProvider) -> None:
    """A connection can be closed right after a reply that did not say so."""
    with httpx.Client(verify=PLAIN) as client:
        for _ in range(2):
            reply = client.post(f"{provider.url}/v1/chat/completions", json=chat("Hi [[hang_up]]"))
            assert "connection" not in reply.headers
            provider.wait(lambda p: p.last.closed_at is not None)
    assert provider.requests[0].connection is not provider.requests[1].connection


def test_drop(provider: FakeProvider) -> None:
    """All connections can be closed at once, the idle ones too."""
    with httpx.Client(verify=PLAIN) as client:
        client.get(f"{provider.url}/v1/models")
        provider.drop()
        provider.wait(lambda p: p.last.closed_at is not None)
        assert client.get(f"{provider.url}/v1/models").status_code == 200


def test_limits(provider: FakeProvider) -> None:
    """An output limit is respected, or exceeded by a factor on demand; ``n`` multiplies."""
    assert post(provider, chat(max_tokens=4)).json()["choices"][0]["finish_reason"] == "length"
    assert (
        post(provider, chat("Hi [[tokens:99]][[overrun:1.5]]", max_tokens=4)).json()["usage"]["completion_tokens"] == 6
    )
    assert post(provider, chat(max_tokens=4, n=3)).json()["usage"]["completion_tokens"] == 12
    assert [one.tokens_out for one in provider.requests] == [4, 6, 12]


def test_other_scripts(provider: FakeProvider) -> None:
    """A text of one's own is said token by token, whatever its script."""
    text = "日本語のテキスト 🙂🙃 été"
    provider.script(Behaviour(text=text))
    reply = post(provider, chat())
    said = reply.json()["choices"][0]["message"]["content"]
    assert said == text
    assert provider.last.tokens_out == 4


def test_a_misspelt_marker_fails(provider: FakeProvider) -> None:
    """A test that misspells a marker must not pass by accident."""
    reply = post(provider, chat("Hi [[tokns:5]]"))
    assert reply.status_code == 599
    assert "tokns" in provider.last.note


def test_pipelined_requests(provider: FakeProvider) -> None:
    """Requests sent at once on one connection are answered one after the other."""
    one = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", provider.port)) as client:
        client.sendall(one * 3)
        received = b""
        while received.count(b"fake-1") < 3:
            received += client.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert [one.connection for one in provider.requests] == [provider.last.connection] * 3


def test_a_slow_reader_slows_the_provider(provider: FakeProvider) -> None:
    """Tokens that nobody reads are not produced without end."""
    body = json.dumps(chat("Hi [[tokens:2000000]]", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", provider.port)) as client:
        client.sendall(head + body)
        provider.wait(lambda p: bool(p.requests) and p.last.tokens_out > 100)
        before = -1
        while before != provider.last.tokens_out:
            before = provider.last.tokens_out
            time.sleep(0.1)
    assert before < 100_000


async def test_many_at_once(provider: FakeProvider) -> None:
    """Two hundred simultaneous streams are served promptly, none lost."""
    body = json.dumps(chat("Hi [[tokens:20]]", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    provider.hold()

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(head.encode() + body)
        received = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return received

    tasks = [asyncio.create_task(one()) for _ in range(250)]
    await provider.wait_async(lambda p: p.held == 250)
    begun = time.monotonic()
    provider.release()
    replies = await asyncio.gather(*tasks)
    assert all(b"[DONE]" in reply for reply in replies)
    assert provider.totals() == (250 * 3, 250 * 20)
    assert time.monotonic() - begun < 3


def test_as_a_process() -> None:
    """Run as a process it prints its address, answers, and is controlled over HTTP."""
    command = [sys.executable, "-m", "tests.fakes.provider", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, verify=PLAIN) as client:
            client.post("/_fake/script", json={"tokens": 3})
            client.post("/v1/chat/completions", json=chat(), headers={"authorization": "Bearer sk-1"})
            seen = client.get("/_fake/requests").json()
            totals = client.get("/_fake/totals").json()
        process.terminate()
        assert process.wait(5) == 0
    assert [(one["key"], one["tokens_out"]) for one in seen] == [("sk-1", 3)]
    assert totals == {"tokens_in": 2, "tokens_out": 3}
