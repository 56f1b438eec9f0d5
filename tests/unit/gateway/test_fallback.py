"""What the allowance may be asked for when an own key fails."""

from __future__ import annotations

import ssl

import pytest

from ownkey.errors import OwnkeyError, ProviderFailed, ProviderKeyRejected, ProviderTimedOut, Unavailable
from ownkey.gateway.fallback import reason_failed, reason_refused, reason_unreached
from ownkey.providers.addresses import HostForbidden
from ownkey.providers.failures import Failure
from ownkey.providers.service_account import TokenRefused


def test_only_what_passes_by_itself_is_bridged() -> None:
    """Of all that a refusal can mean, pressure and an outage; never the key, its money, its rights or the request."""
    reasons = {failure: reason for failure in Failure if (reason := reason_refused(failure, whole=True)) is not None}
    assert reasons == {Failure.PRESSURE: "rate_limit", Failure.OUTAGE: "outage"}
    assert [failure for failure in Failure if reason_refused(failure, whole=False)] == [Failure.OUTAGE]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "outage"),
        (ConnectionRefusedError(), "outage"),
        (ssl.SSLCertVerificationError(), "outage"),
        (TokenRefused("invalid_grant"), None),
        (HostForbidden("it leads into a private network"), None),
    ],
)
def test_a_connection_that_failed(error: Exception, reason: str | None) -> None:
    """Not to reach the provider is an outage; to be refused a token, or to be forbidden its address, is not."""
    assert reason_unreached(error) == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ProviderFailed(), "outage"),
        (ProviderTimedOut(), "outage"),
        (Unavailable(), None),
        (ProviderKeyRejected(), None),
    ],
)
def test_a_call_without_a_reply(error: OwnkeyError, reason: str | None) -> None:
    """A provider that broke off or was silent is an outage; that we stop is none."""
    assert reason_failed(error) == reason
