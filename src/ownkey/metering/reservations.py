"""When a call is admitted, and how many tokens are held for it while it runs.

A reservation is a ceiling, not a guess: request bytes (never fewer than its tokens) plus the output limit
times the number of choices. Because ``used + reserved`` never passes ``granted``, the allowance cannot be
overspent by calls in flight, however many there are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ownkey import clock
from ownkey.errors import AllowanceExhausted, RequestLimitReached
from ownkey.metering.usage import BilledTo
from ownkey.token_weights import TokenWeights, rounded_up

# A call without an output limit may hold this part of what is left, so that one does not shut out the others;
# but it may always hold enough for a plain answer.
UNLIMITED_SHARE = 4
PLAIN_ANSWER = 1024
LEASE_SECONDS = 20
# Why the allowance may serve a call that an own key could not.
Reason = Literal["rate_limit", "outage"]


class Caller(NamedTuple):
    """Whose call it is: the hash of an API token, or a signed-in person in a workspace."""

    token_hash: str = ""
    user_id: str = ""
    workspace_id: str = ""


class Fallback(NamedTuple):
    """A call that an own key could not serve: why, and the request id of that attempt."""

    reason: Reason
    after: str


class Admit(msgspec.Struct, frozen=True):
    """Ask to admit a call. Tokens are upper bounds; ``output_limit`` is the caller's own, per choice.

    ``own_key_only`` says why the allowance cannot serve the call, or is empty; ``key_managers``, who can connect a
    key. An answer shorter than
    ``least_output`` is of no use to anybody: rather refuse than cut it there. With ``fallback`` the call is decided on
    the allowance although there is an own key, if the organization chose so for it.
    """

    request_id: str
    caller: Caller
    provider: str
    model: str
    dialect: str
    has_platform_key: bool
    generates: bool
    own_key_only: str
    key_managers: str
    input_ceiling: int
    input_estimate: int
    output_limit: int | None
    output_maximum: int
    least_output: int
    choices: int
    can_limit: bool
    fallback: Fallback | None = None


class CurrentKey(msgspec.Struct, frozen=True):
    """Ask which key an organization has for a provider now."""

    organization_id: str
    provider: str


class KeyRow(NamedTuple):
    """An organization's own key as it lies in the database, sealed.

    ``fallback_tokens``: so many of the allowance may serve calls in a month that this key could not; None: never.
    """

    id: str
    organization_id: str
    provider: str
    base_url: str
    ciphertext: bytes
    wrapped_data_key: bytes
    kek_id: str
    fallback_tokens: int | None = None

    @property
    def sealed(self) -> tuple[str, str, str, str, bytes, bytes, str]:
        """The part that the vault opens."""
        return self[:7]


class Admission(msgspec.Struct, frozen=True):
    """An admitted call: who pays, with which key, and what is held."""

    request_id: str
    organization_id: str
    workspace_id: str
    user_id: str | None
    api_token_id: str | None
    plan: str
    key: KeyRow | None
    period: str
    reserved: int
    output_limit: int | None
    remaining: int

    @property
    def billed_to(self) -> BilledTo:
        """``own_key`` if the organization's key serves it, else ``allowance``."""
        return "own_key" if self.key else "allowance"


class Hold(NamedTuple):
    """Tokens to hold for a call, and the output limit to impose on it (None: leave it as it is)."""

    tokens: int
    output_limit: int | None


def hold_for(command: Admit, remaining: int, weights: TokenWeights | None = None) -> Hold | None:
    """How much to hold for a call when ``remaining`` tokens are free; None when there is no room for it.

    With its own limit a call gets what it asked for, or a lower limit when only that fits. Without one it is held
    to what the model can produce at most, if that is a small part of what is left, and gets a limit otherwise.
    ``weights``: what the model's tokens count, so that the hold covers whatever the call can be charged.
    """
    if not command.generates:
        return Hold(0, None)
    # One more token of the limit is one more in every choice; ``each`` is what they count, in thousandths.
    needed, each = command.input_ceiling, 1000 * command.choices
    if weights is not None:
        needed, each = rounded_up(needed * weights.most_input), weights.output * command.choices
    wanted = command.output_maximum if command.output_limit is None else command.output_limit
    worst = needed + rounded_up(wanted * each)
    share = remaining if command.output_limit is not None or not command.can_limit else remaining // UNLIMITED_SHARE
    if worst <= share:
        return Hold(worst, None)
    if not command.can_limit:
        return None
    room = max(share, min(needed + rounded_up(PLAIN_ANSWER * each), remaining)) - needed
    limit = min(room * 1000 // each, wanted) if each else wanted
    if room < 0 or limit < min(command.least_output, wanted):
        return None
    # A limit the caller set itself and that fits need not be set again.
    return Hold(needed + rounded_up(limit * each), None if limit == command.output_limit else limit)


def exhausted(command: Admit, remaining: int, period: str) -> AllowanceExhausted:
    """The refusal of a call that does not fit: says when the allowance resets and who can act."""
    stamp = clock.rfc3339(clock.period_end(period))
    if remaining <= 0:
        what = "Your organization has used all its AI tokens of this month."
    else:
        what = (
            f"Your organization has {remaining:,} AI tokens left this month, "
            f"too few for this request of up to {command.input_ceiling:,} input tokens."
        )
    return AllowanceExhausted(
        f"{what} The allowance resets at {stamp}. To continue at once, {command.key_managers} of your organization can "
        "connect its own AI provider key under Settings → Integrations.",
        detail={"tokens_left": remaining, "resets_at": stamp, "who_can_act": command.key_managers},
        headers={
            **until_reset(period),
            "x-ownkey-billed-to": "allowance",
            "x-ownkey-allowance-remaining": str(remaining),
            "x-ownkey-allowance-reset": stamp,
        },
    )


def request_limit_reached(limit: int, period: str) -> RequestLimitReached:
    """The refusal of an API token that has made its requests of the month."""
    return RequestLimitReached(
        f"This API token has made all its {limit:,} requests of this month. It works again from the 1st.",
        headers=until_reset(period),
    )


def until_reset(period: str) -> dict[str, str]:
    """Headers that keep SDKs from retrying what stays refused until the month turns."""
    seconds = max(1, int((clock.period_end(period) - clock.now()).total_seconds()))
    return {"retry-after": str(seconds), "x-should-retry": "false"}
