"""Turning a reservation into usage, once."""

from __future__ import annotations

from typing import Literal

import msgspec

from ownkey.metering.usage import Usage

# finished: the provider's reply came whole. refused: the provider answered with an error. failed: no reply, or it
# broke off. cancelled: the client went away. abandoned: the node died and housekeeping settled in its place.
Outcome = Literal["finished", "refused", "failed", "cancelled", "abandoned"]


class Settle(msgspec.Struct, frozen=True):
    """Record what an admitted call really used. ``charged`` is what it takes from the allowance of ``period``."""

    request_id: str
    organization_id: str
    workspace_id: str
    period: str
    provider: str
    model: str
    dialect: str
    provider_key_id: str | None
    api_token_id: str | None
    user_id: str | None
    usage: Usage
    charged: int
    outcome: Outcome
    started_ms: int
    duration_ms: int

    @property
    def own_key(self) -> bool:
        """Whether the organization's own key served it: then there is no reservation to settle."""
        return self.provider_key_id is not None


class Release(msgspec.Struct, frozen=True):
    """Give a reservation back unused: nothing was sent to a provider, so nothing happened."""

    request_id: str


class Renew(msgspec.Struct, frozen=True):
    """A call is alive and its reply has shown this many output tokens so far."""

    request_id: str
    observed: int
