"""Our own gateway as it is shipped: made with the operator's commands, served by one worker on the gateway's core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import URL, create_engine, func, select

from ownkey.db.engine import database_url
from ownkey.db.tables import allowances, reservations, usage_events
from scripts.bench.nginx import USAGE
from scripts.bench.processes import GATEWAY_CORE, free_port, running

_PLANS = '[plans.free]\nname = "Free"\nmonthly_tokens = 900000000000000\napi_access = true\n'


@dataclass(frozen=True, slots=True)
class Installation:
    """A data directory, its settings, and the database."""

    folder: Path
    environment: Mapping[str, str]
    database: URL

    def command(self, *arguments: str, text: str | None = None) -> Mapping[str, Any]:
        """Run an operator's command and read what it prints."""
        done = subprocess.run(
            [*_program(), *arguments, "--json"],
            input=text,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
        )
        if done.returncode:
            raise RuntimeError(f"ownkey {' '.join(arguments)}: {done.stderr}")
        answer: Mapping[str, Any] = json.loads(done.stdout)
        return answer

    def organization(self, name: str, *, own_key: bool) -> Path:
        """Make one with an API token, and with an own key if asked; returns the file with the token."""
        slug = self.command("organizations", "create", name, "--owner", f"{name}@bench.test")["slug"]
        if own_key:
            self.command("keys", "set", slug, "openai", "--unchecked", text=f"sk-own-key-of-{name}-organization")
        tokens = self.folder / f"{name}.tokens"
        tokens.write_text(f"{self.command('tokens', 'create', slug, '--name', 'bench')['token']}\n")
        return tokens

    @contextmanager
    def serving(self) -> Iterator[tuple[str, int]]:
        """The running gateway's address for OpenAI's chat completions, and its process."""
        port = free_port()
        command = [*_program(), "serve", "--port", str(port)]
        with running(command, GATEWAY_CORE, port, self.environment) as pid:
            # It listens before it can answer; this waits until it does.
            httpx.get(f"http://127.0.0.1:{port}/healthz/ready", timeout=60).raise_for_status()
            yield f"http://127.0.0.1:{port}/openai/v1/chat/completions", pid

    def check_metered(self, answered: int, broken_off: float) -> None:
        """Raise ``RuntimeError`` unless each answered call was recorded with the provider's figures, and charged.

        Of the calls that the load broke off at the end of a round, at most ``broken_off`` may be there, too.
        """
        events = usage_events.c
        exact = (
            (events.input_tokens == USAGE["prompt_tokens"])
            & (events.output_tokens == USAGE["completion_tokens"])
            & ~events.estimated
        )
        engine = create_engine(self.database)
        with engine.connect() as connection:
            for _ in range(100):
                if not connection.scalar(select(func.count()).select_from(reservations)):
                    break
                connection.rollback()
                time.sleep(0.1)
            recorded = connection.scalar(select(func.count()).select_from(usage_events)) or 0
            right = connection.scalar(select(func.count()).select_from(usage_events).where(exact)) or 0
            charged = connection.scalar(select(func.sum(events.charged_tokens))) or 0
            used = connection.scalar(select(func.sum(allowances.c.used_tokens))) or 0
            held = connection.scalar(select(func.sum(allowances.c.reserved_tokens))) or 0
        engine.dispose()
        if not answered <= right <= recorded <= answered + broken_off or charged != used or held:
            raise RuntimeError(
                f"not metered: {answered} answered and at most {broken_off} broken off, but {right} of {recorded} "
                f"events with the provider's figures; {charged} tokens charged, {used} used, {held} still held"
            )


def install(folder: Path, provider: str, database: str | None = None, **settings: str) -> Installation:
    """An empty installation below ``folder`` whose provider is at this address; ``database`` is a PostgreSQL's URL."""
    folder.mkdir()
    plans = folder / "plans.toml"
    plans.write_text(_PLANS)
    environment = {
        "OWNKEY_DATA_DIR": str(folder / "data"),
        "OWNKEY_PLANS_FILE": str(plans),
        "OWNKEY_BASE_URL_OPENAI": provider,
        "OWNKEY_PLATFORM_KEY_OPENAI": "sk-platform",
        "OWNKEY_METRICS_ADDRESS": "",
        "OWNKEY_LOG_LEVEL": "WARNING",
        **settings,
    }
    if database is None:
        return Installation(folder, environment, database_url(folder / "data", None))
    environment["OWNKEY_DATABASE_URL"] = database
    done = subprocess.run([*_program(), "vault", "new-key"], capture_output=True, text=True, check=True)
    environment["OWNKEY_VAULT_KEYS"] = done.stdout.strip()
    subprocess.run([*_program(), "migrate"], capture_output=True, check=True, env={**os.environ, **environment})
    return Installation(folder, environment, database_url(folder, database))


def _program() -> list[str]:
    return [str(Path(sys.executable).parent / "ownkey")]
