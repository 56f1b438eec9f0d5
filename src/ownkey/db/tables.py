"""Every table. Domains import the ones they own; the SQL beside them is theirs.

Times are UTC. Tokens are integers. Every tenant-owned table carries ``organization_id``; a foreign key to a workspace
is the pair ``(organization_id, workspace_id)``, so that a row cannot point into another tenant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from ownkey.db.utc_time import UtcTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts by itself only in an INTEGER primary key; PostgreSQL should count in 64 bits.
_Counter = BigInteger().with_variant(Integer, "sqlite")


def _counted_id() -> Column[int]:
    return Column("id", _Counter, primary_key=True, autoincrement=True)


def _organization(**options: Any) -> Column[str]:
    return Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False, **options)


def _organization_unchecked() -> Column[str]:
    """For the tables written by every call: a foreign key would lock the organization's row for each of them."""
    return Column("organization_id", Text, nullable=False)


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _in_workspace() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["organization_id", "workspace_id"], ["workspaces.organization_id", "workspaces.id"])


def _created() -> Column[datetime]:
    return Column("created_at", UtcTime, nullable=False)


users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("password_hash", Text),
    _created(),
    Column("disabled_at", UtcTime),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    Column("workspace_id", Text),
    Column("token_hash", Text, nullable=False, unique=True),
    _created(),
    Column("authenticated_at", UtcTime, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ip", Text),
    Column("user_agent", Text),
)

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    _created(),
    Column("expires_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    _counted_id(),
    Column("email", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Index(None, "email", "at"),
)

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False, unique=True),
    Column("owner_id", Text, ForeignKey("users.id"), nullable=False, index=True),
    _created(),
    Column("suspended_at", UtcTime),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    _created(),
    Column("archived_at", UtcTime),
    UniqueConstraint("organization_id", "slug"),
    UniqueConstraint("organization_id", "id"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True, index=True),
    _organization(index=True),
    Column("role", Text, nullable=False),
    _created(),
    _in_workspace(),
    CheckConstraint("role IN ('user', 'developer', 'admin')", name="role"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("workspace_id", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("invited_by", Text),
    _created(),
    Column("expires_at", UtcTime, nullable=False),
    Column("accepted_at", UtcTime),
    Column("revoked_at", UtcTime),
    _in_workspace(),
    CheckConstraint("role IN ('user', 'developer', 'admin')", name="role"),
    Index(None, "organization_id", "workspace_id"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("workspace_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    # Null for one the operator made.
    Column("created_by", Text, ForeignKey("users.id")),
    _created(),
    Column("revoked_at", UtcTime),
    _in_workspace(),
    Index(None, "organization_id", "workspace_id"),
)

api_token_months = Table(
    "api_token_months",
    metadata,
    Column("api_token_id", Text, ForeignKey("api_tokens.id"), primary_key=True),
    Column("period", Text, primary_key=True),
    _organization(),
    Column("requests", BigInteger, nullable=False, server_default="0"),
    Column("last_used_at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("provider", Text, nullable=False),
    Column("base_url", Text, nullable=False, server_default=""),
    Column("preview", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("wrapped_data_key", LargeBinary, nullable=False),
    Column("kek_id", Text, nullable=False),
    Column("created_by", Text),
    _created(),
    # What its admins know of it; they are reminded, and nothing else depends on it.
    Column("expires_at", UtcTime),
    # Of the allowance, what may serve calls in a month that this key could not; null: never.
    Column("fallback_tokens", BigInteger),
    UniqueConstraint("organization_id", "provider"),
)

provider_key_health = Table(
    "provider_key_health",
    metadata,
    Column("provider_key_id", Text, ForeignKey("provider_keys.id", ondelete="CASCADE"), primary_key=True),
    _organization(),
    Column("health", Text, nullable=False),
    Column("said", Text, nullable=False, server_default=""),
    Column("last_checked_at", UtcTime),
    Column("last_used_at", UtcTime),
    Column("health_since", UtcTime),
    # The health that the admins know of, and the reminder, in days ahead, that they had last.
    Column("told_health", Text, nullable=False, server_default="unverified"),
    Column("reminded_days", Integer),
    Column("next_check_at", UtcTime, index=True),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    _organization(primary_key=True),
    Column("plan", Text, nullable=False),
    Column("interval", Text, nullable=False, server_default="month"),
    Column("started_at", UtcTime, nullable=False),
    CheckConstraint("interval IN ('month', 'year')", name="interval"),
)

allowances = Table(
    "allowances",
    metadata,
    _organization(primary_key=True),
    Column("period", Text, primary_key=True),
    Column("granted_tokens", BigInteger, nullable=False),
    Column("used_tokens", BigInteger, nullable=False, server_default="0"),
    Column("reserved_tokens", BigInteger, nullable=False, server_default="0"),
    # How far used + reserved stood above granted after something that is no admission: a plan
    # downgrade, or a provider that produced more than the limit it was given.
    Column("excess_tokens", BigInteger, nullable=False, server_default="0"),
    # How many usage events and ledger entries have changed the balance: the position of the last.
    Column("entries", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("granted_tokens >= 0", name="granted"),
    CheckConstraint("used_tokens >= 0", name="used"),
    CheckConstraint("reserved_tokens >= 0", name="reserved"),
    CheckConstraint(
        "used_tokens + reserved_tokens <= granted_tokens + excess_tokens",
        name="never_overspent",
    ),
    sqlite_with_rowid=False,
)

reservations = Table(
    "reservations",
    metadata,
    Column("request_id", Text, primary_key=True),
    _organization_unchecked(),
    Column("workspace_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("observed_tokens", BigInteger, nullable=False, server_default="0"),
    *_texts("provider", "model", "dialect"),
    Column("api_token_id", Text),
    Column("user_id", Text),
    Column("node", Text, nullable=False),
    _created(),
    Column("lease_until", UtcTime, nullable=False),
    CheckConstraint("tokens >= 0", name="tokens"),
    sqlite_with_rowid=False,
)

usage_events = Table(
    "usage_events",
    metadata,
    _counted_id(),
    Column("request_id", Text, nullable=False, unique=True),
    _organization_unchecked(),
    Column("workspace_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    *_texts("provider", "model", "dialect", "billed_to"),
    Column("provider_key_id", Text),
    Column("api_token_id", Text),
    Column("user_id", Text),
    *(
        Column(f"{kind}_tokens", BigInteger, nullable=False)
        for kind in ("input", "cached_input", "cache_write", "output", "reasoning", "charged")
    ),
    Column("estimated", Boolean, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    # Its place among the entries of its organization and month, those of the ledger counted alike, and what was used
    # after it. A call on an own key touches no allowance and has neither.
    Column("position", BigInteger),
    Column("used_after", BigInteger),
    CheckConstraint("billed_to IN ('allowance', 'own_key')", name="billed_to"),
    CheckConstraint("(billed_to = 'own_key') = (position IS NULL)", name="position"),
    CheckConstraint("(position IS NULL) = (used_after IS NULL)", name="used_after"),
    Index(None, "organization_id", "period", "id"),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    _counted_id(),
    _organization_unchecked(),
    Column("period", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("request_id", Text),
    Column("note", Text, nullable=False, server_default=""),
    _created(),
    Column("position", BigInteger, nullable=False),
    Column("used_after", BigInteger, nullable=False),
    CheckConstraint("kind IN ('grant', 'adjustment')", name="kind"),
)
# One adjustment a call.
Index(
    "uq_ledger_entries_adjustment",
    ledger_entries.c.request_id,
    unique=True,
    # On PostgreSQL, too, as the migration says; said here, it would load that dialect where it is not used.
    sqlite_where=ledger_entries.c.kind == "adjustment",
)

audit_entries = Table(
    "audit_entries",
    metadata,
    _counted_id(),
    # Null for what concerns the whole installation.
    Column("organization_id", Text, ForeignKey("organizations.id")),
    *_texts("actor_kind", "actor_id", "actor_label", "action", "target"),
    Column("allowed", Boolean, nullable=False),
    Column("detail", JSON, nullable=False),
    _created(),
    Column("hash", Text, nullable=False),
    Index(None, "organization_id", "id"),
)

# One row: where the chain of audit entries ends.
audit_end = Table(
    "audit_end",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("entry_id", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("workspace_id", Text, nullable=False),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("title", Text, nullable=False),
    _created(),
    _in_workspace(),
    Index(None, "organization_id", "user_id"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    _organization(),
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("request_id", Text),
    _created(),
)

# One row. Triggers raise its version with every change of what decides who may call, and with whose key.
facts = Table(
    "facts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default="1"),
)
