"""The tables about usage that no usual call reads or writes: alerts, what models cost, and the calls that the allowance
served because an own key could not.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    false,
    func,
)

from ownkey.db.tables import ledger_entries, metadata, usage_events
from ownkey.db.utc_time import UtcTime

# The primary key makes an alert one: whichever node inserts the row has found it.
allowance_alerts = Table(
    "allowance_alerts",
    metadata,
    Column("organization_id", Text, ForeignKey("organizations.id"), primary_key=True),
    Column("period", Text, primary_key=True),
    Column("threshold", Integer, primary_key=True),
    Column("reached_at", UtcTime, nullable=False),
    # When a node last set out to mail it, and when that was done; to how many people.
    Column("tried_at", UtcTime),
    Column("mailed_at", UtcTime),
    Column("recipients", Integer, nullable=False, server_default="0"),
    CheckConstraint("threshold IN (50, 80, 100)", name="threshold"),
    sqlite_with_rowid=False,
)
Index(
    "ix_allowance_alerts_unmailed",
    allowance_alerts.c.reached_at,
    # On PostgreSQL, too, as the migration says; said here, it would load that dialect where it is not used.
    sqlite_where=allowance_alerts.c.mailed_at.is_(None),
)

# What a model's tokens cost, in millionths of a dollar per million tokens; all four null: nobody told us. A row counts
# for calls that started in its time, in its minutes of the day (UTC), with an input of its size: exactly one of a model
# does for any call. Prices are never changed: a new one ends the row before and begins another.
model_prices = Table(
    "model_prices",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("valid_from", UtcTime, primary_key=True),
    Column("valid_until", UtcTime),
    Column("minute_from", Integer, primary_key=True),
    Column("minute_until", Integer, nullable=False),
    Column("input_from", BigInteger, primary_key=True),
    Column("input_until", BigInteger),
    *(Column(f"{kind}_price", BigInteger) for kind in ("input", "cached_input", "cache_write", "output")),
    # The version of the price list.
    Column("source", Text, nullable=False),
    CheckConstraint("(input_price IS NULL) = (output_price IS NULL)", name="known"),
    sqlite_with_rowid=False,
)

# Calls that the allowance served in place of an own key, by the request id of their reservation and usage event.
fallback_calls = Table(
    "fallback_calls",
    metadata,
    Column("request_id", Text, primary_key=True),
    # No foreign key: it would lock the organization's row.
    Column("organization_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # The attempt on the own key.
    Column("after_request_id", Text, nullable=False),
    # Whether what it took is in the month's sum; as long as it runs it is not.
    Column("counted", Boolean, nullable=False, server_default=false()),
    CheckConstraint("reason IN ('rate_limit', 'outage')", name="reason"),
    Index(None, "organization_id", "provider", "period", "counted"),
    sqlite_with_rowid=False,
)

# What the counted ones took of the allowance: so that the next one need not add them all up.
fallback_months = Table(
    "fallback_months",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# The most tokens of a month that a member or a workspace may use; null: as many as there are.
caps = Table(
    "caps",
    metadata,
    Column("organization_id", Text, ForeignKey("organizations.id"), primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("subject_id", Text, primary_key=True),
    Column("allowance_tokens", BigInteger),
    Column("own_key_tokens", BigInteger),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    CheckConstraint("scope IN ('member', 'workspace')", name="scope"),
    CheckConstraint("allowance_tokens >= 0 AND own_key_tokens >= 0", name="tokens"),
    CheckConstraint("allowance_tokens IS NOT NULL OR own_key_tokens IS NOT NULL", name="some"),
)

# What caps count beside the events.
Index(
    "ix_ledger_entries_adjustments",
    ledger_entries.c.organization_id,
    ledger_entries.c.period,
    sqlite_where=ledger_entries.c.kind == "adjustment",
)

# Events with what a late settlement has corrected, of a call that was taken for abandoned; and what each was charged.
corrected_events = usage_events.outerjoin(
    ledger_entries,
    (ledger_entries.c.request_id == usage_events.c.request_id) & (ledger_entries.c.kind == "adjustment"),
)
CHARGED = usage_events.c.charged_tokens - func.coalesce(ledger_entries.c.tokens, 0)
