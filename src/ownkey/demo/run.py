"""``ownkey demo``: the whole product on this machine, in a folder that is gone when it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ownkey import app, logs
from ownkey.credentials import Secret
from ownkey.db import schema
from ownkey.db.engine import Database, database_url
from ownkey.demo.guide import guide
from ownkey.demo.seed import CATALOGUE, ORGANIZATION, Seeded, seed
from ownkey.demo.simulated_provider import PLATFORM_KEYS, SimulatedProvider
from ownkey.gateway.sockets import listen
from ownkey.plans import Plan, read_catalogue
from ownkey.providers import registry
from ownkey.settings import Settings, read_settings
from ownkey.signals import stop_signals

HOST = "127.0.0.1"
USUAL_PORT = 8000
# Acme's AI works on these without any configuration; for the other providers it needs a key of its own.
PLATFORM = ("openai", "anthropic", "gemini")


def run(port: int | None) -> None:
    """Serve the demo until a signal ends it. Without a port takes 8000, or a free one.

    Raises ``OSError`` if the given port is taken.
    """
    port = _free_port(port)
    _leave_nothing_behind()
    # A signal that comes while the folder is being made must find somebody who takes it away.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    with TemporaryDirectory(prefix="ownkey-demo-") as folder:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _serve(Path(folder), port)


def _serve(folder: Path, port: int) -> None:
    with SimulatedProvider() as provider:
        settings = demo_settings(folder, port, provider)
        logs.set_up(settings.log_level)
        seeded = asyncio.run(_prepare(settings))
        print(guide(settings.public_url, seeded), flush=True)
        app.run(settings, listen(HOST, port), lookup=_nowhere)


def _leave_nothing_behind() -> None:
    """Let every signal that stops us take the folder away, as Ctrl-C does, before the server is there to handle it."""
    for number in stop_signals():
        if number != signal.SIGINT:
            signal.signal(number, lambda *_: sys.exit())


async def _nowhere(host: str, port: int) -> Sequence[str]:
    """A key pasted into the demo stays on this machine, whatever address is given beside it."""
    raise OSError("the demo reaches nothing outside this machine: leave the address empty")


def demo_settings(folder: Path, port: int, provider: SimulatedProvider) -> Settings:
    """Settings that touch nothing of this machine's own: what the environment says is left aside."""
    plans = folder / "plans.toml"
    plans.write_text("".join(map(_toml, CATALOGUE.values())), encoding="utf-8")
    untouched = {name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
    ours: dict[str, object] = {
        "data_dir": folder,
        "public_url": f"http://{HOST}:{port}",
        "plans_file": plans,
        "app_name": ORGANIZATION,
        "log_level": "WARNING",
        "metrics_address": "",
        "platform_keys": {slug: Secret(PLATFORM_KEYS[slug]) for slug in PLATFORM},
        "google_token_url": f"{provider.address}/token",
        "base_urls": {slug: provider.base_url(slug) for slug in registry.PROVIDERS},
    }
    return read_settings(**{**untouched, **ours})


async def _prepare(settings: Settings) -> Seeded:
    url = database_url(settings.data_dir, None)
    await asyncio.to_thread(schema.upgrade, url)
    db = Database(url)
    try:
        return await seed(db, read_catalogue(settings.plans_file))
    finally:
        await db.close()


def _toml(plan: Plan) -> str:
    fields = plan.model_dump(exclude={"code", "weights"}, exclude_none=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]  # such values are the same in TOML
    return "\n".join([f"[plans.{plan.code}]", *lines, "", ""])


def _free_port(wanted: int | None) -> int:
    for port in (USUAL_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                if wanted is not None:
                    raise
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")
