"""The composition root: settings become a node, the node an application; started and stopped here."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import REGISTRY, start_http_server

from ownkey.accounts import subscriptions
from ownkey.api.urls import mount as mount_api
from ownkey.db import schema
from ownkey.db.engine import Database, database_url
from ownkey.errors import Unavailable
from ownkey.gateway.listener import listener_factory
from ownkey.gateway.relay import Relay
from ownkey.housekeeping import jobs, key_watch
from ownkey.ids import new_id
from ownkey.mail import Mailer
from ownkey.metering.sqlite_store import SqliteStore
from ownkey.metering.store import Store
from ownkey.metering.writer import Writer
from ownkey.node import Node
from ownkey.plans import read_catalogue
from ownkey.providers.addresses import Lookup, look_up
from ownkey.settings import Settings
from ownkey.signals import stop_signals
from ownkey.vault import provider_keys
from ownkey.vault.keyring import KeyRing
from ownkey.web.urls import mount as mount_web

_SAME_SIGNAL_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Application:
    """One running process: ``async with Application.open(settings)`` starts everything, and stops it in reverse."""

    def __init__(self, node: Node, writer: Writer, relay: Relay, asgi: FastAPI) -> None:
        self.node = node
        self.writer = writer
        self.relay = relay
        self.asgi = asgi
        self._jobs: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Application:
        await self.writer.start()
        self.node.db.turn = self.writer.turn
        self.relay.start()
        every = (jobs.run(self.node, self.writer, self.relay), key_watch.run(self.node))
        self._jobs = [asyncio.create_task(job) for job in every]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.relay.stop()
        for job in self._jobs:
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)
        try:
            async with asyncio.timeout(10):
                await self.writer.stop()
        except TimeoutError:
            log.error("the database is away: what could not be written is left to the reservations' recovery")
        await self.node.db.close()


async def open_node(settings: Settings, lookup: Lookup = look_up) -> Node:
    """Everything one process holds, on a database that is up to date.

    Migrates SQLite by itself. Raises ``Unavailable`` for an outdated or absent PostgreSQL, ``InvalidRequest`` for a
    wrong plans or providers file.
    """
    configured = settings.database_url.get_secret_value() if settings.database_url else None
    url = database_url(settings.data_dir, configured)
    embedded = url.get_backend_name() == "sqlite"
    if embedded:
        await asyncio.to_thread(schema.upgrade, url)
    elif not await asyncio.to_thread(schema.is_current, url):
        raise Unavailable("The database's schema is not up to date. Run 'ownkey migrate', then start again.")
    catalogue = read_catalogue(settings.plans_file)
    db = Database(url, settings.sqlite_synchronous)
    missing = await subscriptions.codes_in_use(db) - catalogue.keys()
    if missing:
        log.warning("organizations are on plans that are not in the plans file: their AI rests", plans=sorted(missing))
    sealed = await provider_keys.sealed_kek_ids(db)
    keyring = KeyRing.load(settings, sealed_kek_ids=sealed, embedded=embedded)
    if keyring.announcement:
        log.info(keyring.announcement)
    if keyring.locked_reason:
        log.error("the vault is locked", reason=keyring.locked_reason)
    return Node(settings, db, keyring, catalogue, Mailer(settings), lookup)


async def open_application(settings: Settings, lookup: Lookup = look_up) -> Application:
    """The whole application, not yet started; ``lookup`` resolves the hosts of organizations' own addresses."""
    node = await open_node(settings, lookup)
    writer = Writer(partial(_open_store, node.db), node.catalogue, new_id("node"))
    relay = Relay(node, writer)
    asgi = FastAPI(title=settings.app_name, docs_url=None, redoc_url=None, openapi_url=None)
    asgi.state.node, asgi.state.relay = node, relay
    _mount_health(asgi, writer, relay)
    mount_api(asgi)
    mount_web(asgi)
    return Application(node, writer, relay, asgi)


def _mount_health(asgi: FastAPI, writer: Writer, relay: Relay) -> None:
    """For load balancers: *live* while the process runs, *ready* while it should be sent requests."""

    @asgi.get("/healthz/live", include_in_schema=False)
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"})

    @asgi.get("/healthz/ready", include_in_schema=False)
    async def ready() -> JSONResponse:
        if relay.stopping or writer.down:
            return JSONResponse({"status": "stopping" if relay.stopping else "the database is away"}, 503)
        return JSONResponse({"status": "ready"})


def _open_store(db: Database) -> Store:
    if db.dialect == "sqlite":
        return SqliteStore(str(db.url.database), db.synchronous)
    from ownkey.metering.postgres_store import PostgresStore  # with its driver, which SQLite has no use for

    return PostgresStore(db.url)


class Server(uvicorn.Server):
    """uvicorn's server, but one that returns when a signal stops it.

    uvicorn's own raises the signal again, which ends the process before running calls are settled and the database
    is closed. A second signal does not wait for running replies.
    """

    _told = 0.0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle what stops us; after serving ignore it: what is written then, for seconds, must not be broken off.

        In a thread other than the main one there are no signals.
        """
        numbers = stop_signals() if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second time, stop at once.

        What comes within a second is still the first time: a service manager may tell every process of ours, and the
        one that has started us tells us, too.
        """
        now = time.monotonic()
        if not self.should_exit:
            self._told = now
        elif now - self._told > _SAME_SIGNAL_SECONDS:
            self.force_exit = True
        self.should_exit = True


def server(application: Application) -> uvicorn.Server:
    """The server of an application's port."""
    settings = application.node.settings
    return Server(
        uvicorn.Config(
            application.asgi,
            http=listener_factory(application.relay),
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.drain_timeout),
        )
    )


async def serve(settings: Settings, sockets: list[socket.socket], lookup: Lookup = look_up) -> None:
    """Serve on listening sockets until a signal says to stop; running replies get ``drain_timeout`` to finish."""
    async with await open_application(settings, lookup) as application:
        _serve_metrics(settings, application.relay)
        application.relay.most_clients = _room_for_clients()
        gc.collect()
        gc.freeze()  # what is here now lives as long as the process: spare the collector the walk
        gc.set_threshold(50_000, 20, 50)  # a call leaves no cycles behind; looking for them costs a tenth of it
        await server(application).serve(sockets=sockets)


def _room_for_clients() -> int:
    """How many connections to accept: half of the files we may open, for each may need one to a provider."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(files // 2, 64)


def run(settings: Settings, listening: socket.socket, lookup: Lookup = look_up) -> None:
    """Serve on a listening socket until a signal says to stop."""
    uvloop.run(serve(settings, [listening], lookup))


def _serve_metrics(settings: Settings, relay: Relay) -> None:
    """Metrics are a help: if their address is taken, say so and go on."""
    if not settings.metrics_address:
        return
    host, _, port = settings.metrics_address.rpartition(":")
    REGISTRY.register(relay.metrics)
    try:
        start_http_server(int(port), host.strip("[]"))
    except (OSError, OverflowError, UnicodeError) as error:
        log.warning("metrics are not served", address=settings.metrics_address, cause=str(error))
