"""The life of a key: since when it is what it is, when it is checked next, who was told, and when it expires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ownkey.db.utc_time import UtcTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change the schema."""
    op.add_column("provider_keys", sa.Column("expires_at", UtcTime(), nullable=True))
    health = "provider_key_health"
    op.add_column(health, sa.Column("health_since", UtcTime(), nullable=True))
    op.add_column(health, sa.Column("told_health", sa.Text(), server_default="unverified", nullable=False))
    op.add_column(health, sa.Column("reminded_days", sa.Integer(), nullable=True))
    op.add_column(health, sa.Column("next_check_at", UtcTime(), nullable=True))
    op.create_index(op.f("ix_provider_key_health_next_check_at"), health, ["next_check_at"], unique=False)
    # Whoever looked at the page knows; and what was checked longest ago is checked first, some at a time.
    op.execute(
        f"UPDATE {health} SET told_health = health, health_since = last_checked_at, "
        "next_check_at = COALESCE(last_checked_at, 0)"
    )
