"""Processes: start one on a core, and read from /proc what it has used."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The gateway under test is alone on one core; load and provider share the other.
LOAD_CORE, GATEWAY_CORE = "0", "1"
_MICROSECONDS_A_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time in microseconds: of the first process's main thread, of its busiest other one, and of all the rest."""

    main: float
    second: float
    rest: float

    @property
    def total(self) -> float:
        """Of all threads and all processes."""
        return self.main + self.second + self.rest

    def since(self, before: Cpu, calls: float = 1) -> Cpu:
        """What was used since an earlier reading, for each of so many calls."""
        return Cpu(
            (self.main - before.main) / calls,
            (self.second - before.second) / calls,
            (self.rest - before.rest) / calls,
        )


def cpu_of(pid: int) -> Cpu:
    """What a process and its descendants have used so far; threads that have ended are in the rest."""
    threads = {int(path.name): _ticks(path / "stat") for path in (_PROC / str(pid) / "task").iterdir()}
    main = threads.pop(pid)
    second = max(threads.values(), default=0.0)
    total = sum(_ticks(_PROC / str(process) / "stat") for process in tree(pid))
    return Cpu(*(ticks * _MICROSECONDS_A_TICK for ticks in (main, second, total - main - second)))


def tree(pid: int) -> Sequence[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in _PROC.iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                children.setdefault(int(_fields(path / "stat")[1]), []).append(int(path.name))
    found = [pid]
    for process in found:
        found.extend(children.get(process, ()))
    return found


def memory_of(pid: int) -> float:
    """Resident memory of a process and its descendants, in MiB."""
    pages = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            pages += int((_PROC / str(process) / "statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _fields(stat: Path) -> Sequence[str]:
    # From the third on; the second, the name in brackets, may have spaces.
    return stat.read_text().rpartition(") ")[2].split()


def _ticks(stat: Path) -> float:
    try:
        fields = _fields(stat)
    except OSError:  # has just ended
        return 0.0
    return float(fields[11]) + float(fields[12])


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Until something accepts connections. Raises ``RuntimeError`` when the process ends or takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not listen on port {port} within {seconds:.0f} seconds")


@contextlib.contextmanager
def running(
    command: Sequence[str],
    core: str,
    port: int,
    environment: Mapping[str, str] | None = None,
    *,
    log: Path | None = None,
    seconds: float = 30,
) -> Iterator[int]:
    """A server on one core for as long as the block lasts; gives its process id. Its output goes to ``log``."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            ["taskset", "-c", core, *command],
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=output and subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(port, process, seconds)
            yield process.pid
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and do not wait for ever; what it started is in its session and goes with it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
