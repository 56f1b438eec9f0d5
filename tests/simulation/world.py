"""A world: nodes on one database, customers, providers, and everything that may happen to them.

One integer decides all of it. The methods are what may happen; ``run_for`` lets time pass; ``close`` heals everything,
waits until it must have settled, and compares the last time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import StaticPool

from ownkey.db.engine import sqlite_pragmas
from ownkey.errors import OwnkeyError
from ownkey.gateway.call import read_call
from ownkey.metering.postgres_store import PostgresStore
from ownkey.metering.sqlite_store import SqliteStore
from ownkey.metering.store import Store, StoreFailed
from ownkey.providers.registry import find
from tests.simulation.books import Books
from tests.simulation.client import MemoryClient
from tests.simulation.clock import Clock, PostgresClock, VirtualLoop
from tests.simulation.complaints import listening
from tests.simulation.customer import Customer
from tests.simulation.faults import FaultyStore, Weather
from tests.simulation.node import SimulatedNode, product
from tests.simulation.oracle import Oracle, Request
from tests.simulation.provider import Provider, Script

if TYPE_CHECKING:
    from ownkey.node import Node

PLANS = (("middle", 12_000), ("small", 3_000), ("large", 60_000), ("none", 0))
SLUGS = ("openai", "anthropic", "gemini")
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
# Lease, reaper and the lease that a writer waits when its database was away; and what a stalled provider may take.
SETTLED_SECONDS = 20 + 20 + 5 + 5 + 15


class World:
    """See the module. ``plans`` are codes and tokens a month, the first one every customer's to begin with."""

    def __init__(
        self,
        seed: int,
        url: URL,
        *,
        nodes: int = 2,
        customers: int = 2,
        begins: datetime = datetime(2026, 11, 18, 12, tzinfo=UTC),
        weather: Weather | None = None,
        plans: tuple[tuple[str, int], ...] = PLANS,
    ) -> None:
        self.seed = seed
        self.steps = 0
        self.draw = random.Random(seed)  # noqa: S311
        self.weather = weather or Weather()
        self.clock = Clock(begins)
        self.loop = VirtualLoop(self.clock)
        self.node: Node = product(plans)
        self.provider = Provider(self.clock, self.loop, self.draw)
        self.url = url
        self.engine = _engine(url)
        self.customers = {
            customer.id: customer
            for customer in (
                Customer(number, self.engine, self.clock, self.node.keyring, dict(plans)) for number in range(customers)
            )
        }
        self.database_away_until = 0.0
        self.unreachable = 0.0
        self.oracle = Oracle(self, Books(url))
        self._listening = listening(self.oracle.blame)
        self._listening.__enter__()
        self.nodes: list[SimulatedNode] = []
        self._named = 0
        for slot in range(nodes):
            self.nodes.append(self._new_node(slot))
        self.run_for(0.001)

    # What may happen

    def call(
        self,
        slot: int,
        organization_id: str,
        slug: str = "openai",
        *,
        stream: bool = True,
        limit: int | None = 100,
        words: int = 10,
        by_token: bool = True,
        script: Script | None = None,
    ) -> Request:
        """A client asks a node for an answer of up to ``limit`` tokens; the provider will follow the script."""
        request_id = f"req_{len(self.oracle.requests):05}"
        node, customer = self.nodes[slot], self.customers[organization_id]
        path, body = _written(slug, f"{request_id} " + "word" * words, limit, stream=stream)
        path, _, query = path.partition("?")
        call = read_call(find(slug), "POST", path, query, [(b"content-type", b"application/json")], body)
        client = MemoryClient(lambda: self.oracle.told(request_id))
        request = Request(request_id, organization_id, slug, by_token, node, self.clock.now, len(body), limit, client)
        self.oracle.requests[request_id] = request
        if script is not None:
            self.provider.scripts[request_id] = script
        node.call(call, customer.caller(by_token=by_token), client, request_id)
        return request

    def leave(self, request: Request) -> None:
        """A client hangs up."""

        def go() -> None:
            if request.exchange is not None and not request.client.answered:
                request.client.left = True
                request.exchange.client_gone()

        if request.node.alive:
            request.node.loop.call_soon(go)

    def change(self, slot: int, apply: Callable[[], None]) -> list[OwnkeyError | None]:
        """Somebody changes something through a node; the list has the outcome when there is one."""
        outcome: list[OwnkeyError | None] = []
        self.nodes[slot].change(apply, outcome.append)
        return outcome

    def kill(self, node: SimulatedNode, again_after: float = 1.0) -> None:
        """kill -9; another node takes its place a while later."""
        if not node.alive:
            return
        slot = self.nodes.index(node)
        node.close()
        self.provider.node_died(node.wires)

        def restart() -> None:
            self.nodes[slot] = self._new_node(slot)

        self.loop.call_later(again_after, restart)

    def pause(self, slot: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while: what is due meanwhile is done late."""
        node = self.nodes[slot]
        node.paused_until = max(node.paused_until, self.clock.now + seconds)
        node.last_trouble = max(node.last_trouble, node.paused_until)

    def cut_off(self, slot: int, seconds: float) -> None:
        """A node cannot reach the database."""
        node = self.nodes[slot]
        node.away_until = max(node.away_until, self.clock.now + seconds)
        node.last_trouble = max(node.last_trouble, node.away_until)

    def outage(self, seconds: float) -> None:
        """Nobody can."""
        self.database_away_until = max(self.database_away_until, self.clock.now + seconds)
        for node in self.nodes:
            node.last_trouble = max(node.last_trouble, self.database_away_until)

    def set_clock(self, seconds: float) -> None:
        """The database's clock jumps."""
        self.clock.set_database(seconds)
        for node in self.nodes:
            node.trouble()

    def replay(self, slot: int) -> None:
        """A settlement that was made is made again."""
        if self.oracle.commands and self.nodes[slot].alive:
            self.nodes[slot].replay(self.draw.choice(self.oracle.commands))

    def reap(self, slot: int) -> None:
        """A reaper runs once more than it would."""
        if self.nodes[slot].alive:
            self.nodes[slot].reap()

    # Time

    def run_for(self, seconds: float) -> None:
        """Let time pass; raises ``Violation`` at the first one."""
        until = self.clock.now + seconds
        while True:
            first: VirtualLoop | None = None
            at = until
            for loop, paused_until in self._running():
                due = loop.due()
                if due is not None and (due := max(due, paused_until)) <= at and (first is None or due < at):
                    first, at = loop, due
            if first is None:
                break
            self.clock.now = max(self.clock.now, at)
            first.turn()
            if self.oracle.violations:
                break
        self.clock.now = max(self.clock.now, until)
        self.oracle.check()

    def close(self) -> None:
        """Heal everything, wait, and compare; then take the world down."""
        self.weather = Weather()
        self.unreachable = 0.0
        for node in self.nodes:
            node.away_until = node.paused_until = 0.0
        self.database_away_until = 0.0
        self.run_for(SETTLED_SECONDS)
        self.oracle.closed()

    def take_down(self) -> None:
        """Give everything back."""
        self._listening.__exit__(None, None, None)
        for node in self.nodes:
            if node.alive:
                node.close()
        self.loop.close()
        self.oracle.books.close()
        self.engine.dispose()

    def loops(self) -> Iterator[VirtualLoop]:
        """Those that run or are paused."""
        yield self.loop
        for node in self.nodes:
            if node.alive:
                yield node.loop

    def reaches_provider(self) -> bool | None:
        """Whether a connection is made, refused, or (None) neither."""
        if self.unreachable and self.draw.random() < self.unreachable:
            return self.draw.choice((False, None))
        return True

    def open_store(self, node: SimulatedNode) -> Store:
        """A connection of a node to the database, with its faults."""
        if node.is_away():
            raise StoreFailed("away")
        store: Store
        if self.url.get_backend_name() == "sqlite":
            store = SqliteStore(str(self.url.database), "OFF", lambda: self.clock.database)
            tell: Callable[[], None] = _nothing
        else:
            store = PostgresStore(self.url)
            tell = PostgresClock(store, self.clock).tell
        faulty: Store = FaultyStore(
            store,
            self,
            is_away=node.is_away,
            troubled=node.trouble,
            tell=tell,
            committed=self.oracle.committed,
            kill=lambda: self.kill(node),
        )
        return faulty

    def _new_node(self, slot: int) -> SimulatedNode:
        self._named += 1
        return SimulatedNode(self, f"node_{slot}_{self._named}")

    def _running(self) -> Iterator[tuple[VirtualLoop, float]]:
        yield self.loop, 0.0
        for node in self.nodes:
            if node.alive:
                yield node.loop, node.paused_until


def _written(slug: str, text: str, limit: int | None, *, stream: bool) -> tuple[str, bytes]:
    """A request as a client writes it: path and body."""
    if slug == "gemini":
        action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        body: dict[str, object] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        if limit is not None:
            body["generationConfig"] = {"maxOutputTokens": limit}
        return f"/v1beta/models/gemini-2.5-flash:{action}", json.dumps(body).encode()
    model = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5"}[slug]
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if limit is not None:
        body["max_tokens"] = limit
    return PATHS[slug], json.dumps(body).encode()


def _engine(url: URL) -> Engine:
    """What the customers' changes are written with. Nobody cuts the power, so SQLite need not wait for the disk."""
    engine = create_engine(url, poolclass=StaticPool)
    if url.get_backend_name() == "sqlite":
        for pragma in sqlite_pragmas("OFF"):
            with engine.connect() as connection:
                connection.exec_driver_sql(pragma)
    return engine


def _nothing() -> None:
    """The clock is told by a function of the connection."""
