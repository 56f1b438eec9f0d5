"""What every test gets: a clean environment, no network, an event loop; and the fixtures, by subject."""

from __future__ import annotations

import os

import pytest
import uvloop
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.fixtures.missing",  # first: others import it
    "tests.fixtures.network",
    "tests.fixtures.time_limit",
    "tests.fixtures.browser",
    "tests.fixtures.postgres",
    "tests.fixtures.databases",
    "tests.fixtures.recordings",
    "tests.fixtures.passwords",
]

# How fast inputs are made is a matter of what else the machine does.
settings.register_profile("ownkey", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("ownkey")

_MEANT_FOR_TESTS = {"OWNKEY_CHROMIUM", "OWNKEY_COMPILED", "OWNKEY_PROVE", "OWNKEY_RECORDINGS"}


def pytest_configure() -> None:
    """Forget settings of the developer's shell: a test says itself what it needs."""
    for name in list(os.environ):
        foreign = name.startswith(("OWNKEY_", "PG")) or name.upper().endswith("_PROXY")
        if foreign and name not in _MEANT_FOR_TESTS:
            del os.environ[name]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The loop the product runs on."""
    return "asyncio", {"loop_factory": uvloop.new_event_loop}
