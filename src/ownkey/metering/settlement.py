"""Turning a reservation into usage, once."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ownkey.metering.usage import BilledTo

# finished: the provider's reply came whole. refused: the provider answered with an error. failed: no reply, or it
# broke off. cancelled: the client went away. abandoned: the node died and housekeeping settled in its place.
Outcome = Literal["finished", "refused", "failed", "cancelled", "abandoned"]


class Settle(NamedTuple):
    """Record what an admitted call really used: its usage event as it is written, column by column.

    ``charged_tokens`` is what the call takes from the allowance of ``period``; ``started_at`` are milliseconds since
    1970. A call on an own key has no reservation to settle.
    """

    request_id: str
    organization_id: str
    workspace_id: str
    period: str
    provider: str
    model: str
    dialect: str
    billed_to: BilledTo
    provider_key_id: str | None
    api_token_id: str | None
    user_id: str | None
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    charged_tokens: int
    estimated: bool
    outcome: Outcome
    started_at: int
    duration_ms: int


class Release(msgspec.Struct, frozen=True):
    """Give a reservation back unused: nothing was sent to a provider, so nothing happened."""

    request_id: str


class Renew(msgspec.Struct, frozen=True):
    """A call is alive and its reply has shown this many output tokens so far."""

    request_id: str
    observed: int
