"""Recorded exchanges through the whole gateway: the client gets the recording's bytes, usage is what it reports."""

from __future__ import annotations

import http.client
import http.server
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from ownkey.credentials import Secret
from ownkey.gateway.routing import own_key_only
from ownkey.providers.registry import PROVIDERS
from tests.fakes.provider import FakeProvider
from tests.fakes.replay import body_of
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.recordings.test_usage import (
    BROKEN_OFF,
    BY_TOTAL,
    ESTIMATED,
    FAILED_WITHIN,
    SAYS_ITS_SIZE,
    call_of,
    expected_of,
    provider_of,
    readable,
)

FAMILIES = ("openai", "anthropic", "gemini", "bedrock", "openai_compatible", "other")
OWN_KEY = "sk-own-key-for-the-recordings-0123456789"
Recording = dict[str, Any]

# What the client does not get as it was recorded, and why; an entry that is needed no more is a problem, too.
OTHER_BYTES = dict.fromkeys(
    [
        *("d-0012", "r-3dae99f6bea9", "r-5a84a72b5969", "r-6a382c741d70"),
        *("r-7cee90d40a9a", "r-8fd569cfaf52", "r-9653fdb88650", "r-e4bb6f572820"),
    ],
    "the provider refuses the key, which is said in our words",
)


class _Tokens(http.server.BaseHTTPRequestHandler):
    """Google's token service, for Vertex AI."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"access_token":"ya29.for-the-recordings","expires_in":3600}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def service_account() -> str:
    """A key document of a service account that nobody has."""
    pem = RSAKey.generate_key(2048, private=True).as_pem(private=True).decode()
    return json.dumps({"type": "service_account", "client_email": "recordings@example.com", "private_key": pem})


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, FakeProvider]]:
    """A service with an allowance that no recording exhausts, so that no call gets an output limit."""
    folder = tmp_path_factory.mktemp("recordings")
    plans = folder / "plans.toml"
    plans.write_text('[plans.rich]\nname = "Rich"\nmonthly_tokens = 900000000000\napi_access = true\n')
    keys = {slug: Secret(f"sk-platform-{slug}") for slug in PROVIDERS} | {"vertex": Secret(service_account())}
    with FakeProvider() as provider, http.server.HTTPServer(("127.0.0.1", 0), _Tokens) as tokens:
        threading.Thread(target=tokens.serve_forever, daemon=True).start()
        settings = settings_for(
            provider,
            data_dir=folder,
            plans_file=plans,
            base_urls=dict.fromkeys(PROVIDERS, provider.url),
            platform_keys=keys,
            google_token_url=f"http://127.0.0.1:{tokens.server_port}/token",
        )
        with running(settings, provider) as service:
            yield service, provider
        tokens.shutdown()


def ask(customer: Customer, one: Recording) -> tuple[int, bytes, str, bool]:
    """Have a recorded request answered, again if the machine's disk kept the database from answering in time."""
    while (reply := _ask_once(customer, one))[0] == 503 and b"The database is not available" in reply[1]:
        pass
    return reply


def _ask_once(customer: Customer, one: Recording) -> tuple[int, bytes, str, bool]:
    """Send it through the gateway: status, the body's bytes, our request id, and whether it broke."""
    connection = http.client.HTTPConnection(customer.service.url.removeprefix("http://"), timeout=30)
    headers = {**one["request_headers"], "authorization": f"Bearer {customer.token}"}
    headers.pop("accept-encoding", None)
    try:
        body = body_of(one, "request")
        connection.request(one["method"], f"/{provider_of(one).slug}{one['url_path']}", body or None, headers)
        reply = connection.getresponse()
        try:
            return reply.status, reply.read(), reply.getheader("x-request-id", ""), False
        except http.client.IncompleteRead as broken:
            return reply.status, broken.partial, reply.getheader("x-request-id", ""), True
        except ConnectionResetError:
            return reply.status, b"", reply.getheader("x-request-id", ""), True
    finally:
        connection.close()


def on_the_allowance(one: Recording) -> bool:
    """Whether the allowance can serve it: work done later, the account itself and unknown paths are for own keys."""
    return not own_key_only(call_of(one)) and not call_of(one).endpoint.account_wide


def wrong_usage(one: Recording, event: Any) -> str:
    """What differs between an event and the recording's own figures; empty if nothing does."""
    expected, name = expected_of(one), one["id"]
    if not call_of(one).endpoint.generates:
        return "" if event.charged_tokens == 0 else "charged for a call that generates nothing"
    if one["response_status"] >= 400:
        return "" if event.charged_tokens == 0 else "charged for a refusal"
    if name in BY_TOTAL:
        wanted = expected["total_tokens"]
        return "" if event.charged_tokens in (wanted, 0) else f"{event.charged_tokens} instead of {wanted}"
    if name in FAILED_WITHIN:
        return "" if event.outcome == "failed" else f"a failed stream counts as {event.outcome}"
    if name in SAYS_ITS_SIZE:
        return "" if event.input_tokens > 0 else "a cache of no size"
    if expected is None or name in ESTIMATED or name in BROKEN_OFF:
        return "" if event.estimated and event.input_tokens > 0 else "neither reported nor estimated"
    wanted = (expected["billable_input_tokens"], expected["billable_output_tokens"])
    found = (event.input_tokens, event.output_tokens)
    if wanted == (None, None):
        return "" if sum(found) == expected["total_tokens"] else f"{found} instead of {expected}"
    return "" if tuple(value or 0 for value in wanted) == found else f"{found} instead of {wanted}"


@pytest.mark.parametrize("payer", ["allowance", "own_key"])
@pytest.mark.parametrize("family", [*FAMILIES, "errors"])
def test_bytes_and_usage_are_the_recordings(
    rich: tuple[Service, FakeProvider], recordings: Path, family: str, payer: str
) -> None:
    """Every recorded exchange, cut into writes at random places, arrives byte for byte and is metered as it reports."""
    service, provider = rich
    exchanges = readable(recordings, family)
    if payer == "allowance":
        exchanges = [one for one in exchanges if on_the_allowance(one)]
    provider.clear()
    provider.replay(exchanges, split="random", seed=7)
    customer = new_customer(service)
    if payer == "own_key":
        for slug in sorted({provider_of(one).slug for one in exchanges}):
            customer.connect(slug, OWN_KEY if PROVIDERS[slug].credential == "key" else service_account())
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda one: ask(customer, one), exchanges))
    events = {event.request_id: event for event in _all_events(customer, len(exchanges))}
    problems = []
    for one, (status, body, request_id, broken) in zip(exchanges, replies, strict=True):
        if one["id"] in OTHER_BYTES:
            if b"provider_key_rejected" not in body and b"provider_failed" not in body:
                problems.append(f"{one['id']}: {body[:80]!r}")
        elif (status, body, broken) not in _answers(exchanges, one):
            problems.append(f"{one['id']}: status {status}, {len(body)} bytes, broken: {broken}")
        elif wrong := _wrong_of_same_request(exchanges, one, body, events[request_id]):
            problems.append(f"{one['id']} {one['endpoint']}: {wrong}")
    print(f"{family} on {payer}: {len(exchanges)} exchanges, {len(problems)} problems")
    assert problems == []
    assert sum(event.charged_tokens for event in events.values()) == customer.allowance().used
    customer.check_ledger()


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_broken_at_random_arrive_broken(
    rich: tuple[Service, FakeProvider], recordings: Path, family: str
) -> None:
    """A stream the provider cuts off reaches the client as its first bytes and no clean end, and is charged."""
    service, provider = rich
    streams = [one for one in readable(recordings, family) if one["streaming"] and len(body_of(one)) > 200]
    streams = [one for one in streams if on_the_allowance(one)]
    customer = new_customer(service)
    draw = random.Random(11)  # noqa: S311
    for one in streams:
        body = body_of(one)
        check_cut(customer, provider, one, draw.randrange(1, len(body)))
    assert len(_all_events(customer, len(streams))) == len(streams)
    customer.check_ledger()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_broken_at_every_position(rich: tuple[Service, FakeProvider], recordings: Path, family: str) -> None:
    """The shortest recorded stream of each family, cut after each of its bytes (at most 400 places)."""
    service, provider = rich
    streams = [one for one in readable(recordings, family) if one["streaming"] and len(body_of(one)) > 200]
    streams = [one for one in streams if on_the_allowance(one)]
    one = min(streams, key=lambda stream: len(body_of(stream)))
    customer = new_customer(service)
    places = range(1, len(body_of(one)), max(1, len(body_of(one)) // 400))
    for place in places:
        check_cut(customer, provider, one, place)
    events = _all_events(customer, len(places))
    assert all(event.charged_tokens > 0 for event in events)
    customer.check_ledger()


def check_cut(customer: Customer, provider: FakeProvider, one: Recording, place: int) -> None:
    """The client sees a prefix of the recording, perhaps an error event, and a broken connection."""
    body = body_of(one)
    provider.clear()
    provider.replay([one], cut=place, cut_how="fin")
    status, received, _, broken = ask(customer, one)
    if status == 502:  # nothing had been passed on yet
        assert b"provider_failed" in received
        return
    assert broken, f"{one['id']} cut at {place} looked whole"
    common = len(received) if body.startswith(received) else _common(body, received)
    assert received[common:] == b"" or b"provider_failed" in received[common:], f"{one['id']} cut at {place}"


def _common(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _same_request(one: Recording, other: Recording) -> bool:
    return one["request_key"] == other["request_key"] or (
        (one["method"], one["url_path"], one["request_body"])
        == (other["method"], other["url_path"], other["request_body"])
    )


def _answers(exchanges: list[Recording], one: Recording) -> set[tuple[int, bytes, bool]]:
    """What may come for a request: several recordings answer one request in turn."""
    return {(other["response_status"], _seen(other), False) for other in exchanges if _same_request(one, other)}


def _seen(one: Recording) -> bytes:
    """What a client should see: the recording, less a usage chunk its (reconstructed) request did not ask for."""
    body = body_of(one)
    asked = b"include_usage" in body_of(one, "request")
    if asked or not (one["streaming"] and one.get("request_reconstructed") and "completions" in one["url_path"]):
        return body
    events = body.split(b"\n\n")
    return b"\n\n".join(e for e in events if not (b'"choices":[]' in e and b'"usage":{' in e))


def _wrong_of_same_request(exchanges: list[Recording], one: Recording, body: bytes, event: Any) -> str:
    same = [other for other in exchanges if _same_request(one, other) and _seen(other) == body]
    return min((wrong_usage(other, event) for other in same), key=len)


def _all_events(customer: Customer, number: int) -> list[Any]:
    events = customer.settled(number)
    assert len(events) == number
    return list(events)
