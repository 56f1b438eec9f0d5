"""Several processes on one port: start them, replace one that dies, and pass every stop signal on to all."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

import structlog

from ownkey.cli.worker import command
from ownkey.errors import Unavailable
from ownkey.signals import stop_signals

# A worker that dies younger than this has not come up. The first one of its number ends all: another would not come up
# either. One that takes the place of a dead one is tried again, later and later: the database may be away just now, and
# the other workers are not.
_YOUNG_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 30.0

log = structlog.get_logger(__name__)


def supervise(host: str, port: int, count: int) -> None:
    """Serve on a reserved port with ``count`` processes until a signal ends them.

    Raises ``Unavailable`` if a worker does not come up.
    """
    asyncio.run(_Workers(host, port, count).run())


class _Workers:
    def __init__(self, host: str, port: int, count: int) -> None:
        self._host = host
        self._port = port
        self._count = count
        self._running: set[Process] = set()
        self._stopping = asyncio.Event()
        self._failed = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop, number)
        await asyncio.gather(*(self._keep(worker) for worker in range(self._count)))
        if self._failed:
            raise Unavailable("A worker did not come up; the lines above say why.")

    async def _keep(self, worker: int) -> None:
        """Start a worker, and another one whenever it dies, until we stop."""
        clock = asyncio.get_running_loop().time
        has_come_up, pause = False, 0.0
        while not self._stopping.is_set():
            started = clock()
            code = await self._live(worker)
            if self._stopping.is_set():
                return
            if clock() - started >= _YOUNG_SECONDS:
                has_come_up, pause = True, 0.0
            elif has_come_up:
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE_SECONDS)
            else:
                self._failed = True
                self._stop(signal.SIGTERM)
                return
            log.error("worker died; starting another", worker=worker, exit_code=code, after_seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, worker: int) -> int | None:
        """The whole life of a process: its exit code, or None if the machine had no room for it."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command(self._host, self._port, worker),
                stdin=PIPE,
                # Its own session: Ctrl-C reaches us only, and a worker is told once.
                start_new_session=True,
            )
        except OSError as error:
            log.error("a worker could not be started", worker=worker, cause=str(error))
            return None
        self._running.add(process)
        if self._stopping.is_set():  # the signal came while it was being started
            process.terminate()
        code = await process.wait()
        self._running.discard(process)
        return code

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(number)
