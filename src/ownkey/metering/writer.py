"""The two trips of every request, many requests a transaction (group commit).

What waits together commits together: while one batch is with the database, commands gather for the next. A thread
owns the connection, so that a slow disk holds up admissions but no running stream. Nothing is answered before its
transaction has been committed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import cast

import structlog

from ownkey.errors import Internal, OwnkeyError, Unavailable
from ownkey.metering.batch import Batch, Command, Copies, Outcome, Reap
from ownkey.metering.reservations import Admission, Admit, CurrentKey, KeyRow
from ownkey.metering.settlement import Release, Renew, Settle
from ownkey.metering.store import Store, StoreFailed
from ownkey.plans import Catalogue

log = structlog.get_logger(__name__)

_PROBE_SECONDS = 0.5
OnAdmit = Callable[[Admission | OwnkeyError], None]
OnSettled = Callable[[], None]
Waiting = tuple[Command, Callable[[Outcome | BaseException], None]]


class Writer:
    """Batches commands for the database. All methods are for the event loop that started it."""

    def __init__(self, open_store: Callable[[], Store], catalogue: Catalogue, node: str) -> None:
        self._open_store = open_store
        self._catalogue = catalogue
        self._node = node
        self._store: Store | None = None
        self._copies = Copies()
        self._loop: asyncio.AbstractEventLoop
        self._queue: SimpleQueue[Sequence[Waiting] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="metering-writer", daemon=True)
        self._waiting: list[Waiting] = []
        self._turns: list[asyncio.Future[None]] = []
        self._busy = False
        self.down = False

    async def start(self) -> None:
        """Begin to work on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what waits (for ever if the database is away: bound it with a time-out), then end the thread."""
        while self._waiting or self._busy:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(0.01)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # What callers ask

    def admit(self, command: Admit, answer: OnAdmit) -> None:
        """Decide about a call; ``answer`` gets the admission or the refusal, after the commit."""
        if self.down:
            answer(Unavailable("The database is not available. Try again shortly."))
            return

        def done(outcome: Outcome | BaseException) -> None:
            if isinstance(outcome, StoreFailed):
                # Whether the commit reached the database is unknown: whatever was held must not stay held.
                self.release(command.request_id)
                answer(Unavailable("The database is not available. Try again shortly."))
            elif isinstance(outcome, Admission | OwnkeyError):
                answer(outcome)
            else:
                answer(Internal())

        self._ask(command, done)

    def current_key(
        self, organization_id: str, provider: str, answer: Callable[[KeyRow | OwnkeyError | None], None]
    ) -> None:
        """Read an organization's key for a provider; ``answer`` gets it, None, or ``Unavailable``."""

        def done(outcome: Outcome | BaseException) -> None:
            answer(outcome if outcome is None or isinstance(outcome, KeyRow) else Unavailable())

        self._ask(CurrentKey(organization_id, provider), done)

    def settle(self, command: Settle, answer: OnSettled) -> None:
        """Record what a call used; ``answer`` comes after the commit.

        If the database is away it comes at once, and the settlement stays queued until it has been written: the
        reservation, which is durable, keeps its tokens meanwhile.
        """
        answered = False

        def done(outcome: Outcome | BaseException) -> None:
            nonlocal answered
            if isinstance(outcome, StoreFailed):
                self._waiting.append((command, done))
            elif isinstance(outcome, BaseException):
                log.error("settlement refused by the database", request_id=command.request_id, error=repr(outcome))
            if not answered:
                answered = True
                answer()

        if self.down:
            answered = True
            self._waiting.append((command, done))
            answer()
        else:
            self._ask(command, done)

    def release(self, request_id: str) -> None:
        """Give a reservation back unused."""
        self._until_done(Release(request_id))

    def renew(self, commands: Sequence[Renew]) -> None:
        """Extend the leases of live calls. Lost if the database is away: the next round is a second later."""
        for command in commands:
            self._ask(command, _ignore)

    async def reap(self) -> int:
        """Settle reservations whose node died; returns how many. Raises ``Unavailable``."""
        future: asyncio.Future[int] = self._loop.create_future()

        def done(outcome: Outcome | BaseException) -> None:
            if future.done():
                return
            if isinstance(outcome, int):
                future.set_result(outcome)
            else:
                future.set_exception(Unavailable())

        self._ask(Reap(), done)
        return await future

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Between two batches: nothing is admitted inside, and every call admitted before it has been sent.

        Raises ``Unavailable`` while the database is away.
        """
        if self.down:
            raise Unavailable("The database is not available. Try again shortly.")
        future: asyncio.Future[None] = self._loop.create_future()
        self._turns.append(future)
        self._go_on()
        try:
            await future
            yield
        finally:
            if future in self._turns:
                self._turns.remove(future)
            elif not future.cancelled() and future.exception() is None:
                self._busy = False
                self._go_on()

    # The queue

    def _ask(self, command: Command, done: Callable[[Outcome | BaseException], None]) -> None:
        self._waiting.append((command, done))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._send)

    def _until_done(self, command: Command) -> None:
        def done(outcome: Outcome | BaseException) -> None:
            if isinstance(outcome, StoreFailed):
                self._waiting.append((command, done))

        self._ask(command, done)

    def _go_on(self) -> None:
        if self._busy:
            return
        while self._turns:
            turn = self._turns.pop(0)
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return
        if self._waiting:
            self._busy = True
            self._send()

    def _send(self) -> None:
        batch, self._waiting = self._waiting, []
        self._queue.put(batch)

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            outcomes = self._run([command for command, _ in batch])
            self._loop.call_soon_threadsafe(self._finish, batch, outcomes)
        if self._store is not None:
            self._store.close()

    def _run(self, commands: Sequence[Command]) -> Sequence[Outcome | BaseException]:
        try:
            return self._transact(commands)
        except StoreFailed as error:
            return [error] * len(commands)
        except Exception as error:  # a command the database refuses must not take the others with it
            if len(commands) == 1:
                log.error("a command failed", kind=type(commands[0]).__name__, error=repr(error))
                return [error]
            ordered = sorted(commands, key=lambda command: isinstance(command, Admit))
            done = {id(command): self._run([command])[0] for command in ordered}
            return [done[id(command)] for command in commands]

    def _transact(self, commands: Sequence[Command]) -> Sequence[Outcome | BaseException]:
        try:
            if self._store is None:
                self._store = self._open_store()
            return cast(
                "Sequence[Outcome | BaseException]",
                Batch(self._store, self._catalogue, self._node, self._copies).run(commands),
            )
        except StoreFailed:
            if self._store is not None:
                self._store.close()
                self._store = None
            raise

    def _finish(self, batch: Sequence[Waiting], outcomes: Sequence[Outcome | BaseException]) -> None:
        failed = isinstance(outcomes[0], StoreFailed) if outcomes else False
        if failed != self.down:
            self.down = failed
            log.warning("the database is away" if failed else "the database is back", cause=str(outcomes[0]))
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            try:
                done(outcome)
            except Exception:  # one client's failure must not leave the others of its batch unanswered
                log.exception("an answer could not be delivered")
        if failed:
            while self._turns:
                turn = self._turns.pop()
                if not turn.done():
                    turn.set_exception(Unavailable("The database is not available. Try again shortly."))
            self._loop.call_later(_PROBE_SECONDS, self._probe)
            return
        self._busy = False
        self._go_on()

    def _probe(self) -> None:
        self._waiting.append((Renew("", 0), _ignore))
        self._send()


def _ignore(outcome: Outcome | BaseException) -> None:
    """Nobody waits for this answer."""
