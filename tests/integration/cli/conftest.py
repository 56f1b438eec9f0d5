"""The command line, most of it inside this process: only what needs a process of its own gets one."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from ownkey.cli.main import run
from ownkey.demo.simulated_provider import SimulatedProvider
from ownkey.vault.kek import new_kek


@dataclass(frozen=True)
class Result:
    """What a command did: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which is exactly one JSON document."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Cli:
    """``ownkey`` in a folder of its own, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Result:
        """Run a command."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        code = run(list(arguments))
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """Run a command with ``--json`` and return its document."""
        return self(*arguments, "--json", stdin=stdin).document

    def set(self, **settings: str) -> None:
        """Set ``OWNKEY_…`` variables."""
        for name, value in settings.items():
            self._monkeypatch.setenv(f"OWNKEY_{name}", value)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands set logging up for their process; this one goes on without that."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def simulated_provider() -> Iterator[SimulatedProvider]:
    """Every provider, on this machine."""
    with SimulatedProvider(pause=0) as provider:
        yield provider


@pytest.fixture
def environment(tmp_path: Path, simulated_provider: SimulatedProvider) -> Mapping[str, str]:
    """The settings of an empty embedded installation whose OpenAI is simulated."""
    return {
        "OWNKEY_DATA_DIR": str(tmp_path / "data"),
        "OWNKEY_PUBLIC_URL": "http://ownkey.test",
        "OWNKEY_METRICS_ADDRESS": "",
        "OWNKEY_BASE_URL_OPENAI": simulated_provider.base_url("openai"),
    }


@pytest.fixture
def cli(
    environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """The command line on an empty embedded installation."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Cli(monkeypatch, capsys)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def cli_on_each(request: pytest.FixtureRequest, cli: Cli) -> Cli:
    """The command line on an empty installation, once for each database."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        cli.set(DATABASE_URL=url.render_as_string(hide_password=False), VAULT_KEYS=new_kek())
    return cli


def started(arguments: list[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[str]:
    """``ownkey`` as a process, with its streams as pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "ownkey", *arguments],
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As from a terminal, also where the tests themselves outlive theirs (``nohup``).
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
