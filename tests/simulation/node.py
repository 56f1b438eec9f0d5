"""A node: the product's writer, relay and exchanges on a loop of virtual time; the database's thread is an event.

What is not the product's: the writer's thread is replaced by events, so that a draw decides when a batch reaches the
database and when its answer comes back; a new connection is one in memory; what the relay notes of a key's health is
not written.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from ownkey.credentials import Secret
from ownkey.db.engine import Database
from ownkey.errors import OwnkeyError, Unavailable
from ownkey.gateway.call import Call
from ownkey.gateway.exchange import Exchange
from ownkey.gateway.relay import Relay
from ownkey.mail import Mailer
from ownkey.metering.batch import Command
from ownkey.metering.reservations import Caller
from ownkey.metering.settlement import Release, Renew, Settle
from ownkey.metering.store import Store
from ownkey.metering.writer import Done, OnSettled, Writer
from ownkey.node import Node
from ownkey.plans import Catalogue, Plan
from ownkey.settings import read_settings
from tests.build import keyring
from tests.simulation.client import MemoryClient
from tests.simulation.clock import VirtualLoop
from tests.simulation.faults import FaultyStore, Killed
from tests.simulation.wire import Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

REAP_SECONDS = 5.0
FIRST_BYTE_SECONDS = 8.0
IDLE_SECONDS = 6.0
PLATFORM_KEYS = {slug: f"platform-key-of-{slug}" for slug in ("openai", "anthropic", "gemini")}


@cache
def product(plans: tuple[tuple[str, int], ...]) -> Node:
    """What all nodes hold. Its database is never opened: the writers have their own connections."""
    catalogue: Catalogue = {
        code: Plan(code=code, name=code, monthly_tokens=tokens, api_access=True) for code, tokens in plans
    }
    settings = read_settings(
        data_dir=Path("nowhere"),
        platform_keys={slug: Secret(text) for slug, text in PLATFORM_KEYS.items()},
        first_byte_timeout=FIRST_BYTE_SECONDS,
        idle_timeout=IDLE_SECONDS,
        connect_timeout=3,
    )
    database = Database(URL.create("sqlite", database="nowhere.db"))
    return Node(settings, database, keyring(), catalogue, Mailer(settings))


@cache
def _tls() -> ssl.SSLContext:
    """One for all nodes, as no connection is a real one: reading the machine's certificates takes as long as a seed."""
    return ssl.create_default_context()


class SimulatedRelay(Relay):
    """The relay less its notes on the health of keys, which need the pages' database."""

    def _write(self, note: Coroutine[Any, Any, object]) -> None:
        note.close()


class SimulatedWriter(Writer):
    """The writer, whose batches reach the database when the world says so."""

    def __init__(self, node: SimulatedNode, open_store: Callable[[], Store], catalogue: Catalogue) -> None:
        super().__init__(open_store, catalogue, node.name)
        self._on = node
        self._deep = 0
        self._queue = self  # type: ignore[assignment]

    async def start(self) -> None:
        """Work on the running loop, without a thread."""
        self._loop = asyncio.get_running_loop()

    def settle(self, command: Settle, answer: OnSettled) -> None:
        """Remember what was settled: it is asked again now and then, and must change nothing."""
        self._on.world.oracle.settled(command)
        super().settle(command, answer)

    def release(self, request_id: str) -> None:
        """Remember what was released."""
        self._on.world.oracle.released(request_id)
        super().release(request_id)

    def renew(self, commands: Sequence[Renew]) -> None:
        """Remember how much had arrived when it was noted."""
        self._on.world.oracle.noted(commands)
        super().renew(commands)

    def put(self, work: tuple[list[Any], list[Command]] | None) -> None:
        """A batch sets out."""
        assert work is not None
        if not self._on.alive:
            return
        self._loop.call_later(self._on.latency(), self._reach, *work)

    def _reach(self, batch: list[Any], commands: list[Command]) -> None:
        with suppress(Killed):
            self._loop.call_later(self._on.latency(answering=True), self._finish, batch, self._run(commands))

    def _run(self, commands: Sequence[Command], tries: int = 3) -> Sequence[Done]:
        """A batch is at the database, perhaps command by command."""
        self._deep += 1
        try:
            if isinstance(self._store, FaultyStore):
                self._store.may_refuse = len(commands) > 1
            outcomes = super()._run(commands, tries)
        finally:
            self._deep -= 1
        if not self._deep:
            self._on.world.oracle.decided(commands, outcomes)
        return outcomes


class NodeLoop(VirtualLoop):
    """The loop of a node: its connections are to the world's providers."""

    node: SimulatedNode

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Connect after a moment, or not at all."""
        await asyncio.sleep(self.node.world.draw.uniform(0.0005, 0.03))
        reaches = self.node.world.reaches_provider()
        if reaches is None:
            await asyncio.sleep(1_000)
        if not reaches:
            raise ConnectionRefusedError("refused")
        protocol = factory()
        wire = Wire(self, protocol, self.node.world.provider, host)
        self.node.wires.append(wire)
        protocol.connection_made(wire)
        return wire, protocol


class SimulatedNode:
    """One process: alive, paused until a time, or dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused_until = 0.0
        self.away_until = 0.0
        self.last_trouble = world.clock.now
        self.wires: list[Wire] = []
        self.loop = NodeLoop(world.clock)
        self.loop.node = self
        self.writer = SimulatedWriter(self, lambda: world.open_store(self), world.node.catalogue)
        self.relay = SimulatedRelay(world.node, self.writer)
        self.relay.now = self.loop.time
        self.relay.pool._tls = _tls()
        self._tasks: set[asyncio.Task[None]] = set()
        self.begin(self._live())

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on this node's loop."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self) -> None:
        """Start, then do the housekeeping that metering needs."""
        await self.writer.start()
        self.relay.start()
        while True:
            with suppress(Unavailable):
                while await self.writer.reap():
                    pass
            await asyncio.sleep(REAP_SECONDS)

    def call(self, call: Call, caller: Caller, client: MemoryClient, request_id: str) -> None:
        """A request came in."""

        def start() -> None:
            exchange = Exchange(self.relay, client, caller, call, request_id)
            self.world.oracle.requests[request_id].exchange = exchange
            exchange.start()

        self.loop.call_soon(start)

    def change(self, apply: Callable[[], None], done: Callable[[OwnkeyError | None], None]) -> None:
        """Change something a page would change: in this node's turn, as every change is."""

        async def work() -> None:
            try:
                async with self.writer.turn():
                    if self.is_away():
                        raise Unavailable("away")
                    apply()
            except OwnkeyError as error:
                done(error)
            else:
                done(None)

        self.begin(work())

    def reap(self) -> None:
        """A reaper that runs out of turn."""

        async def work() -> None:
            with suppress(Unavailable):
                await self.writer.reap()

        self.begin(work())

    def replay(self, command: Settle | Release) -> None:
        """A settlement that is asked again."""
        if isinstance(command, Settle):
            self.loop.call_soon(Writer.settle, self.writer, command, _nothing)
        else:
            self.loop.call_soon(Writer.release, self.writer, command.request_id)

    def is_away(self) -> bool:
        """Whether the database is out of reach from here."""
        return self.world.clock.now < max(self.away_until, self.world.database_away_until)

    def trouble(self) -> None:
        """Something is wrong here: for a while, leases may run out."""
        self.last_trouble = max(self.last_trouble, self.world.clock.now)

    def latency(self, *, answering: bool = False) -> float:
        """How long a batch is on its way."""
        draw = self.world.draw
        if self.world.weather.slow and draw.random() < self.world.weather.slow:
            seconds = draw.choice((0.3, 1.5, 4.0))
            self.last_trouble = max(self.last_trouble, self.world.clock.now + seconds)
            return seconds
        return draw.uniform(0.0001, 0.002 if answering else 0.005)

    def close(self) -> None:
        """Forget everything, as a killed process does."""
        self.alive = False
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(RuntimeError, ValueError):  # it is the one that is running
                task.get_coro().close()
        if isinstance(self.writer._store, FaultyStore):
            self.writer._store.close()
        self.loop.close()


def _nothing() -> None:
    """Nobody waits."""
