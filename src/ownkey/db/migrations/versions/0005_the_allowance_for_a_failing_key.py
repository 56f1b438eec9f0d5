"""The allowance for a failing key: an organization's choice, the calls that were served so, and what they took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change the schema."""
    op.add_column("provider_keys", sa.Column("fallback_tokens", sa.BigInteger(), nullable=True))
    texts = ("request_id", "organization_id", "provider", "period", "reason", "after_request_id")
    op.create_table(
        "fallback_calls",
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("counted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint("reason IN ('rate_limit', 'outage')", name=op.f("ck_fallback_calls_reason")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_fallback_calls")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_fallback_calls_organization_id_provider_period_counted"),
        "fallback_calls",
        ["organization_id", "provider", "period", "counted"],
        unique=False,
    )
    op.create_table(
        "fallback_months",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("organization_id", "provider", "period")),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "provider", "period", name=op.f("pk_fallback_months")),
        sqlite_with_rowid=False,
    )
