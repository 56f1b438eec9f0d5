"""Keys that come with an address: each goes to its own host, to an address that was judged, and nowhere else."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ownkey.credentials import Secret
from ownkey.gateway.upstream import Pool
from ownkey.providers.addresses import AddressRefused, AllowedHosts, Guard
from ownkey.providers.health import Health
from ownkey.providers.registry import find
from tests.fakes.certificates import Authority
from tests.fakes.provider import FakeProvider
from tests.gateway.conftest import PLANS
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Reply, Wire, chat, post

NAME = "llm.ollama.com"
KEY = "key-of-the-organization-0123456789"


class Names:
    """A resolver: what a name leads to, one answer after another, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Sequence[str]] = []
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A certificate authority that this machine trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
def here(authority: Authority) -> Iterator[FakeProvider]:
    """A provider at 127.0.0.1 whose certificate is for ``NAME``."""
    with FakeProvider(tls=authority.context(NAME, "127.0.0.1")) as provider:
        yield provider


@pytest.fixture
def names() -> Names:
    """The resolver."""
    return Names()


Start = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def start(tmp_path: Path, provider: FakeProvider, names: Names) -> Start:
    """Start the application with these settings."""

    def start(**settings: Any) -> AbstractContextManager[Service]:
        plans = tmp_path / "plans.toml"
        plans.write_text(PLANS)
        return running(settings_for(provider, data_dir=tmp_path, plans_file=plans, **settings), provider, names)

    return start


def ask(customer: Customer) -> Reply:
    """One call on Ollama."""
    with Wire(customer.service.url) as wire:
        wire.send(post("/ollama/v1/chat/completions", customer.token, chat()))
        return wire.reply()


def check(service: Service, address: str) -> Health:
    """The key check, at this address."""
    return service.do(lambda: service.node.providers.check(find("ollama"), address, Secret(KEY))).health


def test_a_key_goes_to_the_host_that_came_with_it(here: FakeProvider, names: Names, start: Start) -> None:
    """The name is resolved by us, the certificate checked for it, and the request carries it as its host."""
    names.answers = [["127.0.0.1"]]
    address = f"https://{NAME}:{here.port}"
    with start(allowed_hosts="127.0.0.1") as service:
        customer = new_customer(service)
        assert check(service, f"{address}/team") is Health.ACTIVE
        customer.connect("ollama", KEY, f"{address}/team")
        replies = [ask(customer) for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    assert {(request.host, request.key) for request in here.requests} == {(f"{NAME}:{here.port}", KEY)}
    assert [r.target for r in here.requests] == ["/team/api/tags", *["/team/v1/chat/completions"] * 3]
    assert names.asked == [NAME, NAME]  # the check's connection, and one for all calls
    assert service.provider.requests == []


def test_a_certificate_for_another_name_is_refused(authority: Authority, names: Names, start: Start) -> None:
    """Whoever takes over the address of a name cannot read the key without its certificate."""
    names.answers = [["127.0.0.1"]]
    with FakeProvider(tls=authority.context("other.example")) as other, start(allowed_hosts="127.0.0.1") as service:
        customer = new_customer(service)
        assert check(service, f"https://{NAME}:{other.port}") is Health.UNREACHABLE
        customer.connect("ollama", KEY, f"https://{NAME}:{other.port}")
        assert ask(customer).status == 502
        assert other.requests == []


def test_a_name_that_leads_to_the_loopback_reaches_nothing(here: FakeProvider, names: Names, start: Start) -> None:
    """Without the operator's approval a name of the provider's own domain does not lead inside; it is told."""
    names.answers = [["127.0.0.1"]]
    address = f"https://{NAME}:{here.port}"
    with start() as service:
        customer = new_customer(service)
        with pytest.raises(AddressRefused, match="leads to a network where no key may be sent"):
            check(service, address)
        customer.connect("ollama", KEY, address)
        reply = ask(customer)
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    assert NAME in reply.json["error"]["message"]
    assert here.connections == []


def test_a_name_that_changes_its_mind_reaches_nothing(here: FakeProvider, names: Names, start: Start) -> None:
    """DNS rebinding: what is connected to is what was judged, and the next connection is judged anew.

    The first answer is an allowed address where nobody listens, the second the loopback, where the oracle does.
    """
    address = f"https://{NAME}:{here.port}"
    with start(allowed_hosts="127.0.0.2") as service:
        customer = new_customer(service)
        names.answers = [["127.0.0.2"], ["127.0.0.1"]]
        assert check(service, address) is Health.UNREACHABLE
        assert names.asked == [NAME]
        customer.connect("ollama", KEY, address)
        names.answers, names.asked = [["127.0.0.2"], ["127.0.0.1"]], []
        assert ask(customer).status == 502
        assert names.asked == [NAME]
        for _ in range(3):  # from now on the name leads to the loopback
            assert ask(customer).status == 502
            with pytest.raises(AddressRefused):
                check(service, address)
        names.answers = [["127.0.0.2", "127.0.0.1"]]  # a good one does not vouch for a bad one
        assert ask(customer).status == 502
    assert here.connections == []


def test_the_judged_address_is_the_one_connected_to(
    authority: Authority, here: FakeProvider, names: Names, start: Start
) -> None:
    """With another provider at the judged address, it gets the call, and the one the name leads to now does not."""
    tls = authority.context(NAME)
    with FakeProvider("127.0.0.2", here.port, tls=tls) as judged, start(allowed_hosts="127.0.0.2") as service:
        customer = new_customer(service)
        names.answers = [["127.0.0.2"], ["127.0.0.1"]]
        customer.connect("ollama", KEY, f"https://{NAME}:{here.port}")
        assert [ask(customer).status for _ in range(3)] == [200] * 3
        assert len(judged.requests) == 3
    assert here.connections == []


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:{port}",
        "https://localhost:{port}",
        "https://[::ffff:127.0.0.1]:{port}",
        "https://2130706433:{port}",
        "https://0x7f.1:{port}",
        "https://elsewhere.example:{port}",
        "http://llm.ollama.com:{port}",
    ],
)
def test_a_stored_address_is_judged_before_it_is_used(
    address: str, here: FakeProvider, names: Names, start: Start
) -> None:
    """What is not allowed now is not used, even if it was when it was stored."""
    names.answers = [["127.0.0.1"]]
    with start() as service:
        customer = new_customer(service)
        customer.connect("ollama", KEY, address.format(port=here.port))
        reply = ask(customer)
    assert (reply.status, reply.json["error"]["code"]) == (502, "provider_failed")
    assert "The provider key cannot be used." in reply.json["error"]["message"]
    assert names.asked == []
    assert here.connections == []


def test_a_redirect_to_the_loopback_is_not_followed(
    here: FakeProvider, provider: FakeProvider, names: Names, start: Start
) -> None:
    """A provider's redirect comes back to the caller as it is; neither a call nor a check goes there."""
    names.answers = [["127.0.0.1"]]
    address = f"https://{NAME}:{here.port}"
    with start(allowed_hosts="127.0.0.1") as service:
        customer = new_customer(service)
        customer.connect("ollama", KEY, address)
        here.script(status=307, body=b"", headers=(("location", f"{provider.url}/v1/chat/completions"),))
        reply = ask(customer)
        assert check(service, address) is Health.UNVERIFIED
    assert reply.status == 307
    assert provider.requests == []


def test_proxies_of_the_environment_get_nothing(
    here: FakeProvider, names: Names, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables, in either case, reroute neither calls nor checks nor anything else that carries a key."""
    names.answers = [["127.0.0.1"]]
    with FakeProvider() as trap:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, trap.url)
            monkeypatch.setenv(name.lower(), trap.url)
        with start(allowed_hosts="127.0.0.1") as service:
            customer = new_customer(service)
            assert check(service, f"https://{NAME}:{here.port}") is Health.ACTIVE
            assert service.do(lambda: service.node.providers.check(find("openai"), "", Secret(KEY))).health.value
            customer.connect("ollama", KEY, f"https://{NAME}:{here.port}")
            assert ask(customer).status == 200
            with Wire(service.url) as wire:
                wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
                assert wire.reply().status == 200
        assert trap.connections == []


def test_the_operators_own_address_is_not_judged(provider: FakeProvider, names: Names, start: Start) -> None:
    """What the settings name may be private and plain HTTP, and serves keys that came without an address, or none."""
    with start(platform_keys={"ollama": Secret("none")}) as service:
        customer = new_customer(service)
        assert ask(customer).headers["x-ownkey-billed-to"] == "allowance"
        assert provider.last.keys == {}
        customer.connect("ollama", KEY)
        assert ask(customer).headers["x-ownkey-billed-to"] == "own_key"
        assert provider.last.key == KEY
        customer.connect("ollama", "")
        assert ask(customer).status == 200
        assert provider.last.keys == {}
    assert names.asked == []


def test_an_added_provider_is_served(provider: FakeProvider, tmp_path: Path, start: Start) -> None:
    """A provider of the operator's file has a path, takes platform and own keys, and is metered like any other."""
    file = tmp_path / "providers.toml"
    file.write_text(f'[providers.acme-llm]\naddress = "{provider.at("acme-llm")}"\nname = "Acme LLM"\n')
    with start(providers_file=file, platform_keys={"acme-llm": Secret("key-of-the-operator-01234")}) as service:
        customer = new_customer(service)
        with Wire(service.url) as wire:
            wire.send(post("/acme-llm/v1/chat/completions", customer.token, chat()))
            assert wire.reply().status == 200
        (event,) = customer.settled(1)
    assert (event.provider, event.billed_to) == ("acme-llm", "allowance")
    assert event.charged_tokens == sum(provider.totals())
    assert (provider.last.mount, provider.last.key) == ("acme-llm", "key-of-the-operator-01234")


def test_a_guarded_connection_is_not_shared_with_another_kind(names: Names) -> None:
    """An origin that the operator named and the same one that an organization named keep connections apart."""
    pool, guard = Pool(1), Guard(AllowedHosts(), names)
    assert pool.origin("https://a.example") is pool.origin("https://a.example")
    assert pool.origin("https://a.example", guard) is pool.origin("https://a.example", guard)
    assert pool.origin("https://a.example", guard) is not pool.origin("https://a.example")


def test_what_no_key_names_any_more_is_forgotten() -> None:
    """An organization that gives one address after another does not fill the memory."""
    pool = Pool(1)
    kept = pool.origin("https://kept.example")
    for number in range(50):
        pool.origin(f"https://{number}.example")
    gc.collect()
    assert list(pool._origins.values()) == [kept]
