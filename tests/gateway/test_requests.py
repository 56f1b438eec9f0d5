"""Reading requests: bad input gets its code in the caller's own shape, nothing half-done stays behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Reply, Wire, chat, post

CHAT = "/openai/v1/chat/completions"


@pytest.fixture
def wire(service: Service) -> Iterator[Wire]:
    """A connection to the service."""
    with Wire(service.url) as wire:
        yield wire


def once(service: Service, request: bytes) -> Reply:
    """Send one request on a connection of its own."""
    with Wire(service.url) as wire:
        wire.send(request)
        return wire.reply()


@pytest.mark.parametrize(
    ("path", "body", "code_at"),
    [
        (CHAT, b"{not json", ("error", "code")),
        (CHAT, b'["a list"]', ("error", "code")),
        (CHAT, b"", ("error", "code")),
        (CHAT, b'{"model": "../admin", "messages": []}', ("error", "code")),
        (CHAT, b'{"model": "a", "max_tokens": -1, "messages": []}', ("error", "code")),
        (CHAT, b'{"model": "a", "max_tokens": "5", "messages": []}', ("error", "code")),
        (CHAT, b'{"model": "a", "max_tokens": 1e400, "messages": []}', ("error", "code")),
        (CHAT, b'{"model": "a", "max_tokens": 5, "max_tokens": 500000, "messages": []}', ("error", "code")),
        (CHAT, b'{"model": "a", "n": 0, "messages": []}', ("error", "code")),
        ("/anthropic/v1/messages", b"{not json", ("error", "code")),
        ("/gemini/v1beta/models/gemini-2.5-flash:generateContent", b"{not json", ("error", "details", 0, "reason")),
    ],
)
def test_an_unusable_request_is_refused(
    customer: Customer, provider: FakeProvider, path: str, body: bytes, code_at: tuple[str | int, ...]
) -> None:
    """400 `invalid_request` in the dialect's shape; the provider is not asked, nothing is held, the id is named."""
    reply = once(customer.service, post(path, customer.token, raw=body))
    assert reply.status == 400
    value = reply.json
    for step in code_at:
        value = value[step]
    assert value == "invalid_request"
    assert reply.headers["x-request-id"].startswith("req_")
    assert provider.requests == []
    assert customer.events() == []
    assert customer.allowance().reserved == 0


def test_a_weighed_model_is_charged_by_its_weights(customer: Customer, provider: FakeProvider) -> None:
    """What is left falls by what the plan makes of the provider's counts; usage shows the provider's own."""
    with Wire(customer.service.url) as wire:
        provider.next(tokens=40, cached=1)
        wire.send(post(CHAT, customer.token, {**chat(max_tokens=100), "model": "weighed-1"}))
        assert wire.reply().status == 200
    received = provider.last
    (event,) = customer.settled(1)
    assert (event.input_tokens, event.output_tokens) == (received.tokens_in, received.tokens_out)
    assert event.cached_input_tokens == 1
    assert event.charged_tokens == received.tokens_in + 4 * received.tokens_out  # half a token rounded up
    assert customer.allowance().used == event.charged_tokens
    customer.check_ledger()


def test_an_unknown_provider_is_not_found(customer: Customer) -> None:
    """A path that names no provider is not the gateway's: 404 `not_found` as a problem document."""
    reply = once(customer.service, post("/nobody/v1/chat/completions", customer.token, chat(), extra="Accept: */*\n"))
    assert reply.status == 404
    assert reply.json["code"] == "not_found"


def test_an_unknown_model_is_the_providers_to_refuse(customer: Customer, provider: FakeProvider) -> None:
    """The provider's own 404 passes through byte for byte, costs nothing and gives the reservation back."""
    said = b'{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}'
    provider.next(status=404, body=said.decode())
    reply = once(customer.service, post(CHAT, customer.token, chat()))
    assert (reply.status, reply.body) == (404, said)
    (event,) = customer.settled(1)
    assert (event.outcome, event.charged_tokens) == ("refused", 0)
    assert customer.allowance().reserved == 0


def test_a_provider_without_key_is_not_available(customer: Customer) -> None:
    """Neither an own key nor a platform key: 403 `provider_not_available`."""
    reply = once(customer.service, post("/mistral/v1/chat/completions", customer.token, chat()))
    assert (reply.status, reply.json["error"]["code"]) == (403, "provider_not_available")


def test_who_can_connect_a_key_is_named(oracle: FakeProvider, tmp_path: Path) -> None:
    """Where only the owner manages keys, every refusal that a key of the organization's would mend says so."""
    plans = tmp_path / "plans.toml"
    plans.write_text('[plans.small]\nname = "Small"\nmonthly_tokens = 1\napi_access = true\n')
    settings = settings_for(oracle, data_dir=tmp_path, plans_file=plans, keys_managed_by="owner")
    with running(settings, oracle) as service:
        customer = new_customer(service)
        refused = [
            once(service, post("/mistral/v1/chat/completions", customer.token, chat())),
            once(service, post("/openai/v1/batches", customer.token, {})),
            once(service, post(CHAT, customer.token, chat())),
        ]
        customer.connect("openai", "sk-own-key-0123456789")
        oracle.next(status=401)
        refused.append(once(service, post(CHAT, customer.token, chat())))
    errors = [reply.json["error"] for reply in refused]
    assert [error["code"] for error in errors] == [
        "provider_not_available",
        "forbidden",
        "allowance_exhausted",
        "provider_key_rejected",
    ]
    for error in errors:
        assert "the owner of your organization can" in error["message"]
        assert "admin" not in str(error)


def test_a_huge_body_is_refused_early(service: Service, customer: Customer, provider: FakeProvider) -> None:
    """413 `request_too_large` as soon as the limit is passed; the connection ends there."""
    limit = service.settings.max_request_bytes
    with Wire(service.url) as wire:
        head = post(CHAT, customer.token, raw=b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (2 * limit))
        wire.send(head)
        wire.send(b"x" * (limit + 1))
        reply = wire.reply()
        assert (reply.status, reply.json["error"]["code"]) == (413, "request_too_large")
        assert reply.headers["connection"] == "close"
    assert provider.requests == []


@pytest.mark.parametrize("slot", ["authorization: Bearer", "x-api-key:", "x-goog-api-key:", "api-key:", "?key="])
@pytest.mark.parametrize("path", [CHAT, "/anthropic/v1/messages"])
def test_the_token_is_accepted_in_every_slot(customer: Customer, provider: FakeProvider, slot: str, path: str) -> None:
    """Wherever an SDK sends its key our token is found, and the provider gets only its own credential."""
    body = json.dumps(chat(max_tokens=50))
    query, header = ("", f"{slot} {customer.token}\n") if slot != "?key=" else (f"?key={customer.token}&a=b", "")
    request = f"POST {path}{query} HTTP/1.1\nhost: here\n{header}content-length: {len(body)}\n\n{body}"
    with Wire(customer.service.url) as wire:
        wire.send(request)
        assert wire.reply().status == 200
    assert provider.last.key == PLATFORM_KEY
    assert customer.token not in provider.last.target
    assert not any(customer.token in value for _, value in provider.last.headers)
    assert provider.last.query == ("a=b" if slot == "?key=" else "")


def test_a_reply_is_never_a_page(customer: Customer, provider: FakeProvider) -> None:
    """Whatever a provider answers, and whoever answers, a browser runs nothing of it and guesses no other type."""
    provider.next(body="<script>alert(1)</script>", headers=[("content-type", "text/html")])
    requests = [
        post(CHAT, customer.token, chat()),
        post(CHAT, customer.token, chat(stream=True)),
        post(CHAT, customer.token, chat("[[status:404]]")),
        post(CHAT, "ownkey_bogus", chat()),
    ]
    replies = [once(customer.service, request) for request in requests]
    assert [(reply.status, reply.headers["content-type"].split(";")[0]) for reply in replies] == [
        (200, "text/html"),
        (200, "text/event-stream"),
        (404, "application/json"),
        (401, "application/json"),
    ]
    for reply in replies:
        assert reply.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("shown_as", ["document", "iframe", "embed", "object", "script", "style", "serviceworker"])
def test_a_browser_gets_nothing_to_show_or_run(customer: Customer, provider: FakeProvider, shown_as: str) -> None:
    """An address of the gateway, with a token in it, is no page and no script: the provider is not even asked."""
    head = f"GET /openai/v1/models?key={customer.token} HTTP/1.1\r\nHost: here\r\nSec-Fetch-Dest: {{}}\r\n\r\n"
    with Wire(customer.service.url) as wire:
        wire.send(head.format(shown_as).encode() * 2)
        for _ in range(2):
            reply = wire.reply()
            assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_request")
    assert provider.requests == []


def test_a_program_in_a_browser_may_fetch(customer: Customer) -> None:
    """What `fetch` says of itself, in a browser and in Node, hinders no call."""
    said = "Sec-Fetch-Dest: empty\nSec-Fetch-Mode: cors\nSec-Fetch-Site: cross-site\n"
    for extra in (said, "Sec-Fetch-Mode: cors\n"):
        assert once(customer.service, post(CHAT, customer.token, chat(), extra=extra)).status == 200


def test_two_different_tokens_are_a_conflict(customer: Customer) -> None:
    """Two different credentials in one request are refused with 400; the same one twice is fine."""
    two = post(CHAT, customer.token, chat(), extra="x-api-key: ownkey_another\n")
    assert once(customer.service, two).json["error"]["code"] == "invalid_request"
    same = post(CHAT, customer.token, chat(), extra=f"x-api-key: {customer.token}\n")
    assert once(customer.service, same).status == 200


def test_only_listed_headers_pass(customer: Customer, provider: FakeProvider) -> None:
    """Cookies, forwarding headers, hop-by-hop fields and whatever `Connection` names stay here, in both directions."""
    extra = (
        "Cookie: a=b\nX-Forwarded-For: 1.2.3.4\nForwarded: for=1.2.3.4\nConnection: x-foo\nX-Foo: bar\nTE: trailers\n"
        "OpenAI-Organization: org-x\nX-Custom: no\nopenai-beta: assistants=v2\nx-stainless-lang: python\n"
    )
    provider.next(headers=(("set-cookie", "s=1"), ("openai-organization", "op"), ("x-ratelimit-remaining-tokens", "7")))
    reply = once(customer.service, post(CHAT, customer.token, chat(), extra=extra))
    sent = {name.lower() for name, _ in provider.last.headers}
    assert sent <= {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept-encoding",
        "openai-beta",
        "x-stainless-lang",
    }
    assert "set-cookie" not in reply.headers
    assert "openai-organization" not in reply.headers
    assert reply.headers["x-ratelimit-remaining-tokens"] == "7"


def test_chunked_and_piecemeal_requests(customer: Customer, provider: FakeProvider) -> None:
    """A request body in chunks, a byte at a time, reaches the provider whole and once."""
    body = json.dumps(chat("in pieces")).encode()
    head = post(CHAT, customer.token, raw=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with Wire(customer.service.url) as wire:
        for place in range(0, len(head + chunked), 7):
            wire.send((head + chunked)[place : place + 7])
        assert wire.reply().status == 200
    assert provider.last.body == body
    customer.settled(1)


def test_expect_100_continue(customer: Customer) -> None:
    """A client that waits for leave to send its body gets it."""
    body = json.dumps(chat()).encode()
    request = post(CHAT, customer.token, raw=body, extra="Expect: 100-continue\n")
    with Wire(customer.service.url) as wire:
        wire.send(request[: -len(body)])
        assert wire.line() == b"HTTP/1.1 100 Continue"
        assert wire.line() == b""
        wire.send(body)
        assert wire.reply().status == 200


def test_pipelined_requests_are_answered_in_order(customer: Customer, provider: FakeProvider) -> None:
    """Gateway calls and pages sent in one go on one connection come back in order, each whole."""
    page = b"GET /healthz/live HTTP/1.1\r\nHost: here\r\n\r\n"
    requests = [post(CHAT, customer.token, chat(f"number {n}")) for n in range(3)]
    with Wire(customer.service.url) as wire:
        wire.send(requests[0] + page + requests[1] + requests[2] + page)
        replies = [wire.reply() for _ in range(5)]
    assert [reply.status for reply in replies] == [200] * 5
    kinds = ["id" in reply.json for reply in replies]
    assert kinds == [True, False, True, True, False]
    assert [one.json["messages"][0]["content"] for one in provider.requests] == ["number 0", "number 1", "number 2"]
    customer.settled(3)


def test_head_and_options(customer: Customer, provider: FakeProvider, wire: Wire) -> None:
    """HEAD passes with its length and no body; the connection goes on."""
    wire.send(f"HEAD /openai/v1/models HTTP/1.1\nhost: here\nauthorization: Bearer {customer.token}\n\n")
    assert wire.reply(headless=True).status == 200
    wire.send(post(CHAT, customer.token, chat()))
    assert wire.reply().status == 200
    assert [one.method for one in provider.requests] == ["HEAD", "POST"]


@pytest.mark.parametrize("path", ["/healthz/live", "/healthz/ready", "/sign-in", "/api/v1/openapi.json"])
def test_head_of_what_is_ours(wire: Wire, path: str) -> None:
    """HEAD, which load balancers ask with, gets what GET gets, but for the body."""
    wire.send(f"HEAD {path} HTTP/1.1\nhost: here\n\n")
    assert wire.reply(headless=True).status == 200
    wire.send("GET /healthz/live HTTP/1.1\nhost: here\n\n")
    assert wire.reply().json == {"status": "live"}


def test_http_1_0_gets_a_closed_connection(customer: Customer, wire: Wire) -> None:
    """A client of HTTP/1.0 gets its stream without chunks, ended by the connection's end."""
    body = json.dumps(chat(stream=True))
    wire.send(f"POST {CHAT} HTTP/1.0\nauthorization: Bearer {customer.token}\ncontent-length: {len(body)}\n\n{body}")
    reply = wire.reply()
    assert "transfer-encoding" not in reply.headers
    assert reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /openai/v1/x HTTP/1.1\r\nHost : a\r\n\r\n",
        b"POST /openai/v1/x HTTP/1.1\nHost: a\n\n",
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"POST /openai/v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(service: Service, provider: FakeProvider, request_bytes: bytes) -> None:
    """400 and a closed connection; what follows in the same bytes is never taken for a request."""
    smuggled = b"GET /openai/v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    with Wire(service.url) as wire:
        wire.send(request_bytes + smuggled)
        said = wire.rest()
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401")) or said == b""
    assert said.count(b"HTTP/1.1 ") <= 1
    assert provider.requests == []


@pytest.mark.parametrize("path", ["/openai/v1/../../admin", "/openai/v1/%2e%2e/x", "/openai//v1", "/openai/v1\\x"])
def test_ambiguous_paths_are_refused(customer: Customer, provider: FakeProvider, path: str) -> None:
    """A path that the provider could read as another one is 400."""
    with Wire(customer.service.url) as wire:
        wire.send(post(path, customer.token, chat()))
        assert wire.reply().status == 400
    assert provider.requests == []


def test_websockets_are_refused_clearly(customer: Customer, provider: FakeProvider, wire: Wire) -> None:
    """A realtime connection cannot be metered: 400 with a sentence, and nothing is relayed."""
    wire.send(
        f"GET /openai/v1/realtime?model=gpt-realtime HTTP/1.1\nhost: here\nauthorization: Bearer {customer.token}\n"
        "connection: upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: eA==\n\n"
    )
    reply = wire.reply()
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_request")
    assert "WebSocket" in reply.json["error"]["message"]
    assert provider.requests == []


def test_refusals_in_a_row_are_no_recursion(customer: Customer, service: Service) -> None:
    """A thousand requests in one go, each refused at once, are all answered, and nothing stays under way."""
    refused = b"GET /openai/x HTTP/1.1\r\nHost: here\r\n\r\n"
    with Wire(service.url) as wire:
        wire.send(post(CHAT, "ownkey_bogus", chat()) + refused * 1_000)
        assert {wire.reply().status for _ in range(1_001)} == {401}
        wire.send(post(CHAT, customer.token, chat()))
        assert wire.reply().status == 200
    customer.settled(1)


def test_trailers_are_no_headers(customer: Customer, service: Service, provider: FakeProvider) -> None:
    """What comes after a chunked body neither authenticates a request nor reaches the provider."""
    body = json.dumps(chat()).encode()
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    head = b"POST %b HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n" % CHAT.encode()
    token = f"Authorization: Bearer {customer.token}\r\n".encode()
    with Wire(service.url) as wire:
        wire.send(head + b"\r\n" + chunks + token + b"\r\n")
        assert wire.reply().status == 401
    with Wire(service.url) as wire:
        wire.send(head + token + b"\r\n" + chunks + b"OpenAI-Beta: smuggled\r\n\r\n")
        assert wire.reply().status == 200
    assert provider.last.header("openai-beta") == ""


def test_a_broken_chunk_is_answered(customer: Customer, service: Service) -> None:
    """A gateway request whose body breaks off in its framing gets 400, not just a closed connection."""
    head = post(CHAT, customer.token, raw=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with Wire(service.url) as wire:
        wire.send(head + b"zz\r\nhello\r\n")
        assert wire.reply().status == 400


@pytest.mark.parametrize("head", [b"x-large: " + b"y" * 70_000, b"\r\n".join(b"x-%d: y" % n for n in range(9_000))])
def test_a_head_has_a_limit(customer: Customer, service: Service, provider: FakeProvider, head: bytes) -> None:
    """More than 64 KiB of header fields is 431 `head_too_large` and a closed connection, whoever sends it."""
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, chat()).replace(b"Host: here", head))
        assert wire.reply().status == 431
    assert provider.requests == []
