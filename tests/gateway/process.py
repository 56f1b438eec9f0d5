"""A served installation in a process of its own, whose memory can be looked at."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation


class Running(NamedTuple):
    """It, a token, and the provider it asks."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    provider: FakeProvider

    def memory(self) -> int:
        """What the process holds in memory, in bytes."""
        return memory_of(self.process.pid)


def memory_of(pid: int) -> int:
    """What a process holds in memory, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextmanager
def served(folder: Path, provider: FakeProvider) -> Iterator[Running]:
    """An installation with a large allowance and keys for three providers; at its end its log shows no mishap."""
    here = Installation(folder, provider, tokens=10**12)
    for slug in ("openai", "anthropic", "gemini"):
        here.environment[f"OWNKEY_PLATFORM_KEY_{slug.upper()}"] = "sk-platform-0123456789"
        here.environment[f"OWNKEY_BASE_URL_{slug.upper()}"] = provider.at(slug)
    here.environment["OWNKEY_LOG_LEVEL"] = "WARNING"
    here.run("organizations", "create", "Acme", "--owner", "owner@acme.example", "--plan", "free")
    token = json.loads(here.run("tokens", "create", "acme", "--name", "t", "--json"))["token"]
    with here.serving() as process:
        yield Running(f"http://127.0.0.1:{here.port}", token, process, provider)
        assert process.poll() is None, "the process is gone"
    log = here.log.read_bytes()
    assert b"Traceback" not in log, log[-5_000:].decode()
    assert b"could not be read" not in log
