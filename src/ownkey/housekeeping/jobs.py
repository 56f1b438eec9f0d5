"""The periodic jobs: what concerns calls and keys, and, apart from it because they may be slow, mail and prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog

from ownkey.accounts import invitations, sessions, sign_in
from ownkey.gateway.relay import Relay
from ownkey.housekeeping.alert_mail import mail_alerts
from ownkey.housekeeping.pricing import Pricing
from ownkey.housekeeping.rounds import whole
from ownkey.metering.alerts import Lookout
from ownkey.metering.writer import Writer
from ownkey.node import Node
from ownkey.vault import key_health

log = structlog.get_logger(__name__)

_ROUND_SECONDS = 5
_ROUNDS_BETWEEN_CLEANING = 720


async def run(node: Node, writer: Writer, relay: Relay) -> None:
    """Do the jobs until cancelled. A job that fails is logged, once for each reason, and done again."""
    lookout, pricing = Lookout(), Pricing()

    async def look_after_calls(rounds: int) -> None:
        while settled := await writer.reap():
            log.warning("settled calls that a stopped node had left open", count=settled)
        if used := relay.used_keys():
            moments = {key: datetime.fromtimestamp(at, UTC) for key, at in used.items()}
            await key_health.note_used(node.db, moments)
        if rounds % _ROUNDS_BETWEEN_CLEANING == 0:
            await sessions.delete_expired(node.db)
            await sign_in.delete_expired(node.db)
            await invitations.delete_old(node.db)

    async def tell_people(rounds: int) -> None:
        await lookout.look(node.db)
        await mail_alerts(node)

    async def note_prices(rounds: int) -> None:
        await pricing.note_new(node)
        if rounds % _ROUNDS_BETWEEN_CLEANING == 0:
            await pricing.compare(node)

    await asyncio.gather(*map(_again_and_again, (look_after_calls, tell_people, note_prices)))


async def _again_and_again(job: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    rounds, failed = 0, ""
    while True:
        before = failed
        try:
            await whole(job(rounds))
            failed = ""
        except Exception as error:  # the next round is five seconds away
            failed = repr(error)
        if failed != before and failed:
            log.warning("housekeeping failed", job=job.__name__, error=failed)
        elif failed != before:
            log.warning("housekeeping works again", job=job.__name__)
        rounds += 1
        await asyncio.sleep(_ROUND_SECONDS)
