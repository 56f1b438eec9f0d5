"""An installation as an operator has it: a folder, an environment, commands, and the server as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from ownkey.db.engine import database_url
from ownkey.gateway.sockets import listen
from ownkey.vault.kek import new_kek
from tests.fakes.provider import FakeProvider
from tests.gateway.wire import Wire


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One ``ownkey serve`` of an installation on a port of its own, started and ended as often as a test likes."""

    def __init__(self, here: Installation, workers: int = 1) -> None:
        self._here = here
        self._workers = workers
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        assert self._process is not None, "it was never started"
        return self._process

    def start(self) -> None:
        """Start it; it is not yet ready."""
        with open(self._here.log, "ab") as log:
            command = [sys.executable, "-m", "ownkey", "serve", "--port", str(self.port)]
            command += ["--workers", str(self._workers)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._here.environment)

    def status(self, health: str = "ready") -> int:
        """What it says of its health, 0 if it says nothing: ``ready`` or ``live``."""
        with suppress(ConnectionError, TimeoutError), Wire(self.url, 2) as wire:
            wire.send(f"GET /healthz/{health} HTTP/1.1\nHost: here\nConnection: close\n\n")
            return wire.reply().status
        return 0

    def start_again(self) -> None:
        """Start at once what ``ownkey serve`` becomes after a while: for those that do so often."""
        with listen("127.0.0.1", self.port) as listening, open(self._here.log, "ab") as log:
            number = listening.fileno()
            command = [sys.executable, "-P", "-m", "ownkey.cli.worker", str(number)]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._here.environment, pass_fds=[number]
            )

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until it takes requests."""
        deadline = time.monotonic() + seconds
        while self.status() != 200:
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, f"it is not ready after {seconds} s"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it where it stands."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds: float = 45) -> int:
        """End it as an operator does; its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def end(self) -> None:
        """Leave no process behind, whatever a test has come to."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)


class Installation:
    """One organization's worth of an installation on SQLite; everything it says is kept, to be searched."""

    def __init__(self, folder: Path, provider: FakeProvider, tokens: int = 100_000) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.port, self.metrics = free_port(), free_port()
        self.said: dict[str, bytes] = {}
        plans = folder / "plans.toml"
        plans.write_text(f'[plans.free]\nname = "Free"\nmonthly_tokens = {tokens}\napi_access = true\n')
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OWNKEY_DATA_DIR": str(folder / "data"),
            "OWNKEY_PLANS_FILE": str(plans),
            "OWNKEY_LOG_LEVEL": "DEBUG",
            "OWNKEY_METRICS_ADDRESS": f"127.0.0.1:{self.metrics}",
            "OWNKEY_BASE_URL_OPENAI": provider.at("openai"),
        }

    def use(self, postgres: URL) -> None:
        """Keep everything in a PostgreSQL, as several nodes must; no node serves metrics then."""
        self.environment |= {
            "OWNKEY_DATABASE_URL": postgres.render_as_string(hide_password=False),
            "OWNKEY_VAULT_KEYS": new_kek(),
            "OWNKEY_METRICS_ADDRESS": "",
        }

    @property
    def database(self) -> URL:
        """Where everything is kept."""
        return database_url(self.folder / "data", self.environment.get("OWNKEY_DATABASE_URL"))

    def run(self, *arguments: str, text: str | None = None) -> str:
        """An operator command; what it prints is kept as a sink."""
        return self._command(*arguments, text=text).stdout

    def _command(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ownkey", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )
        self.said[f"command {len(self.said)}: {' '.join(arguments[:2])}"] = (done.stdout + done.stderr).encode()
        return done

    def verify_ledger(self) -> None:
        """The operator's own check of the books finds nothing, and its exit code says so."""
        done = self._command("ledger", "verify", "--json")
        assert (json.loads(done.stdout), done.returncode) == ({"differences": []}, 0), done.stdout + done.stderr

    @contextmanager
    def nodes(self, number: int, workers: int = 1) -> Iterator[list[Node]]:
        """So many nodes, all ready; none is left at the end, however that comes."""
        nodes = [Node(self, workers) for _ in range(number)]
        try:
            for node in nodes:
                node.start()
            for node in nodes:
                node.wait_until_ready()
            yield nodes
        finally:
            for node in nodes:
                node.end()

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server, for as long as the block lasts."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ownkey", "serve", "--port", str(self.port)],
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        try:
            for _ in range(300):
                try:
                    self.get(f"http://127.0.0.1:{self.port}/healthz/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)

    @contextmanager
    def workers(self, number: int) -> Iterator[str]:
        """The server with so many processes, its address once one of them answers; it must end by itself."""
        command = [sys.executable, "-m", "ownkey", "serve", "--port", str(self.port), "--workers", str(number)]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        try:
            for _ in range(600):
                try:
                    self.get(f"http://127.0.0.1:{self.port}/healthz/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{self.port}"
        finally:
            process.terminate()
            assert process.wait(40) == 0

    def get(self, url: str, data: str | None = None, **headers: str) -> int:
        """A request; the reply's head and body are kept as a sink."""
        asked = urllib.request.Request(url, data.encode() if data else None, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=20) as reply:  # noqa: S310
                status, head, body = int(reply.status), str(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            status, head, body = error.code, str(error.headers), error.read()
            error.close()
        self.said[f"reply {len(self.said)}: {url}"] = head.encode() + body
        return status

    def sinks(self, process: subprocess.Popen[bytes] | None = None) -> dict[str, bytes]:
        """Everything an outsider, a backup or a log collector could read."""
        files = {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        processes = {}
        if process is not None:
            proc = Path(f"/proc/{process.pid}")
            processes = {name: (proc / name).read_bytes() for name in ("cmdline", "environ")}
        return {**self.said, **files, **processes}
