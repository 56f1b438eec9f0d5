"""The tables about usage that no call reads or writes: which alerts an organization was given."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from ownkey.db.tables import metadata
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
