"""The access tokens of a service account key that calls run on: fetched once for all that wait, renewed in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from ownkey.credentials import Secret
from ownkey.providers import service_account
from ownkey.providers.service_account import AccessToken, ServiceAccount

log = structlog.get_logger(__name__)

# Seconds before its end: a token is renewed while calls still use it, and later not used any more.
_RENEW_BEFORE = 300.0
_UNUSED_BEFORE = 30.0
# Seconds after a failure in which calls get the same answer without another request.
_FAILURE_STANDS = 2.0
# Seconds in which no other token is fetched because the provider refused one.
_FORGET_EVERY = 30.0


class AccessTokens:
    """One key's tokens. At most one request for a token is under way, however many calls wait for it.

    ``put`` is given each new token and the earlier ones that have not ended: calls may still be under way with them.
    """

    __slots__ = (
        "_account", "_earlier", "_ends", "_failed_at", "_failure", "_forgot_at", "_lifetime", "_put", "_task",
        "_timeout", "_token", "_token_url", "_took_at", "_waiting",
    )  # fmt: skip

    def __init__(
        self, account: ServiceAccount, token_url: str, timeout: float, put: Callable[[Secret, Sequence[Secret]], None]
    ) -> None:
        self._account = account
        self._token_url = token_url
        self._timeout = timeout
        self._put = put
        self._token: AccessToken | None = None
        self._earlier: list[AccessToken] = []
        self._ends = self._lifetime = self._took_at = 0.0
        self._forgot_at = -_FORGET_EVERY
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[Exception | None], None]] = []
        self._failure: Exception | None = None
        self._failed_at = 0.0

    def usable(self) -> bool:
        """Whether a call can go now; also sees to it that the token is renewed before its end."""
        left = self._ends - time.monotonic()
        # A token that lives for seconds only is used for most of them.
        if left < min(_RENEW_BEFORE, self._lifetime / 2) and left > 0 and not self._has_just_failed():
            self._renew()
        return left > min(_UNUSED_BEFORE, self._lifetime / 4)

    def wait(self, done: Callable[[Exception | None], None]) -> None:
        """``done`` gets None when there is a token, or ``TokenRefused``, ``TokenServiceFailed`` or ``OSError``."""
        if self._has_just_failed():
            done(self._failure)
            return
        self._waiting.append(done)
        self._renew()

    def forget(self, began: float) -> None:
        """The provider refused the token of a call that ``began`` then (``time.monotonic``): the next gets a new one.

        Unless the call had an earlier token, or this was done a moment ago: where the provider refuses every token,
        fetching others does not help.
        """
        now = time.monotonic()
        if began >= self._took_at and now - self._forgot_at >= _FORGET_EVERY:
            self._ends, self._forgot_at = 0.0, now

    def _has_just_failed(self) -> bool:
        return self._failure is not None and time.monotonic() - self._failed_at < _FAILURE_STANDS

    def _renew(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout):
                self._take(await service_account.fetch(self._account, self._token_url))
        except Exception as error:
            # Named by its kind: what a library says may quote what it was given.
            log.warning("no access token", service_account=self._account.email, error=type(error).__name__)
            failure, self._failed_at = error, time.monotonic()
        finally:
            self._task = None
        self._failure = failure
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            try:
                done(failure)
            except Exception:  # the others must not wait for ever over it
                log.exception("a call could not go on")

    def _take(self, token: AccessToken) -> None:
        now = time.monotonic()
        known = [self._token, *self._earlier] if self._token else []
        self._earlier = [one for one in known if one.expires_at > now]
        self._put(token.secret, [one.secret for one in self._earlier])
        self._token, self._ends, self._took_at = token, token.expires_at, now
        self._lifetime = max(0.0, token.expires_at - now)
