"""An installation as an operator has it: a folder, an environment, commands, and the server as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.provider import FakeProvider


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

    def run(self, *arguments: str, text: str | None = None) -> str:
        """An operator command; what it prints is kept as a sink."""
        done = subprocess.run(
            [sys.executable, "-m", "ownkey", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )
        self.said[f"command {len(self.said)}: {' '.join(arguments[:2])}"] = (done.stdout + done.stderr).encode()
        return done.stdout

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
