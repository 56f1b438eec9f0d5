"""Alerts about the allowance, and what models cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ownkey.db.utc_time import UtcTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "allowance_alerts",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("reached_at", UtcTime(), nullable=False),
        sa.Column("tried_at", UtcTime(), nullable=True),
        sa.Column("mailed_at", UtcTime(), nullable=True),
        sa.Column("recipients", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("threshold IN (50, 80, 100)", name=op.f("ck_allowance_alerts_threshold")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_allowance_alerts_organization_id")
        ),
        sa.PrimaryKeyConstraint("organization_id", "period", "threshold", name=op.f("pk_allowance_alerts")),
        sqlite_with_rowid=False,
    )
    unmailed = sa.text("mailed_at IS NULL")
    op.create_index(
        "ix_allowance_alerts_unmailed",
        "allowance_alerts",
        ["reached_at"],
        sqlite_where=unmailed,
        postgresql_where=unmailed,
    )
    op.create_table(
        "model_prices",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("valid_from", UtcTime(), nullable=False),
        sa.Column("valid_until", UtcTime(), nullable=True),
        sa.Column("minute_from", sa.Integer(), nullable=False),
        sa.Column("minute_until", sa.Integer(), nullable=False),
        sa.Column("input_from", sa.BigInteger(), nullable=False),
        sa.Column("input_until", sa.BigInteger(), nullable=True),
        sa.Column("input_price", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_price", sa.BigInteger(), nullable=True),
        sa.Column("cache_write_price", sa.BigInteger(), nullable=True),
        sa.Column("output_price", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.CheckConstraint("(input_price IS NULL) = (output_price IS NULL)", name=op.f("ck_model_prices_known")),
        sa.PrimaryKeyConstraint(
            "provider", "model", "valid_from", "minute_from", "input_from", name=op.f("pk_model_prices")
        ),
        sqlite_with_rowid=False,
    )
