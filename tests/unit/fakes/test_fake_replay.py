"""The fake provider answers with recordings, byte for byte, however they are divided."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.provider import FakeProvider

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used; given to httpx so that it does not load the world's certificates for each request."""

STREAM = 'data: {"text":"日本"}\r\n\r\ndata: {"usageMetadata":{"promptTokenCount":3}}\r\n\r\n'


def recording(reply: str, *, provider: str = "openai", request: Any = None, **more: Any) -> dict[str, Any]:
    """A recording of a chat completion."""
    return {
        "id": f"r-{reply[:8]}",
        "provider": provider,
        "method": "POST",
        "url_path": "/v1/chat/completions?beta=true",
        "request_body": json.dumps(request or {"model": "m", "messages": []}),
        "request_body_encoding": "utf-8",
        "response_status": 200,
        "response_headers": {"content-type": "text/event-stream", "x-extra": "1", "content-length": "9999"},
        "response_body": reply,
        "response_body_encoding": "utf-8",
        "streaming": True,
        "expected": {"billable_input_tokens": 3, "billable_output_tokens": 4},
        **more,
    }


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    """A provider that replays."""
    with FakeProvider() as one:
        yield one


def ask(provider: FakeProvider, body: Any = None, *, base: str = "", query: str = "?beta=true") -> httpx.Response:
    """Send the recorded request."""
    url = f"{base or provider.url}/v1/chat/completions{query}"
    return httpx.post(url, json=body or {"messages": [], "model": "m"}, timeout=5, verify=PLAIN)


@pytest.mark.parametrize("split", ["whole", "bytes", "random", 15, [3, 14, 15, 16]])
def test_bytes_are_exact(provider: FakeProvider, split: Any) -> None:
    """Whatever the division into writes, the body is the recorded one; order of members in the request is no matter."""
    provider.replay([recording(STREAM)], split=split)
    reply = ask(provider)
    assert reply.content == STREAM.encode()
    assert reply.headers["x-extra"] == "1"
    assert "content-length" not in reply.headers
    assert (provider.last.tokens_in, provider.last.tokens_out, provider.last.reported) == (3, 4, (3, 4))


def test_each_split_is_a_write(provider: FakeProvider) -> None:
    """Pieces are sent as chunks of their own."""
    provider.replay([recording(STREAM)], split=[10, 20], gap=0.01)
    with httpx.stream(
        "POST", f"{provider.url}/v1/chat/completions?beta=true", json={"model": "m", "messages": []}
    ) as reply:
        pieces = list(reply.iter_raw())
    assert [len(piece) for piece in pieces] == [10, 10, len(STREAM.encode()) - 20]


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_cut(provider: FakeProvider, how: str, streaming: bool) -> None:
    """A reply cut at a byte is broken there, and reports nothing."""
    provider.replay([recording(STREAM, streaming=streaming)], cut=13, cut_how=how)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        ask(provider)
    assert (bytes(provider.last.sent), provider.last.reported) == (STREAM.encode()[:13], None)


def test_one_request_several_recordings(provider: FakeProvider) -> None:
    """Recordings of one request are served in turn, again from the first."""
    provider.replay([recording("one"), recording("two")])
    assert [ask(provider).text for _ in range(3)] == ["one", "two", "one"]


def test_what_a_gateway_adds_is_no_matter(provider: FakeProvider) -> None:
    """A request with usage asked for or an output limit matches; the very same body comes first."""
    limited = {"model": "m", "messages": [], "max_tokens": 5}
    provider.replay([recording("free"), recording("limited", request=limited)])
    assert ask(provider, {"model": "m", "messages": [], "stream_options": {"include_usage": True}}).text == "free"
    assert ask(provider, limited).text == "limited"
    provider.replay([recording("free")])
    assert ask(provider, {"model": "m", "messages": [], "max_completion_tokens": 9}).text == "free"


def test_no_recording(provider: FakeProvider) -> None:
    """A request nobody recorded is a 404, and the record says why."""
    provider.replay([recording("one")])
    assert ask(provider, {"model": "other"}).status_code == 404
    assert ask(provider, query="").status_code == 404
    assert provider.last.note == "no recording"


def test_providers_apart(provider: FakeProvider) -> None:
    """Under an address of its own a provider only gets its own recordings."""
    provider.replay([recording("theirs", provider="groq"), recording("ours")])
    assert ask(provider, base=provider.at("openai")).text == "ours"
    assert ask(provider, base=provider.at("groq")).text == "theirs"
    assert provider.last.path == "/v1/chat/completions"


def test_binary_and_compressed_bodies(provider: FakeProvider) -> None:
    """Bodies kept in base64 are decoded; what was compressed can be compressed again."""
    binary: dict[str, Any] = {
        "response_body_encoding": "base64",
        "recorded_content_encoding": "gzip",
        "streaming": False,
    }
    provider.replay([recording("AAECAw==", **binary)])
    assert ask(provider).content == b"\x00\x01\x02\x03"
    provider.replay([recording("AAECAw==", **binary)], compress=True)
    reply = ask(provider)
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.content == b"\x00\x01\x02\x03"
    assert gzip.decompress(provider.last.sent) == reply.content
