"""What live calls tell of an own key: its health follows them, and nothing else than what they show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ownkey.providers.health import Health
from ownkey.providers.registry import PROVIDERS
from ownkey.vault import key_health, provider_keys
from ownkey.vault.provider_keys import ProviderKey
from tests.fakes.provider import FakeProvider
from tests.gateway.conftest import PLANS
from tests.gateway.service import Customer, Service, new_customer, running, settings_for
from tests.gateway.wire import Reply, Wire, chat, post

OWN_KEY = "sk-own-key-0123456789-abcdefghijklmnop"
NO_MONEY = b'{"error":{"message":"You exceeded your current quota","type":"x","code":"insufficient_quota"}}'


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application, with little patience for a provider that is silent; xAI is not there at all."""
    folder: Path = tmp_path_factory.mktemp("traffic")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    with FakeProvider() as gone:
        urls = {**{slug: oracle.at(slug) for slug in PROVIDERS}, "xai": gone.url}
    with running(
        settings_for(oracle, data_dir=folder, plans_file=plans, base_urls=urls, first_byte_timeout=1), oracle
    ) as service:
        yield service


@pytest.fixture
def customer(service: Service, provider: FakeProvider) -> Customer:
    """An organization with own keys for two providers."""
    customer = new_customer(service)
    customer.connect("openai", OWN_KEY)
    customer.connect("xai", OWN_KEY)
    return customer


def send(customer: Customer, slug: str = "openai") -> Reply:
    """A call that generates, and its whole reply."""
    with Wire(customer.service.url) as wire:
        wire.send(post(f"/{slug}/v1/chat/completions", customer.token, chat(max_tokens=10)))
        return wire.reply()


def shown(customer: Customer, slug: str = "openai") -> ProviderKey:
    """The key as the page shows it."""
    node = customer.service.node
    keys = customer.service.do(lambda: provider_keys.list_keys(node.db, customer.actor))
    return next(key for key in keys if key.provider == slug)


def comes_to(customer: Customer, health: str, slug: str = "openai", within: float = 10.0) -> bool:
    """Whether the key's health becomes this soon; it is written beside the calls."""
    end = time.monotonic() + within
    while shown(customer, slug).health != health:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def wait_until_a_change_counts() -> None:
    """Until what a call tells is written at once again."""
    time.sleep(2.1)


def test_what_costs_nothing_does_not_show_that_a_key_works(customer: Customer, provider: FakeProvider) -> None:
    """The list of models is given to keys without credit, too; only that the key was used is noted."""
    provider.next(status=429, body=NO_MONEY)
    send(customer)
    assert comes_to(customer, "out_of_credit")
    wait_until_a_change_counts()
    relay = customer.service.application.relay
    relay.used_keys()
    with Wire(customer.service.url) as wire:
        wire.send(f"GET /openai/v1/models HTTP/1.1\nHost: here\nAuthorization: Bearer {customer.token}\n\n")
        assert wire.reply().status == 200
    assert shown(customer).id in relay.used_keys()
    assert not comes_to(customer, "active", within=0.5)
    assert send(customer).status == 200
    assert comes_to(customer, "active")


def test_a_provider_that_does_not_answer_is_unreachable(customer: Customer, provider: FakeProvider) -> None:
    """Whatever was chosen for a failing key: one that takes no connection, and one that is silent."""
    assert send(customer, "xai").status == 502
    assert comes_to(customer, "unreachable", "xai")
    provider.next(delay=float("inf"))
    assert send(customer).status == 504
    assert comes_to(customer, "unreachable")


def test_what_waits_does_not_undo_what_is_newer(customer: Customer, provider: FakeProvider) -> None:
    """A check by hand comes after the calls whose news is not written yet."""
    assert send(customer).status == 200
    provider.next(status=429)
    assert send(customer).status == 429
    key, db = shown(customer), customer.service.node.db
    note = partial(key_health.note_health, db, key.id, customer.actor.organization_id, Health.REJECTED, "No.")
    assert customer.service.do(note)
    assert not comes_to(customer, "limited", within=4)
    assert shown(customer).health == "rejected"


def test_the_last_that_traffic_showed_is_what_is_shown(customer: Customer, provider: FakeProvider) -> None:
    """A key that is revoked right after it worked is shown as rejected without another call; and back again."""
    assert send(customer).status == 200
    provider.next(status=401)
    assert send(customer).status == 403
    assert comes_to(customer, "rejected")
    assert send(customer).status == 200
    provider.next(status=429)
    assert send(customer).status == 429
    assert send(customer).status == 200
    assert comes_to(customer, "active")
    assert not comes_to(customer, "limited", within=3)
