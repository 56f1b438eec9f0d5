"""Access tokens of a service account: with which of them calls may be under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from ownkey.credentials import Secret
from ownkey.gateway.access_tokens import AccessTokens
from ownkey.providers.service_account import ServiceAccount
from tests.fakes.token_service import TokenService

pytestmark = pytest.mark.anyio


async def test_every_token_that_has_not_ended_is_looked_for() -> None:
    """However quickly others follow; one that has ended is of no use to anybody."""
    kept: list[list[str]] = []

    def put(token: Secret, earlier: Sequence[Secret]) -> None:
        kept.append([secret.reveal() for secret in (token, *earlier)])

    with TokenService() as google:
        tokens = AccessTokens(ServiceAccount.read(google.account("robot")), google.url, 10, put)
        google.lifetime = 3600
        await _next(tokens, kept)
        tokens.forget(time.monotonic())
        google.lifetime = 3
        await _next(tokens, kept)
        await _next(tokens, kept)
        first, second, third = google.given
        assert kept == [[first], [second, first], [third, second, first]]
        await asyncio.sleep(1.6)
        await _next(tokens, kept)
        assert kept[-1] == [google.given[3], third, first]


async def _next(tokens: AccessTokens, kept: list[list[str]]) -> None:
    """Use them until there is another token."""
    known = len(kept)
    async with asyncio.timeout(10):
        while len(kept) == known:
            if not tokens.usable():
                tokens.wait(lambda _: None)
            await asyncio.sleep(0.02)
