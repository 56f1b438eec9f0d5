"""One AI request's life: admit, forward, watch, settle. Every request takes this one path.

A plain reply is a stream of one chunk; an own-key call reserves nothing. An exchange is a chain of callbacks rather
than a task, because tens of thousands of them pass each second. Whatever ends it, it settles exactly once, and before
the last bytes of the reply leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from ownkey.errors import Internal, OwnkeyError, ProviderFailed
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import Call
from ownkey.gateway.client import Client, Delivery
from ownkey.gateway.error_reply import ErrorReply
from ownkey.gateway.fallback import reason_failed, reason_refused, reason_unreached
from ownkey.gateway.passage import Passage
from ownkey.gateway.routing import Route, admission_request, key_rejected
from ownkey.gateway.upstream import Connection
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.reservations import Admission, Caller, Fallback, KeyRow
from ownkey.metering.settlement import Outcome, Renew, Settle
from ownkey.metering.usage import NOTHING_USED, BilledTo, Usage, charge
from ownkey.providers.failures import Failure, classify, message_of

if TYPE_CHECKING:
    from ownkey.gateway.relay import Relay

log = structlog.get_logger(__name__)


class Exchange:
    """A call on its way: ``start`` sets it going, ``client_gone`` and ``expire`` may cut it short."""

    # How most of them begin; a value is set when it is another one.
    _admission: Admission | None = None
    _route: Route | None = None
    _connecting: asyncio.Task[None] | None = None
    _connection: Connection | None = None
    _watch: ReplyWatch | None = None
    _passage: Passage | None = None
    _error: ErrorReply | None = None
    status = 0
    _sent = False
    _settled = False
    _moved = False
    paused = False
    fallback: Fallback | None = None
    refusal: OwnkeyError | None = None

    def __init__(self, relay: Relay, client: Client, caller: Caller, call: Call, request_id: str) -> None:
        self._relay = relay
        self.delivery = Delivery(client, call, request_id)
        self.caller = caller
        self.call = call
        self.request_id = request_id
        self.started = self._moved_at = relay.now()
        self._started_ms = time.time_ns() // 1_000_000

    # Admit

    def start(self) -> None:
        """Ask for admission; everything else follows."""
        self._relay.active[self.request_id] = self
        try:
            command = admission_request(self.call, self.caller, self.request_id, self._relay.router, self.fallback)
        except OwnkeyError as error:
            self._refuse(error)
        else:
            self._relay.writer.admit(command, self._admitted)

    def _admitted(self, outcome: Admission | OwnkeyError) -> None:
        if isinstance(outcome, OwnkeyError):
            self._refuse(outcome)
            return
        self._admission = outcome
        try:
            self._forward(outcome)
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        # A bug of ours: nothing may stay held, and nobody may wait for ever.
        log.exception("an exchange failed", request_id=self.request_id)
        if self._sent:
            self._drop_connection()
            usage = Usage(input_tokens=self.call.input_estimate(), estimated=True)
            self._settle("failed", usage, lambda: self._break_off(Internal()))
        else:
            self._release(Internal())

    def _forward(self, outcome: Admission) -> None:
        if self.delivery.gone or self._relay.stopping:
            self._release(self._relay.shutting_down())
            return
        try:
            route = self._route = self._relay.route(self.call.provider, outcome)
        except OwnkeyError as error:
            self._release(error)
            return
        connection = self._relay.pool.idle(route.origin) if route.access is None or route.access.usable() else None
        if connection is not None:
            self._send(connection)
        else:
            self._connecting = self._relay.reach(route, self._connected)

    # Forward

    def _connected(self, outcome: Connection | Exception) -> None:
        self._connecting, admission = None, self._admission
        assert admission is not None
        if isinstance(outcome, Exception):
            self._unreached(outcome)
        elif admission.key is None:
            self._send_or_not(outcome)
        else:
            # Connecting took a while, and the key may have been replaced or removed since it was read.
            self._relay.writer.current_key(
                admission.organization_id, self.call.provider.slug, lambda key: self._checked(outcome, key)
            )

    def _checked(self, connection: Connection, key: KeyRow | OwnkeyError | None) -> None:
        assert self._admission is not None
        if isinstance(key, OwnkeyError):
            self._relay.pool.give_back(connection)
            self._release(key)
        elif key == self._admission.key:
            self._send_or_not(connection)
        else:
            self._relay.pool.give_back(connection)
            self._admission = None
            self.start()

    def _send_or_not(self, connection: Connection) -> None:
        """Send, unless things have changed while we were connecting."""
        if self.delivery.gone or self._relay.stopping:
            self._relay.pool.give_back(connection)
            self._release(self._relay.shutting_down())
        elif connection.closed or connection.transport.is_closing():
            connection.close()
            self._unreached(ConnectionResetError("the connection was lost before it was used"))
        else:
            try:
                self._send(connection)
            except Exception:
                self._give_up()

    def _unreached(self, failure: Exception) -> None:
        """Nothing was sent, and nothing can be: the allowance may serve the call in an outage."""
        assert self._admission is not None
        error = self._relay.unreached(self.call.provider, self._admission.key, failure)
        self._relay.unless(self, self._admission, reason_unreached(failure), lambda: self._release(error))()

    def _send(self, connection: Connection) -> None:
        assert self._admission is not None
        assert self._route is not None
        call = self.call
        try:
            body = call.outgoing_body(self._admission.output_limit, self._admission.reserved)
        except OwnkeyError as error:
            self._relay.pool.give_back(connection)
            self._release(error)
            return
        head, route = call.head, self._route
        length = b"content-length: %d\r\n" % len(body) if body or head.method in ("POST", "PUT", "PATCH") else b""
        self._connection, self._sent, self._moved = connection, True, True
        to = route.origin
        lines = (head.verb, to.prefix, head.target, to.host_line, route.credential, head.passed_on, length, b"\r\n")
        connection.request(b"".join((*lines, body)), self, head.method == "HEAD")

    # Watch

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        """The provider answers: an error, or a redirect, is gathered first; anything else passes on."""
        self._moved = True
        self.status = status
        if status >= 300:
            self._error = ErrorReply(headers)
            return
        assert self._route is not None
        reply = header_rules.read_reply(headers)
        self._watch = ReplyWatch(self.call, reply.content_type, reply.coding, headers)
        passage = self._passage = Passage(self.call, reply, self._route.needles)
        self._begin(status, reply.lines, length if passage.keeps_length else None)

    def on_data(self, pieces: list[bytes], complete: bool) -> None:
        """Some of the provider's body. An error does not get more time by coming in small pieces."""
        try:
            if self._error is not None:
                enough = self._error.add(pieces)
                if complete:
                    self._connection = None
                if complete or enough:
                    self._end_refused(self._error, complete)
                return
            self._moved = True
            watch, passage = self._watch, self._passage
            assert watch is not None
            assert passage is not None
            for piece in pieces:
                watch.feed(piece)
            pieces = passage.feed(pieces, complete)
            if complete:
                self._connection = None
            if passage.stuck:
                self._stop_leak(pieces)
            elif complete:
                self._finish(watch, pieces)
            else:
                self.delivery.pass_on(pieces)
        except Exception:
            self._give_up()

    def _stop_leak(self, pieces: list[bytes]) -> None:
        log.warning("a reply repeats the provider key", request_id=self.request_id, provider=self.call.provider.slug)
        self._drop_connection()
        if any(pieces):
            self.delivery.pass_on(pieces)
        self._fail(ProviderFailed("The provider's reply repeats the API key where it cannot be taken out."))

    def _finish(self, watch: ReplyWatch, pieces: list[bytes]) -> None:
        self.delivery.hold(pieces)
        usage = watch.usage(True)
        # A reply that reports its usage and ends as usual has not failed: it is not worth reading for an error.
        failed = (usage.estimated or not usage.total_tokens or watch.ends_in_error) and watch.provider_failed
        self._settle("failed" if failed else "finished", usage, self._deliver_end)

    def on_broken(self, reason: str) -> None:
        """The provider's connection was lost in the middle of this exchange."""
        self._connection = None
        log.info("provider broke off", request_id=self.request_id, provider=self.call.provider.slug, reason=reason)
        self._fail(ProviderFailed())

    def _end_refused(self, reply: ErrorReply, whole: bool) -> None:
        """The provider refused the call: nothing was used, and what its status means follows."""
        assert self._admission is not None
        assert self._route is not None
        self._drop_connection()
        body = reply.read(self._route, whole)
        failure = classify(self.call.provider, self.status, body)
        own_key = self._admission.key
        self._relay.refused(self._route, own_key, failure, body, self.started)
        if failure is Failure.KEY_REJECTED:
            managers = self._relay.router.key_managers
            error = key_rejected(self.call.provider, own_key is not None, message_of(body), managers)
            self._settle("refused", NOTHING_USED, lambda: self._refuse(error))
            return
        length = None if self.status == 304 else len(body)
        self._begin(self.status, header_rules.read_reply(reply.headers).lines, length)
        self.delivery.hold([body])
        then = self._relay.unless(self, self._admission, reason_refused(failure, whole), self._deliver_end)
        self._settle("refused", NOTHING_USED, then)

    # Settle

    def _settle(self, outcome: Outcome, usage: Usage, then: Callable[[], None]) -> None:
        """Record what was used, once, then go on. The one place every sent call comes through."""
        if self._settled:
            return
        admission, call = self._admission, self.call
        assert admission is not None
        if not call.endpoint.generates:
            usage = NOTHING_USED
        key = admission.key
        billed_to: BilledTo = "allowance" if key is None else "own_key"
        charged = charge(usage, billed_to, self._relay.weights(admission.plan, call.model))
        now = self._relay.now()
        self.delivery.settled(admission.reserved - charged)
        if key is not None and outcome == "finished":
            self._relay.key_worked(key, call.endpoint.generates)
        self._relay.metrics.settled(call.provider.slug, billed_to, outcome, usage, now - self.started)
        self._settled = True
        # By position, in the order of its columns: names would cost as much as all the rest here.
        event = Settle(
            self.request_id, admission.organization_id, admission.workspace_id, admission.period,
            call.provider.slug, call.model, call.endpoint.dialect.name,
            billed_to, key.id if key is not None else None, admission.api_token_id, admission.user_id,
            usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens,
            usage.output_tokens, usage.reasoning_tokens, charged, usage.estimated,
            outcome, self._started_ms, int((now - self.started) * 1000),
        )  # fmt: skip
        self._relay.writer.settle(event, then)

    def _release(self, error: OwnkeyError) -> None:
        """Nothing was sent: give the reservation back, and tell the client why unless it is gone."""
        assert self._admission is not None
        if self._admission.key is None:
            self._relay.writer.release(self.request_id)
        self._refuse(error)

    def _fail(self, error: OwnkeyError) -> None:
        """The provider failed after the call was sent: charge what it had generated, and say so to the client.

        One that failed in the middle of an error has said what it had to say.
        """
        if self._error is not None:
            self._end_refused(self._error, whole=False)
            return
        usage = self._used_so_far(free=isinstance(error, ProviderFailed))
        reason = None if self._watch is not None else reason_failed(error)
        then = self._relay.unless(self, self._admission, reason, lambda: self._break_off(error))
        self._settle("failed", usage, then)

    def _used_so_far(self, free: bool) -> Usage:
        """What a call that broke off has used. ``free``: it cost nothing without a reply; else it was worked on."""
        if self._watch is not None:
            return self._watch.usage(False)
        return NOTHING_USED if free else Usage(input_tokens=self.call.input_estimate(), estimated=True)

    # Ways to end

    def client_gone(self) -> None:
        """The client hung up: stop the provider at once, and charge what it had generated."""
        self.delivery.gone = True
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
            self._release(ProviderFailed())
        if not self._sent or self._settled:
            return
        self._drop_connection()
        self._settle("cancelled", self._used_so_far(free=self._error is not None), self._done)

    def expire(self, error: OwnkeyError) -> None:
        """The provider or the client was silent for too long, or we are stopping."""
        if not self._sent or self._settled:
            return
        if self.paused:  # the client stopped reading: hang up on it, as it might have done itself
            self.client_gone()
            self.delivery.abort()
        else:
            self._drop_connection()
            self._fail(error)

    def renewal(self) -> Renew | None:
        """What to note of a live call so that its reservation outlives a crash of this node."""
        if self._admission is None or self._admission.key is not None or self._settled:
            return None
        return Renew(self.request_id, self._watch.output_so_far() if self._watch else 0)

    def is_overdue(self, now: float, first_byte: float, idle: float) -> bool:
        """Whether nothing has moved for longer than it may. To be asked regularly: it compares with the last time."""
        if self._moved:
            self._moved, self._moved_at = False, now
        return self._sent and not self._settled and now - self._moved_at > (idle if self.status else first_byte)

    def pause(self) -> None:
        """The client reads slowly: let the provider wait."""
        if self._connection is not None:
            self.paused = True
            self._moved = True
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self.paused = False
            self._moved = True
            self._connection.transport.resume_reading()

    def _begin(self, status: int, lines: bytes, length: int | None) -> None:
        admission, route = self._admission, self._route
        assert admission is not None
        assert route is not None
        lines = route.needles.overwritten(lines)[0] + header_rules.our_lines(self.request_id, admission)
        self.delivery.begin(status, lines, length, None if admission.key else admission.remaining)

    def _deliver_end(self) -> None:
        self._done()
        self.delivery.end()

    def _break_off(self, error: OwnkeyError) -> None:
        self._done()
        watch, passage, in_events = self._watch, self._passage, False
        if watch is not None and passage is not None:
            self.delivery.hold(passage.rest())
            in_events = self.call.stream and watch.is_event_stream and not passage.stuck
        self.delivery.break_off(error, in_events, self._admission)

    def _refuse(self, error: OwnkeyError) -> None:
        self.refusal = error
        if self.fallback is None:
            self._relay.metrics.refused(self.call.provider.slug, error.code)
        self._done()
        self.delivery.refuse(error, self._admission)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _done(self) -> None:
        self._relay.active.pop(self.request_id, None)
