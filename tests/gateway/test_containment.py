"""Own keys under every fault: each stays at its own host, and neither the platform's key nor the allowance helps.

What hosts received is what they counted themselves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ownkey.credentials import Secret
from tests.fakes.provider import FakeProvider, Received
from tests.gateway.conftest import PLANS
from tests.gateway.installation import free_port
from tests.gateway.scale import PROVING, scaled
from tests.gateway.service import PLATFORM_KEY, Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Reply, Wire, chat, post

CALLS, AT_ONCE = scaled(200, 5_000), 24
AWAY = "mistral"
SLUGS = ("openai", "anthropic", "gemini", AWAY)
OWN_KEYS: Mapping[str, str] = {slug: f"own-key-of-{slug}-0123456789-abcdefghijklmnop" for slug in SLUGS}
# Markers that make the fake provider behave so. The first answers well: a key that works is used, too.
FAULTS: Sequence[str] = (
    "",
    "[[echo]]",
    "[[status:401]]",
    "[[status:402]]",
    "[[status:403]]",
    "[[status:404]]",
    "[[status:429]]",
    "[[status:429:7]]",
    "[[status:500]]",
    "[[status:502]]",
    "[[status:503:7]]",
    "[[status:529]]",
    "[[status:307]]",
    "[[no_reply]]",
    "[[no_reply:rst]]",
    "[[cut:0]]",
    "[[cut:2:rst]]",
    "[[error_after:2]]",
    "[[no_end]]",
    "[[delay:inf]]",
    "[[stall:0]]",
    "[[stall:2]]",
    "[[gzip]]",
    "[[malformed:garbage]]",
    "[[malformed:chunk_size]]",
    "[[malformed:length_long]]",
    "[[malformed:two_lengths]]",
    "[[malformed:not_json]]",
    "[[malformed:half_json]]",
)


class Hosts(NamedTuple):
    """A service, and the host of each provider; nobody listens at that of ``AWAY``."""

    service: Service
    by_slug: Mapping[str, FakeProvider]

    def requests(self) -> Iterator[tuple[str, Received]]:
        """All that the hosts received."""
        for slug, host in self.by_slug.items():
            for one in host.requests:
                yield slug, one


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """The service has platform keys for all, and little patience."""
    plans = tmp_path / "plans.toml"
    plans.write_text(PLANS)
    with ExitStack() as stack:
        by_slug = {slug: stack.enter_context(FakeProvider()) for slug in SLUGS if slug != AWAY}
        urls = {slug: host.url for slug, host in by_slug.items()} | {AWAY: f"http://127.0.0.1:{free_port()}"}
        settings = settings_for(
            by_slug["openai"],
            data_dir=tmp_path,
            plans_file=plans,
            base_urls=urls,
            platform_keys={slug: Secret(PLATFORM_KEY) for slug in SLUGS},
            first_byte_timeout=0.5,
            idle_timeout=0.5,
        )
        yield Hosts(stack.enter_context(running(settings, by_slug["openai"])), by_slug)


def request(customer: Customer, slug: str, text: str, stream: bool) -> bytes:
    """A call to a provider, in its own format."""
    if slug == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        body: dict[str, Any] = {"contents": [{"parts": [{"text": text}]}]}
        return post(f"/gemini/v1beta/models/gemini-2.5-flash:{method}", customer.token, body)
    path = "/anthropic/v1/messages" if slug == "anthropic" else f"/{slug}/v1/chat/completions"
    return post(path, customer.token, chat(text, stream=stream, max_tokens=100))


def ask(customer: Customer, slug: str, text: str, stream: bool) -> Reply:
    """Its reply; asked again if the machine kept the database from answering in time, before anything was sent."""
    while (reply := _ask_once(customer, slug, text, stream)).status == 503 and b"The database is not" in reply.body:
        pass
    return reply


def _ask_once(customer: Customer, slug: str, text: str, stream: bool) -> Reply:
    """One that breaks off has status 0 and no head."""
    with Wire(customer.service.url, timeout=30) as wire:
        wire.send(request(customer, slug, text, stream))
        try:
            return wire.reply()
        except ConnectionError:
            return Reply(0, {}, b"")


def everything(one: Received) -> bytes:
    """All bytes of a request."""
    head = "\r\n".join(f"{name}: {value}" for name, value in one.headers)
    return f"{one.method} {one.target}\r\n{head}\r\n\r\n".encode() + one.body


@pytest.mark.prove
@pytest.mark.timeout(1800 if PROVING else 120)
def test_a_failing_key_is_never_made_up_for(hosts: Hosts) -> None:
    """Thousands of faults, on four hosts at once: no byte of a key elsewhere, no call sent twice, no token taken."""
    customer, draw = new_customer(hosts.service), random.Random(10)  # noqa: S311
    for slug, key in OWN_KEYS.items():
        customer.connect(slug, key)
    calls = [(SLUGS[n % 4], f"{FAULTS[n % len(FAULTS)]} call {n}.", draw.random() < 0.5) for n in range(CALLS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda call: ask(customer, *call), calls))

    # A host that hangs up on a kept connection just then has not read the call, which is not sent again.
    received = Counter(one.body[one.body.index(b" call ") :].split(b".")[0] for _, one in hosts.requests())
    assert set(received.values()) == {1}
    lost = [
        (text, reply.status, reply.body)
        for (slug, text, _), reply in zip(calls, replies, strict=True)
        if slug != AWAY and not received[text[text.index(" call ") : -1].encode()]
    ]
    assert [one for one in lost if b"provider_failed" not in one[2]] == []
    assert len(lost) < CALLS / 50
    for slug, one in hosts.requests():
        data = everything(one)
        assert PLATFORM_KEY.encode() not in data
        assert [name for name, key in OWN_KEYS.items() if key.encode() in data] == [slug]
    for host in hosts.by_slug.values():
        assert [bad for connection in host.connections for bad in connection.bad_requests] == []

    events = customer.settled(sum(received.values()) + len(lost))
    assert {(event.billed_to, event.charged_tokens, event.fallback) for event in events} == {("own_key", 0, None)}
    assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)
    customer.check_ledger()
    for reply in replies:
        assert reply.headers.get("x-ownkey-billed-to", "own_key") == "own_key"
        assert "x-ownkey-fallback" not in reply.headers
        shown = reply.body + str(reply.headers).encode()
        assert not any(key.encode() in shown for key in (PLATFORM_KEY, *OWN_KEYS.values()))
    assert len({reply.status for reply in replies}) > 8
    assert any(reply.status == 200 for reply in replies)

    # The same search finds the platform's key where it belongs: once the own key is gone, in the next call.
    for slug, host in hosts.by_slug.items():
        customer.disconnect(slug)
        assert ask(customer, slug, "[[tokens:3]] after", False).headers["x-ownkey-billed-to"] == "allowance"
        assert PLATFORM_KEY.encode() in everything(host.last)
        assert OWN_KEYS[slug].encode() not in everything(host.last)
    assert customer.allowance().used > 0
