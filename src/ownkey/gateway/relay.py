"""Relay: what all exchanges of a process share, and the one timer that looks after them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any

import structlog

from ownkey import clock
from ownkey.errors import OwnkeyError, ProviderFailed, ProviderTimedOut, Unavailable
from ownkey.gateway.exchange import Exchange
from ownkey.gateway.fallback import AnswerOnly, is_allowed
from ownkey.gateway.metrics import Metrics
from ownkey.gateway.patience import Patience, Sweepable
from ownkey.gateway.routing import Route, Router, key_rejected
from ownkey.gateway.upstream import Connection, Pool
from ownkey.ids import new_id
from ownkey.metering.reservations import Admission, Fallback, KeyRow, Reason
from ownkey.metering.writer import Writer
from ownkey.node import Node
from ownkey.providers.addresses import HostForbidden
from ownkey.providers.failures import Failure, message_of
from ownkey.providers.health import Health
from ownkey.providers.provider import Provider
from ownkey.providers.service_account import TokenRefused
from ownkey.token_weights import TokenWeights
from ownkey.vault import key_health, provider_keys

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 1.0
_NOTE_SECONDS = 60.0
_CHANGE_SECONDS = 2.0
_HEALTH_AFTER: Mapping[Failure, Health] = {
    Failure.KEY_REJECTED: Health.REJECTED,
    Failure.NO_MONEY: Health.OUT_OF_CREDIT,
    Failure.PRESSURE: Health.LIMITED,
    Failure.LIMITED: Health.LIMITED,
    Failure.OUTAGE: Health.UNREACHABLE,
}


class Relay:
    """The data plane of one process."""

    def __init__(self, node: Node, writer: Writer) -> None:
        self.node = node
        self.writer = writer
        writer.is_alone = self._is_alone
        self.pool = Pool(node.settings.connect_timeout)
        self.router = Router(node.settings, node.keyring, node.providers, self.pool)
        # What the first segment of a gateway path stands for.
        self.by_segment = {slug.encode(): provider for slug, provider in node.providers.items()}
        self.metrics = Metrics()
        self.active: dict[str, Exchange] = {}
        self.clients: set[Sweepable] = set()
        self.most_clients = 10_000
        self.gathering = 0  # bytes of bodies that are not whole yet
        self.patience = Patience(reader=node.settings.idle_timeout)
        self.stopping = False
        self.now: Callable[[], float] = time.monotonic
        self._plans = node.catalogue
        self._noted: dict[str, tuple[Health, float]] = {}  # what was written of a key and when, the oldest first
        self._to_note: dict[str, tuple[KeyRow, Health, str, datetime]] = {}
        self._used: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def _is_alone(self) -> bool:
        return len(self.active) <= 1

    def weights(self, plan: str, model: str) -> TokenWeights | None:
        """What a model's tokens count on a plan; None: each is one."""
        return self._plans[plan].weights_for(model)

    def shutting_down(self) -> OwnkeyError:
        """The refusal of calls that come too late."""
        return Unavailable("The service is shutting down. Try again shortly.")

    def start(self) -> None:
        """Begin to look after the exchanges."""
        self._sweep()

    async def stop(self) -> None:
        """Break off what still runs, settle it, and let go of all connections."""
        self.stopping = True
        for exchange in list(self.active.values()):
            try:
                exchange.expire(self.shutting_down())
            except Exception:
                log.exception("an exchange could not be ended", request_id=exchange.request_id)
        for _ in range(500):
            if not self.active:
                break
            await asyncio.sleep(0.01)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        self.pool.close()

    def route(self, provider: Provider, admission: Admission) -> Route:
        """The route of an admitted call. Raises ``Unavailable`` if the own key does not open: no other serves."""
        try:
            return self.router.route(provider, admission)
        except provider_keys.EnvelopeBroken:
            if admission.key is not None:  # somebody changed its row
                self._write(provider_keys.note_broken(self.node.db, provider_keys.SealedKey(*admission.key.sealed)))
            raise

    def reach(self, route: Route, done: Callable[[Connection | Exception], None]) -> asyncio.Task[None] | None:
        """Open a connection, after waiting for an access token where there is none.

        ``done`` gets what ``Pool`` gives, or ``TokenRefused`` or ``TokenServiceFailed``; it gets nothing if the task,
        which only the connecting has, is cancelled.
        """
        if route.access is None or route.access.usable():
            return self.pool.connect(route.origin, done)

        def go_on(error: Exception | None) -> None:
            if error is not None:
                done(error)
            else:
                self.pool.connect(route.origin, done)

        route.access.wait(go_on)
        return None

    def unreached(self, provider: Provider, key: KeyRow | None, error: Exception) -> OwnkeyError:
        """What the caller is told when a call could not be sent."""
        if isinstance(error, TokenRefused):
            if key is not None:
                self.key_failed(key, Failure.KEY_REJECTED, str(error))
            return key_rejected(provider, key is not None, str(error), self.router.key_managers)
        if isinstance(error, HostForbidden):
            return ProviderFailed(f"The provider key cannot be used. {error}.")
        return ProviderTimedOut() if isinstance(error, TimeoutError) else ProviderFailed()

    def unless(
        self, first: Exchange, admission: Admission | None, reason: Reason | None, otherwise: Callable[[], None]
    ) -> Callable[[], None]:
        """What follows an attempt that failed: ``otherwise`` ends it, unless the allowance may serve the call."""
        call, key = first.call, admission.key if admission else None
        if reason is None or key is None:
            return otherwise
        if not first.status:
            self.key_failed(key, Failure.OUTAGE, "It did not answer.")
        if not is_allowed(call, key, self.router.has_platform_key(call.provider)):
            return otherwise
        return lambda: self._fall_back(first, Fallback(reason, first.request_id), otherwise)

    def _fall_back(self, first: Exchange, fallback: Fallback, otherwise: Callable[[], None]) -> None:
        if first.delivery.gone or self.stopping:
            otherwise()
            return
        self.active.pop(first.request_id, None)
        client, metrics, slug = first.delivery.client, self.metrics, first.call.provider.slug

        def give_up() -> None:
            metrics.fell_back(slug, fallback.reason, "refused")
            client.attend(first)
            otherwise()

        def answered() -> None:
            metrics.fell_back(slug, fallback.reason, "served")

        answer = AnswerOnly(client, fallback.reason, answered, give_up)
        second = Exchange(self, answer, first.caller, first.call, new_id("req"))
        second.fallback = fallback
        client.attend(second)
        second.start()

    def key_worked(self, key: KeyRow, generated: bool) -> None:
        """An own key served a call. What costs nothing is often given to keys without credit, or to everybody."""
        self._used[key.id] = time.time()
        if generated:
            self._note(key, Health.ACTIVE, "")

    def refused(self, route: Route, key: KeyRow | None, failure: Failure | None, body: bytes, began: float) -> None:
        """A provider answered a call that ``began`` then with an error; ``body`` is redacted already."""
        if failure is Failure.KEY_REJECTED and route.access is not None:
            route.access.forget(began)
        if key is not None and failure is not None:
            self.key_failed(key, failure, message_of(body))

    def key_failed(self, key: KeyRow, failure: Failure, said: str) -> None:
        """An own key was refused, or its provider failed: what people see of the key's health follows."""
        health = _HEALTH_AFTER.get(failure)
        if health is not None:
            self._note(key, health, said)

    def used_keys(self) -> Mapping[str, float]:
        """Which keys served a call since this was last asked, and when (seconds since 1970)."""
        used, self._used = self._used, {}
        return used

    def _note(self, key: KeyRow, health: Health, said: str, as_of: datetime | None = None) -> None:
        """Write a change soon, and what stays as it was once a minute: a check by hand may have said otherwise.

        A key that is refused now and then must not make a write of every call: what comes too soon waits for its time,
        and the last of it counts. ``as_of`` is when that came.
        """
        noted, at = self._noted.get(key.id, (None, -_NOTE_SECONDS))
        self._to_note.pop(key.id, None)
        if self.now() - at > (_NOTE_SECONDS if health is noted else _CHANGE_SECONDS):
            self._noted.pop(key.id, None)
            self._noted[key.id] = (health, self.now())
            db, organization_id = self.node.db, key.organization_id
            self._write(key_health.note_health(db, key.id, organization_id, health, said, as_of=as_of))
        elif health is not noted:
            self._to_note[key.id] = (key, health, said, as_of or clock.now())

    def _look_after_notes(self, now: float) -> None:
        """Write what has waited, and forget what does not keep anything waiting any more."""
        for key, health, said, as_of in list(self._to_note.values()):
            self._note(key, health, said, as_of)
        while self._noted:
            key_id, (_, at) = next(iter(self._noted.items()))
            if now - at <= _NOTE_SECONDS:
                break
            del self._noted[key_id]

    def _write(self, note: Coroutine[Any, Any, object]) -> None:
        """Write what people should know of a key; calls go on without it."""

        async def write() -> None:
            try:
                await note
            except Exception as error:
                log.warning("a note on a key could not be written", error=repr(error))

        task = asyncio.get_running_loop().create_task(write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        """Once a second: end what a provider keeps waiting, and note what live calls have shown so far."""
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        now, settings = self.now(), self.node.settings
        self.metrics.in_flight, self.metrics.database_up = len(self.active), not self.writer.down
        renewals = []
        for exchange in list(self.active.values()):
            try:
                if exchange.is_overdue(now, settings.first_byte_timeout, settings.idle_timeout):
                    exchange.expire(ProviderTimedOut())
                elif now - exchange.started > _SWEEP_SECONDS and (renewal := exchange.renewal()):
                    renewals.append(renewal)
            except Exception:  # the others must not lose their leases over it
                log.exception("an exchange could not be looked after", request_id=exchange.request_id)
        for client in list(self.clients):
            try:
                client.look_after(now)
            except Exception:
                log.exception("a connection could not be looked after")
        self.pool.close_idle()
        self._look_after_notes(now)
        if renewals:
            self.writer.renew(renewals)
