"""The two trips of every request, many requests a transaction (group commit).

What waits together commits together: while one batch is with the database, commands gather for the next. A thread
works on them, so that a slow disk holds up admissions but no running stream; only where there is none, a lone command
is done at once. Nothing is answered before its transaction has been committed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, cast

import structlog

from ownkey.errors import Internal, OwnkeyError, Unavailable
from ownkey.metering.batch import Batch, Command, Outcome, Reap
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import LEASE_SECONDS, Admission, Admit, CurrentKey, KeyRow
from ownkey.metering.settlement import Release, Renew, Settle
from ownkey.metering.store import Contended, Store, StoreFailed
from ownkey.plans import Catalogue

log = structlog.get_logger(__name__)

_PROBE_SECONDS = 0.5
# How long callers wait for a change on PostgreSQL, which may have to wait for the batches of other, busy nodes.
_PATIENCE_WITH_CHANGES = 3.0
# Patience is counted in so many steps: while the whole machine stands still only one of them can pass.
_STEPS = 5
# How many batches it takes at most to write what is kept in memory: one ends a sweep that is under way.
_LAST_BATCHES = 3
# How long a change may hold up the batches.
_TURN_SECONDS = 5.0
OnAdmit = Callable[[Admission | OwnkeyError], None]
OnSettled = Callable[[], None]
Done = Outcome | BaseException
# A command, what to do with its outcome, and what its asker gave to be answered by. Not a closure: tens of thousands a
# second would be cycles for the collector.
Handler = Callable[["Writer", Command, Any, Done], None]
Waiting = tuple[Command, Handler, Any]


class Writer:
    """Batches commands for the database. All methods are for the event loop that started it."""

    def __init__(self, open_store: Callable[[], Store], catalogue: Catalogue, node: str) -> None:
        self._open_store = open_store
        self._catalogue = catalogue
        self._node = node
        self._store: Store | None = None
        self._copies = Copies()
        self._loop: asyncio.AbstractEventLoop
        self._queue: SimpleQueue[tuple[list[Waiting], list[Command]] | None] = SimpleQueue()
        self._in_flight: list[Waiting] = []
        self._watch: asyncio.TimerHandle | None = None
        self._worker = threading.Thread(target=self._work, name="metering-writer", daemon=True)
        self._waiting: list[Waiting] = []
        self._turns: list[asyncio.Future[None]] = []
        self._busy = False
        self._reap_after = 0.0
        self.down = False
        # Whether no call but the one that asks is under way in this process.
        self.is_alone: Callable[[], bool] = lambda: False
        # How long callers wait for a batch before they are told that the database is away, in seconds.
        self.patience = 1.0

    async def start(self) -> None:
        """Begin to work on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    async def stop(self) -> None:
        """Finish what waits (for ever if the database is away: bound it with a time-out), then end the thread."""
        while self._waiting or self._busy:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(0.01)
        self._queue.put(None)
        await asyncio.to_thread(self._worker.join)

    # What callers ask

    def admit(self, command: Admit, answer: OnAdmit) -> None:
        """Decide about a call; ``answer`` gets the admission or the refusal, after the commit."""
        if self.down:
            answer(_away())
        else:
            self._ask(command, Writer._admitted, answer)

    def _admitted(self, command: Command, answer: OnAdmit, outcome: Done) -> None:
        if type(outcome) is Admission or isinstance(outcome, OwnkeyError):
            answer(outcome)
        elif isinstance(outcome, StoreFailed) and isinstance(command, Admit):
            # Whether the commit reached the database is unknown: whatever was held must not stay held.
            self.release(command.request_id)
            answer(_away())
        else:
            answer(Internal())

    def current_key(
        self, organization_id: str, provider: str, answer: Callable[[KeyRow | OwnkeyError | None], None]
    ) -> None:
        """Read an organization's key for a provider; ``answer`` gets it, None, or ``Unavailable``."""
        if self.down:
            answer(_away())
        else:
            self._ask(CurrentKey(organization_id, provider), Writer._key_read, answer)

    def _key_read(self, command: Command, answer: Callable[[KeyRow | OwnkeyError | None], None], outcome: Done) -> None:
        answer(outcome if outcome is None or isinstance(outcome, KeyRow) else _away())

    def settle(self, command: Settle, answer: OnSettled) -> None:
        """Record what a call used; ``answer`` comes after the commit.

        If the database is away it comes at once, and the settlement stays queued until it has been written: the
        reservation, which is durable, keeps its tokens meanwhile.
        """
        if self.down:
            self._waiting.append((command, Writer._settled, _nothing))
            answer()
        else:
            self._ask(command, Writer._settled, answer)

    def release(self, request_id: str) -> None:
        """Give a reservation back unused."""
        self._ask(Release(request_id), Writer._settled, _nothing)

    def _settled(self, command: Command, answer: OnSettled, outcome: Done) -> None:
        if outcome is None:
            pass
        elif isinstance(outcome, StoreFailed):
            self._waiting.append((command, Writer._settled, _nothing))
        elif isinstance(outcome, BaseException):
            log.error("settlement refused by the database", command=repr(command), error=repr(outcome))
        answer()

    def renew(self, commands: Sequence[Renew]) -> None:
        """Extend the leases of live calls. Lost if the database is away: the next round is a second later."""
        for command in commands if not self.down else ():
            self._ask(command, Writer._renewed, None)

    def _renewed(self, command: Command, answer: None, outcome: Done) -> None:
        """Nobody waits for this answer."""

    async def reap(self) -> int:
        """Settle reservations whose node died; returns how many. Raises ``Unavailable``.

        Never in the batch that finds the database back: live calls must renew their leases first.
        """
        if self.down:
            raise _away()
        if self._loop.time() < self._reap_after:
            return 0
        future: asyncio.Future[int] = self._loop.create_future()
        self._ask(Reap(lambda: not self.down), Writer._reaped, future)
        return await future

    def _reaped(self, command: Command, future: asyncio.Future[int], outcome: Done) -> None:
        if future.done():
            return
        if isinstance(outcome, int):
            future.set_result(outcome)
        else:
            future.set_exception(_away())

    def turn(self) -> Turn:
        """Between two batches: nothing is admitted inside, and every call admitted before it has been sent.

        Raises ``Unavailable`` at once while the database is away.
        """
        if self.down:
            raise _away()
        return Turn(self)

    def _asked_for_turn(self) -> asyncio.Future[None]:
        if self.down:
            raise _away()
        future: asyncio.Future[None] = self._loop.create_future()
        self._turns.append(future)
        self._go_on()
        return future

    def _turn_over(self, future: asyncio.Future[None]) -> None:
        if future in self._turns:
            self._turns.remove(future)
        elif not future.cancelled() and future.exception() is None:
            if self._watch is not None:
                self._watch.cancel()
            if self.down:
                self._probe()
            else:
                self._busy = False
                self._go_on(after_turn=True)

    # The queue

    def _ask(self, command: Command, handler: Handler, answer: Any) -> None:
        self._waiting.append((command, handler, answer))
        if self._busy:
            return
        self._busy = True
        if self._may_run_here():
            self._send()
        else:  # what else comes in this turn of the loop goes with it
            self._loop.call_soon(self._send)

    def _may_run_here(self) -> bool:
        """Nobody is there whom a slow disk could hold up, and to change threads twice costs as much as the work."""
        return not self.down and self._store is not None and self._store.is_local and self.is_alone()

    def _go_on(self, *, after_turn: bool = False) -> None:
        """A batch and a turn take turns: however many changes wait, a call waits for one of them."""
        if self._busy:
            return
        while self._turns and not (after_turn and self._waiting):
            turn = self._turns.pop(0)
            if not turn.done():
                self._busy = True
                self._in_flight = []
                if self._store is not None and not self._store.is_local:
                    # A change in a file has nobody to wait for but this machine's disk: it has its whole turn.
                    self._be_patient(_PATIENCE_WITH_CHANGES / _STEPS, _STEPS)
                turn.set_result(None)
                return
        if self._waiting:
            self._busy = True
            self._send()

    def _send(self) -> None:
        self._in_flight, self._waiting = self._waiting, []
        commands = [command for command, _, _ in self._in_flight]
        if len(commands) == 1 and self._may_run_here():
            self._finish(self._in_flight, self._run(commands))
            return
        self._be_patient(self.patience / _STEPS, _STEPS)
        self._queue.put((self._in_flight, commands))

    def _be_patient(self, step: float, steps: int) -> None:
        if steps:
            self._watch = self._loop.call_later(step, self._be_patient, step, steps - 1)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """The database hangs: tell everybody who waits that it is away. What was sent to it may still be done."""
        was_down, self.down = self.down, True
        self._refuse_turns()
        # The same list that _finish gets: who was answered here is not answered there again.
        self._in_flight[:] = [self._answered_early(*waiting) for waiting in self._in_flight]
        waiting, self._waiting = self._waiting, []
        answered = [self._answered_early(*entry) for entry in waiting]
        self._waiting += [entry for entry in answered if isinstance(entry[0], Settle | Release)]
        if not was_down:
            log.warning("the database does not answer")

    def _answered_early(self, command: Command, handler: Handler, answer: Any) -> Waiting:
        if isinstance(command, Settle | Release):
            answer()
            return command, handler, _nothing
        handler(self, command, answer, _away())
        return command, Writer._too_late, None

    def _too_late(self, command: Command, answer: None, outcome: Done) -> None:
        """Its asker was told that the database is away, so what may have been admitted after all is given back."""
        if isinstance(command, Admit) and isinstance(outcome, Admission | StoreFailed):
            self.release(command.request_id)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            batch, commands = work
            self._loop.call_soon_threadsafe(self._finish, batch, self._run(commands))
        self._leave_nothing()
        if self._store is not None:
            self._store.close()

    def _leave_nothing(self) -> None:
        """Write what is kept in memory for a later batch: there will be none. Best effort, a database may be away."""
        uses = self._copies.uses
        uses.leave_nothing()
        with suppress(Exception):
            for _ in range(_LAST_BATCHES):
                if uses:
                    self._transact([])

    def _run(self, commands: Sequence[Command], tries: int = 3) -> Sequence[Done]:
        try:
            return self._transact(commands)
        except StoreFailed as error:
            return [error] * len(commands)
        except Contended as error:
            if tries:
                return self._run(commands, tries - 1)
            return [StoreFailed(str(error))] * len(commands)
        except Exception as error:  # a command the database refuses must not take the others with it
            if len(commands) == 1:
                log.error("a command failed", kind=type(commands[0]).__name__, error=repr(error))
                return [error]
            ordered = sorted(commands, key=lambda command: isinstance(command, Admit))
            done: dict[int, Done] = {}
            gone: StoreFailed | None = None
            for command in ordered:
                outcome = gone or self._run([command])[0]
                gone = outcome if isinstance(outcome, StoreFailed) else None
                done[id(command)] = outcome
            return [done[id(command)] for command in commands]

    def _transact(self, commands: Sequence[Command]) -> Sequence[Done]:
        try:
            if self._store is None:
                self._store = self._open_store()
            return cast(
                "Sequence[Done]",
                Batch(self._store, self._catalogue, self._node, self._copies).run(commands),
            )
        except StoreFailed:
            if self._store is not None:
                self._store.close()
                self._store = None
            self._copies.tallies.of.clear()  # another server may take over, without what was committed last
            raise

    def _finish(self, batch: Sequence[Waiting], outcomes: Sequence[Done]) -> None:
        if self._watch is not None:
            self._watch.cancel()
        failed = isinstance(outcomes[0], StoreFailed) if outcomes else False
        was_down, self.down = self.down, failed
        if was_down and not failed:
            # Live calls could not renew their leases meanwhile: give them the time to.
            self._reap_after = self._loop.time() + LEASE_SECONDS
            log.warning("the database is back")
        for (command, handler, answer), outcome in zip(batch, outcomes, strict=True):
            try:
                handler(self, command, answer, outcome)
            except Exception:  # one client's failure must not leave the others of its batch unanswered
                log.exception("an answer could not be delivered")
        if failed:
            self._refuse_turns()
            self._loop.call_later(_PROBE_SECONDS, self._probe)
            if not was_down:
                log.warning("the database is away", cause=str(outcomes[0]))
            return
        self._busy = False
        self._go_on()

    def _refuse_turns(self) -> None:
        while self._turns:
            turn = self._turns.pop()
            if not turn.done():
                turn.set_exception(_away())

    def _probe(self) -> None:
        self._waiting.append((Renew("", 0), Writer._renewed, None))
        self._send()


class Turn:
    """One turn of a writer; the body of its ``async with`` has five seconds.

    Raises ``Unavailable`` while the database is away, and when the time is over.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._future: asyncio.Future[None]
        self._limit: asyncio.Timeout

    async def __aenter__(self) -> None:
        """Wait for it."""
        self._future = self._writer._asked_for_turn()
        try:
            await self._future
            self._limit = await asyncio.timeout(_TURN_SECONDS).__aenter__()
        except BaseException:
            self._writer._turn_over(self._future)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the batches go on."""
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise _away() from late
        finally:
            self._writer._turn_over(self._future)
        if isinstance(error, TimeoutError):
            raise _away() from error


def _nothing() -> None:
    """Nobody waits any more."""


def _away() -> Unavailable:
    return Unavailable("The database is not available. Try again shortly.")
