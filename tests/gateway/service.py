"""The whole application on a real socket, in a thread with a loop of its own, beside a fake provider that counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import uvicorn
import uvloop

from ownkey import app
from ownkey.access import Actor
from ownkey.accounts.organizations import Created
from ownkey.credentials import Secret
from ownkey.gateway.sockets import listen
from ownkey.metering import allowances, ledger, usage_events
from ownkey.metering.allowances import Allowance
from ownkey.metering.usage_events import UsageEvent
from ownkey.node import Node
from ownkey.providers.addresses import Lookup, look_up
from ownkey.providers.health import Health
from ownkey.providers.registry import PROVIDERS, find
from ownkey.settings import Settings, read_settings
from ownkey.vault import provider_keys
from tests import build
from tests.fakes.provider import FakeProvider

T = TypeVar("T")
PLATFORM_KEY = "sk-platform-key-of-the-operator-0123456789"


class Service:
    """A running application. Its methods may be called from any thread; they wait until what they do is done."""

    def __init__(self, settings: Settings, provider: FakeProvider, lookup: Lookup = look_up) -> None:
        self.settings = settings
        self.lookup = lookup
        self.provider = provider
        self.url = ""
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._server: uvicorn.Server
        self.application: app.Application

    @property
    def node(self) -> Node:
        """What the process holds."""
        return self.application.node

    def start(self) -> None:
        """Begin to serve; raises what kept it from starting."""
        self._thread.start()
        self._started.wait(30)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop as SIGTERM does, and wait for the end."""
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the service did not stop"
        if self._failure is not None:
            raise self._failure

    def do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(30)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.application = await app.open_application(self.settings, self.lookup)
        self.application.writer.patience = 10.0  # a test is about what it says, not about how busy this machine is
        listening = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with self.application:
            self._server = app.server(self.application)
            self._started.set()
            await self._server.serve(sockets=[listening])


class Customer:
    """An organization of the service: its token, its keys, and what was counted for it."""

    def __init__(self, service: Service, created: Created, token: str) -> None:
        self.service = service
        self.created = created
        self.token = token
        self.actor = Actor.operator(created.organization.id, created.workspace.id)

    @property
    def _db(self) -> Any:
        return self.service.node.db

    def connect(self, provider: str, key: str, address: str = "") -> None:
        """Give the organization an own key, or replace it; ``address`` is stored as it is, without being judged."""
        row, secret = find(provider), Secret(key)
        node = self.service.node
        self.service.do(
            lambda: provider_keys.save(node.db, node.keyring, self.actor, row, secret, Health.ACTIVE, base_url=address)
        )

    def disconnect(self, provider: str) -> None:
        """Remove the own key."""
        self.service.do(lambda: provider_keys.remove(self._db, self.actor, provider))

    def allowance(self) -> Allowance:
        """The allowance of this month."""
        plan = next(iter(self.service.node.catalogue.values()))
        return self.service.do(lambda: allowances.current(self._db, self.actor, plan))

    def events(self) -> Sequence[UsageEvent]:
        """All usage events."""
        return self.service.do(lambda: usage_events.events(self._db, self.actor, limit=100_000))

    def settled(self, number: int) -> Sequence[UsageEvent]:
        """All usage events, as soon as there are so many and nothing is under way."""
        for _ in range(500):
            events = self.events()
            if len(events) >= number and not self.service.application.relay.active:
                break
            threading.Event().wait(0.01)
        assert len(events) == number, f"{len(events)} events, not {number}"
        return events

    def check_ledger(self) -> None:
        """Every balance is the sum of its entries."""
        assert self.service.do(lambda: ledger.verify(self._db)) == []


@contextmanager
def running(settings: Settings, provider: FakeProvider, lookup: Lookup = look_up) -> Iterator[Service]:
    """A service for as long as the block lasts; ``lookup`` resolves the hosts of organizations' own addresses."""
    service = Service(settings, provider, lookup)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def settings_for(provider: FakeProvider, **values: Any) -> Settings:
    """Settings that lead every provider to the fake one, with platform keys for the three main ones."""
    return read_settings(
        **{
            "metrics_address": "",
            "log_level": "DEBUG",
            "sqlite_synchronous": "NORMAL",
            "base_urls": {slug: provider.at(slug) for slug in PROVIDERS},
            "platform_keys": {slug: Secret(PLATFORM_KEY) for slug in ("openai", "anthropic", "gemini")},
            **values,
        }
    )


def new_customer(service: Service) -> Customer:
    """A new organization on the first plan, with an API token."""
    node = service.node
    plan = next(iter(node.catalogue))

    async def make() -> tuple[Created, str]:
        created = await build.organization(node.db, plan=plan, catalogue=node.catalogue)
        return created, await build.api_token(node.db, created)

    return Customer(service, *service.do(make))
