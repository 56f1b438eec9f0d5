"""What the writer's transaction asks of a database, in rows and sets; one implementation for each engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ownkey.metering.reservations import Caller, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.tallies import MOST_AT_ONCE, Horizon, UsedRow


class Moment(NamedTuple):
    """The database's clock, and the version of the facts that copies in memory are good for."""

    version: int
    period: str
    now_ms: int


class Foretold(NamedTuple):
    """What a batch will ask for, as far as that can be told before its transaction; ``balances`` are in order.

    It is a guess that costs nothing but time when it is wrong.
    """

    reservations: Sequence[str]
    balances: Sequence[tuple[str, str]] = ()
    requests: Sequence[tuple[str, str]] = ()


class CallerRow(NamedTuple):
    """What the database says of a caller; ``role`` is the person's in the workspace, or of the token's creator."""

    caller: Caller
    api_token_id: str | None
    scopes: str
    revoked: bool
    user_id: str | None
    user_disabled: bool
    role: str | None
    is_owner: bool
    organization_id: str
    workspace_id: str
    suspended: bool
    archived: bool
    plan: str
    member_allowance: int | None = None
    member_own_key: int | None = None
    workspace_allowance: int | None = None
    workspace_own_key: int | None = None


class HeldRow(NamedTuple):
    """A deleted reservation whose call has ended: what it held, and of which balance."""

    request_id: str
    organization_id: str
    period: str
    tokens: int


class ReservationRow(NamedTuple):
    """A deleted reservation whose node died: what it held, and what a recovery needs to settle it."""

    request_id: str
    organization_id: str
    workspace_id: str
    period: str
    tokens: int
    input_tokens: int
    observed_tokens: int
    provider: str
    model: str
    dialect: str
    api_token_id: str | None
    user_id: str | None
    created_ms: int
    plan: str


class AbandonedRow(NamedTuple):
    """What a call was charged when its node was taken for dead."""

    request_id: str
    organization_id: str
    period: str
    charged_tokens: int
    user_id: str | None
    workspace_id: str


class EntryRow(NamedTuple):
    """A ledger entry as it is written."""

    organization_id: str
    period: str
    kind: str
    tokens: int
    request_id: str | None
    note: str
    created_at: int
    position: int
    used_after: int


Rows = Sequence[tuple[Any, ...]]
HELD_COLUMNS = ", ".join(HeldRow._fields)
RESERVATION_COLUMNS = (
    "request_id, organization_id, workspace_id, period, tokens, input_tokens, observed_tokens, provider, model, "
    "dialect, api_token_id, user_id, created_at"
)
# The plan is the organization's now: a reservation does not keep what tokens counted when it was made.
EXPIRED_COLUMNS = (
    f"{RESERVATION_COLUMNS}, "  # noqa: S608
    "(SELECT plan FROM subscriptions WHERE subscriptions.organization_id = reservations.organization_id)"
)
CALLER_COLUMNS = (
    "t.id, t.scopes, t.revoked_at IS NOT NULL, t.created_by, u.disabled_at IS NOT NULL, m.role, "
    "COALESCE(o.owner_id = t.created_by, 1 = 0), t.organization_id, t.workspace_id, o.suspended_at IS NOT NULL, "
    "w.archived_at IS NOT NULL, s.plan, cm.allowance_tokens, cm.own_key_tokens, cw.allowance_tokens, cw.own_key_tokens"
)
TOKEN_JOINS = (
    "FROM api_tokens t JOIN organizations o ON o.id = t.organization_id JOIN workspaces w ON w.id = t.workspace_id "
    "JOIN subscriptions s ON s.organization_id = t.organization_id LEFT JOIN users u ON u.id = t.created_by "
    "LEFT JOIN memberships m ON m.workspace_id = t.workspace_id AND m.user_id = t.created_by "
    "LEFT JOIN caps cm ON cm.organization_id = t.organization_id AND cm.scope = 'member' "
    "AND cm.subject_id = t.created_by "
    "LEFT JOIN caps cw ON cw.organization_id = t.organization_id AND cw.scope = 'workspace' "
    "AND cw.subject_id = t.workspace_id"
)
PERSON_QUERY = (
    "SELECT NULL, '', 0 = 1, u.id, u.disabled_at IS NOT NULL, m.role, o.owner_id = u.id, w.organization_id, w.id, "
    "o.suspended_at IS NOT NULL, w.archived_at IS NOT NULL, s.plan, "
    "cm.allowance_tokens, cm.own_key_tokens, cw.allowance_tokens, cw.own_key_tokens "
    "FROM workspaces w JOIN organizations o ON o.id = w.organization_id "
    "JOIN subscriptions s ON s.organization_id = w.organization_id JOIN users u ON u.id = {user} "
    "LEFT JOIN memberships m ON m.workspace_id = w.id AND m.user_id = u.id "
    "LEFT JOIN caps cm ON cm.organization_id = w.organization_id AND cm.scope = 'member' AND cm.subject_id = u.id "
    "LEFT JOIN caps cw ON cw.organization_id = w.organization_id AND cw.scope = 'workspace' AND cw.subject_id = w.id "
    "WHERE w.id = {workspace}"
)
ABANDONED_QUERY = (
    "SELECT request_id, organization_id, period, charged_tokens, user_id, workspace_id FROM usage_events "
    "WHERE outcome = 'abandoned' AND request_id "
)
KEY_COLUMNS = ", ".join(KeyRow._fields)
# A call that runs holds its tokens; one that has ended took what its event says, less what was given back later.
OPEN_FALLBACKS_QUERY = (
    "SELECT f.request_id, COALESCE(e.charged_tokens, r.tokens, 0) - COALESCE(a.tokens, 0), "
    "r.request_id IS NULL AND COALESCE(e.outcome, '') <> 'abandoned' FROM fallback_calls f "
    "LEFT JOIN usage_events e ON e.request_id = f.request_id LEFT JOIN reservations r ON r.request_id = f.request_id "
    "LEFT JOIN ledger_entries a ON a.request_id = f.request_id AND a.kind = 'adjustment' WHERE NOT f.counted AND "
)
FALLBACK_COLUMNS = "request_id, organization_id, provider, period, reason, after_request_id"
EVENT_COLUMNS = ", ".join(Settle._fields)
# Of an event that the allowance paid for.
CHARGED_EVENT_COLUMNS = f"{EVENT_COLUMNS}, position, used_after"
ENTRY_COLUMNS = ", ".join(EntryRow._fields)


USED_SUMS = (
    "sum(charged_tokens), sum(CASE billed_to WHEN 'own_key' THEN input_tokens + output_tokens ELSE 0 END), "
    "max(id), count(*)"
)
RECENT = (
    "SELECT id, user_id, workspace_id, billed_to, charged_tokens, input_tokens, output_tokens FROM usage_events "  # noqa: S608
    "WHERE organization_id = {organization} AND period = {period} AND id > {after} "
    f"ORDER BY id LIMIT {MOST_AT_ONCE}"
)
# What late settlements took beyond the events of a month, or below zero gave back: few, so they are read anew.
CORRECTED = (
    "e.user_id, e.workspace_id, {false}, -sum(a.tokens){number}, 0, 0, 0 FROM ledger_entries a "
    "JOIN usage_events e ON e.request_id = a.request_id WHERE a.organization_id = {organization} "
    "AND a.period = {period} AND a.kind = 'adjustment' GROUP BY e.user_id, e.workspace_id"
)


class StoreFailed(Exception):
    """The database is away or refuses to work; what was asked may be asked again."""


class Contended(Exception):
    """Another node was in the way, or the batch was foretold wrong; nothing was done, and it may be tried again."""


class Store(Protocol):
    """One connection of the writer's own. Every method but ``begin`` runs inside the open transaction.

    Raises ``StoreFailed`` when the database is away; what the database refuses (a check, a unique index) comes as
    its driver's own error.
    """

    is_local: bool
    """Whether the database is a file here, not a server that could keep us waiting for ever."""

    def begin(self, foretell: Callable[[], Foretold], reads_only: bool) -> Moment:
        """Open the transaction, ready to write; ``reads_only`` if, should nothing have changed, nothing will be.

        A store whose database is a round trip away takes, locks and reads what is foretold at once. Locks are taken in
        one order by all nodes: first reservations, then balances in the order of their keys.
        """

    def commit(self) -> None:
        """Make it durable."""

    def rollback(self) -> None:
        """Give everything since ``begin`` up; never raises."""

    def close(self) -> None:
        """Give the connection back; never raises."""

    def callers(self, callers: Sequence[Caller]) -> Sequence[CallerRow]:
        """The rows of those callers that exist."""

    def keys(self, wanted: Sequence[tuple[str, str]]) -> Sequence[KeyRow]:
        """The current keys of these (organization, provider) pairs."""

    def balances(self, keys: Sequence[tuple[str, str]]) -> Rows:
        """Lock and read allowances by (organization, period): both, then granted, used, reserved, excess, entries.

        One that is not there yet is made, with nothing granted.
        """

    def change_balances(self, rows: Rows) -> None:
        """Overwrite locked allowances: granted, used, reserved, excess, entries; organization and period."""

    def requests_of(self, keys: Sequence[tuple[str, str]]) -> Rows:
        """Requests made by API tokens in a month: token, period, number."""

    def count_requests(self, rows: Rows) -> None:
        """Add to them: token, period, organization, number, now."""

    def add_reservations(self, rows: Rows) -> None:
        """Insert reservations: ``RESERVATION_COLUMNS``, then node and lease_until."""

    def take_reservations(self, request_ids: Sequence[str]) -> Sequence[HeldRow]:
        """Delete reservations and return those that were there."""

    def take_expired(self, now_ms: int) -> Sequence[ReservationRow]:
        """Delete the reservations whose lease has run out and return them, some at a time."""

    def renew(self, rows: Rows) -> None:
        """Extend leases: observed tokens, lease_until, request."""

    def add_events(self, rows: Rows) -> None:
        """Insert usage events of the allowance: the columns of ``Settle``, then position and used_after."""

    def add_events_once(self, rows: Sequence[Settle]) -> None:
        """Insert usage events of own keys, leaving out those whose request has one already."""

    def abandoned(self, request_ids: Sequence[str]) -> Sequence[AbandonedRow]:
        """Those of the requests that have an event as abandoned."""

    def adjusted(self, request_ids: Sequence[str]) -> Sequence[str]:
        """Those of the requests that have an adjustment in the ledger."""

    def settled(self, request_ids: Sequence[str]) -> Sequence[str]:
        """Those of the requests that have an event."""

    def used_since(self, organization_id: str, period: str, after: int, old: int) -> tuple[Horizon, Sequence[UsedRow]]:
        """What was used by the events after this id (``Tally.read``)."""

    def held_by(self, organization_id: str, period: str) -> Sequence[tuple[str | None, str, int]]:
        """Tokens that an organization's open calls hold: by person and workspace."""

    def add_entries(self, rows: Sequence[EntryRow]) -> None:
        """Insert ledger entries."""

    def fallback_sum(self, organization_id: str, provider: str, period: str) -> int:
        """What the counted calls of a month took of the allowance in place of an own key."""

    def open_fallbacks(self, organization_id: str, provider: str, period: str) -> Rows:
        """Those not counted yet: request, tokens held or taken, and whether it has ended for good."""

    def add_fallbacks(self, rows: Rows) -> None:
        """Insert calls that are admitted in place of an own key: the columns of ``FALLBACK_COLUMNS``."""

    def count_fallbacks(self, connection: tuple[str, str, str], tokens: int, request_ids: Sequence[str]) -> None:
        """Add to the sum of (organization, provider, period) what these of its calls took."""
