"""The periodic jobs: settle abandoned reservations, note when keys were used, delete what has expired."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from ownkey.accounts import invitations, sessions, sign_in
from ownkey.gateway.relay import Relay
from ownkey.metering.writer import Writer
from ownkey.node import Node
from ownkey.vault import key_health

log = structlog.get_logger(__name__)

_REAP_SECONDS = 5
_ROUNDS_BETWEEN_CLEANING = 720


async def run(node: Node, writer: Writer, relay: Relay) -> None:
    """Do the jobs until cancelled. A job that fails is logged and done again in the next round."""
    rounds = 0
    while True:
        try:
            while settled := await writer.reap():
                log.warning("settled calls that a stopped node had left open", count=settled)
            if used := relay.used_keys():
                moments = {key: datetime.fromtimestamp(at, UTC) for key, at in used.items()}
                await key_health.note_used(node.db, moments)
            if rounds % _ROUNDS_BETWEEN_CLEANING == 0:
                await sessions.delete_expired(node.db)
                await sign_in.delete_expired(node.db)
                await invitations.delete_old(node.db)
        except Exception as error:  # the next round is five seconds away
            log.warning("housekeeping failed", error=repr(error))
        rounds += 1
        await asyncio.sleep(_REAP_SECONDS)
