"""The allowance in place of an own key that could not serve a call: only where the organization chose so.

The attempt on the own key ends as any other: it is recorded, and the key is not tried again. The call is then admitted
anew, on the allowance. Its client gets that answer or, if there is none, what the first attempt came to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ownkey.errors import OwnkeyError, ProviderFailed, ProviderTimedOut
from ownkey.gateway.call import Call
from ownkey.gateway.client import Client
from ownkey.gateway.routing import own_key_only
from ownkey.metering.reservations import KeyRow, Reason
from ownkey.providers.addresses import HostForbidden
from ownkey.providers.failures import Failure
from ownkey.providers.service_account import TokenRefused

if TYPE_CHECKING:
    from ownkey.gateway.exchange import Exchange

# A rejected key, no credit, a right that is missing and a bad request are for people to mend: never those.
_REASONS: Mapping[Failure | None, Reason] = {Failure.PRESSURE: "rate_limit", Failure.OUTAGE: "outage"}


def reason_refused(failure: Failure | None, whole: bool) -> Reason | None:
    """Why the allowance may step in for a call that the provider refused.

    No credit often has the status of pressure, and only the body says so: half a body does not speak for pressure.
    """
    return _REASONS.get(failure) if whole or failure is not Failure.PRESSURE else None


def reason_unreached(error: Exception) -> Reason | None:
    """Whether a call that could not be sent is an outage: not if its key, or its address, was refused."""
    return None if isinstance(error, TokenRefused | HostForbidden) else "outage"


def reason_failed(error: OwnkeyError) -> Reason | None:
    """Whether a call that was sent and got no reply is an outage: not if we ended it.

    The provider may have worked on it, at the cost of the key. Nobody knows, and the caller needs an answer.
    """
    return "outage" if isinstance(error, ProviderFailed | ProviderTimedOut) else None


def is_allowed(call: Call, key: KeyRow, has_platform_key: bool) -> bool:
    """Whether the allowance may be asked for a call that this key could not serve; the ledger decides.

    What only looks at the account at the provider, or belongs to it, the platform's account does not have.
    """
    return (
        key.fallback_tokens is not None
        and not key.base_url
        and has_platform_key
        and call.endpoint.generates
        and not own_key_only(call)
    )


class AnswerOnly:
    """The client of a second attempt: an answer passes on to the real one, of anything else it hears nothing."""

    def __init__(
        self, client: Client, reason: Reason, answered: Callable[[], None], otherwise: Callable[[], None]
    ) -> None:
        """``answered`` is told of an answer; ``otherwise`` ends the first attempt as if there had been no second."""
        self._client = client
        self._reason = reason
        self._answered = answered
        self._otherwise = otherwise
        self._failed = False

    def attend(self, exchange: Exchange) -> None:
        """A second attempt has no third."""

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head of an answer, with the reason for it; or of an error, which ends here."""
        self._failed = status >= 300
        if not self._failed:
            self._answered()
            self._client.begin(status, b"%bx-ownkey-fallback: %b\r\n" % (headers, self._reason.encode()), length)

    def write(self, pieces: list[bytes]) -> None:
        """Some of the body."""
        if not self._failed:
            self._client.write(pieces)

    def flush(self) -> None:
        """Send what was gathered."""
        if not self._failed:
            self._client.flush()

    def end(self) -> None:
        """The answer is whole; or there is none."""
        if self._failed:
            self._otherwise()
        else:
            self._client.end()

    def abort(self) -> None:
        """Break the answer off."""
        self._client.abort()
