"""A service and a fake provider for each module of tests; a fresh organization for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.raw_provider import RawProvider
from tests.gateway.service import Customer, Service, new_customer, running, settings_for

PLANS = """
[plans.tested]
name = "Tested"
monthly_tokens = 1000000
api_access = true

[plans.tested.weights."weighed-*"]
cached_input = 0.5
output = 4
"""


@pytest.fixture(scope="module")
def oracle() -> Iterator[FakeProvider]:
    """The provider; clear it through ``provider``."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(oracle: FakeProvider) -> FakeProvider:
    """The provider, honest and with an empty memory."""
    oracle.clear()
    return oracle


@pytest.fixture(scope="module")
def raw() -> Iterator[RawProvider]:
    """A provider that answers with the bytes of its script."""
    provider = RawProvider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def service(oracle: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application over a real socket, on an SQLite file."""
    folder: Path = tmp_path_factory.mktemp("service")
    plans = folder / "plans.toml"
    plans.write_text(PLANS)
    with running(settings_for(oracle, data_dir=folder, plans_file=plans), oracle) as service:
        yield service


@pytest.fixture
def customer(service: Service, provider: FakeProvider) -> Customer:
    """An organization of its own for each test, with a million tokens."""
    return new_customer(service)
