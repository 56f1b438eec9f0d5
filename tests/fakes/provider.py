"""The fake AI provider: the oracle that tests compare our ledger with.

It speaks OpenAI, Anthropic and Gemini on a real socket, remembers every request, key, byte and token, and misbehaves
on demand. In a test::

    with FakeProvider() as provider:                        # its own thread and event loop
        settings = {"OWNKEY_BASE_URL_OPENAI": provider.url}
        provider.script(tokens=20)                          # from now on
        provider.next(status=429, retry_after="7")          # only the next request
        ...
        assert provider.requests[0].tokens_out == 20

or by markers in the request's text, such as ``[[stall:3]]``, see ``tests.fakes.behaviour``. As a process::

    python -m tests.fakes.provider --port 9100

it is controlled over HTTP: ``GET /_fake/requests``, ``/_fake/totals``, ``/_fake/connections``; ``POST /_fake/script``,
``/_fake/next``, ``/_fake/accept``, ``/_fake/hold``, ``/_fake/release``, ``/_fake/clear`` with JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Any, Self

import uvloop

from tests.fakes.behaviour import Behaviour, from_json
from tests.fakes.plan import Headers, Plan
from tests.fakes.record import Connection, Received
from tests.fakes.replay import Recording, Replay, Split
from tests.fakes.server import CONTROL, Server

__all__ = ["Behaviour", "Connection", "FakeProvider", "Received"]


class FakeProvider:
    """A provider on a port of its own. Any thread may call any method; changes count from the next request."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keep_bodies: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``keep_bodies``: remember the bytes of every reply; leave it off for load. ``tls``: serve HTTPS."""
        self.keep_bodies = keep_bodies
        self._tls = tls
        self.connections: list[Connection] = []
        self.live: set[Server] = set()
        self._requests: list[Received] = []
        self._host, self._port = host, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._base = Behaviour()
        self._next: deque[Behaviour] = deque()
        self._keys: frozenset[str] | None = None
        self._replay: Replay | None = None
        self._holding = False
        self._held: deque[asyncio.Future[None]] = deque()

    # Running

    def start(self) -> str:
        """Begin to serve from a thread of its own; return the address."""
        started = threading.Event()
        failure: list[OSError] = []

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                try:
                    runner.run(self.serve(started))
                except OSError as error:
                    failure.append(error)
                    started.set()

        self._thread = threading.Thread(target=run, name="fake-provider", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            raise failure[0]
        return self.url

    async def serve(self, started: threading.Event | None = None) -> None:
        """Serve in the running event loop until ``stop()``."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._server = await self._loop.create_server(
            lambda: Server(self), self._host, self._port, backlog=4096, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]
        if started is not None:
            started.set()
        await self._stopped.wait()
        self._server.close()
        self._drop("rst")
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def stop(self) -> None:
        """Stop serving and close every connection."""
        if self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stopped.set)
        if self._thread is not None:
            self._thread.join()
        self._loop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``, what stands for a provider's ``https://host``."""
        return f"http://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def at(self, name: str) -> str:
        """An address whose requests are recorded with ``mount == name``; a replay then keeps to that provider."""
        return f"{self.url}/as/{name}"

    # Telling it what to do

    def script(self, behaviour: Behaviour | None = None, /, **changes: Any) -> None:
        """Behave so from now on: a whole behaviour, or fields that differ from the usual."""
        self._base = from_json(behaviour or Behaviour(), changes)

    def next(self, behaviour: Behaviour | None = None, /, times: int = 1, **changes: Any) -> None:
        """Behave so for the next requests, then as before; calls add up."""
        self._next.extend([from_json(behaviour or self._base, changes)] * times)

    def accept(self, keys: Collection[str] | None) -> None:
        """Take only these keys and answer others as the dialect answers a bad key; None takes every key."""
        self._keys = None if keys is None else frozenset(keys)

    def replay(
        self,
        recordings: Iterable[Recording] | None,
        *,
        split: Split = "whole",
        gap: float = 0.0,
        cut: int | None = None,
        cut_how: str = "rst",
        compress: bool = False,
        seed: int = 0,
    ) -> None:
        """Answer with recordings (see ``tests.fakes.replay``), and 404 where there is none; None ends that."""
        self._replay = None
        if recordings is not None:
            self._replay = Replay(
                recordings, split=split, gap=gap, cut=cut, cut_how=cut_how, compress=compress, seed=seed
            )

    def hold(self) -> None:
        """Receive requests but answer none, until ``release()``."""
        self._holding = True

    def release(self, number: int | None = None) -> None:
        """Answer the first ``number`` held requests and go on holding, or answer all and hold no more."""
        if number is None:
            self._holding = False
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go, number)

    def drop(self, how: str = "fin") -> None:
        """Close every open connection, idle or not: ``fin`` or ``rst``."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._drop, how)

    def _drop(self, how: str) -> None:
        for connection in list(self.live):
            connection.close(how)

    def clear(self) -> None:
        """Forget requests and scripts; be honest and fast again."""
        self._requests.clear()
        self.connections[:] = [connection for connection in self.connections if connection.closed_at is None]
        self._next.clear()
        self._base, self._keys, self._replay = Behaviour(), None, None
        self.release()

    # Asking what happened

    @property
    def requests(self) -> list[Received]:
        """Every request so far, in the order their heads arrived."""
        return list(self._requests)

    @property
    def last(self) -> Received:
        """The newest request."""
        return self._requests[-1]

    @property
    def held(self) -> int:
        """How many requests wait for ``release()``."""
        return len(self._held)

    def totals(self, key: str | None = None) -> tuple[int, int]:
        """Honest input and output tokens of all accepted requests, or of those with one key."""
        counted = [one for one in self._requests if one.accepted and (key is None or one.key == key)]
        return sum(one.tokens_in for one in counted), sum(one.tokens_out for one in counted)

    def wait(self, condition: int | Callable[[Self], bool], timeout: float = 5.0) -> None:
        """Block until so many requests are complete, or until a condition holds; ``TimeoutError`` otherwise."""
        deadline = time.monotonic() + timeout
        while not self._reached(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._requests)} requests arrived, {self.held} are held")
            time.sleep(0.002)

    async def wait_async(self, condition: int | Callable[[Self], bool], timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """The same without blocking the event loop of the caller."""
        deadline = time.monotonic() + timeout
        while not self._reached(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._requests)} requests arrived, {self.held} are held")
            await asyncio.sleep(0.002)

    def _reached(self, condition: int | Callable[[Self], bool]) -> bool:
        if isinstance(condition, int):
            return sum(one.complete for one in self._requests) >= condition
        return condition(self)

    # What the server asks

    def opened(self) -> Connection:
        """A connection was accepted."""
        connection = Connection(len(self.connections) + 1, time.time())
        self.connections.append(connection)
        return connection

    def begun(self, connection: Connection, method: str, target: str, headers: Headers) -> Received:
        """The head of a request arrived."""
        received = Received(len(self._requests) + 1, connection, method, target, headers)
        if not target.startswith(CONTROL):
            self._requests.append(received)
        return received

    def chosen(self, received: Received) -> Behaviour:
        """How to treat a request, markers aside: one of ``next()`` is used up."""
        return self._next.popleft() if self._next else self._base

    def refused(self, received: Received) -> bool:
        """Whether its key is not accepted."""
        return self._keys is not None and received.key not in self._keys

    def replayed(self, received: Received) -> Plan | None:
        """The recorded reply, if we replay."""
        if self._replay is None:
            return None
        recording = self._replay.find(received)
        if recording is None:
            received.note = "no recording"
            return Plan([], 404)
        return self._replay.plan(received, recording)

    async def admitted(self, received: Received) -> None:
        """Wait while requests are held."""
        if self._holding:
            turn = asyncio.get_running_loop().create_future()
            self._held.append(turn)
            try:
                await turn
            finally:
                if turn in self._held:
                    self._held.remove(turn)

    def _let_go(self, number: int | None) -> None:
        for _ in range(len(self._held) if number is None else min(number, len(self._held))):
            turn = self._held.popleft()
            if not turn.done():
                turn.set_result(None)

    def control(self, method: str, path: str, body: bytes) -> object:
        """The control interface of the process."""
        given = json.loads(body) if body else {}
        if method == "GET":
            reads: dict[str, Callable[[], object]] = {
                "requests": lambda: [one.summary() for one in self._requests],
                "totals": lambda: dict(zip(("tokens_in", "tokens_out"), self.totals(), strict=True)),
                "connections": lambda: [
                    {"number": c.number, "opened_at": c.opened_at, "closed_at": c.closed_at, "closed_by": c.closed_by}
                    for c in self.connections
                ],
            }
            return reads[path]()
        writes: dict[str, Callable[..., None]] = {
            "script": self.script,
            "next": self.next,
            "accept": self.accept,
            "hold": self.hold,
            "release": self.release,
            "clear": self.clear,
        }
        writes[path](**given)
        return {}


def main() -> None:
    """Run it as a process; the address is the first line printed."""
    parser = argparse.ArgumentParser(description="A fake AI provider for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keep-bodies", action="store_true")
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the thread starts, which inherits this
    provider = FakeProvider(options.host, options.port, keep_bodies=options.keep_bodies)
    print(provider.start(), flush=True)
    signal.sigwait(ends)
    provider.stop()


if __name__ == "__main__":
    main()
