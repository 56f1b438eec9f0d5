"""Caps: the most tokens of a month that one member, or one workspace, may use of what the organization has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ownkey.db.utc_time import UtcTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "caps",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("allowance_tokens", sa.BigInteger(), nullable=True),
        sa.Column("own_key_tokens", sa.BigInteger(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("updated_at", UtcTime(), nullable=False),
        sa.CheckConstraint("scope IN ('member', 'workspace')", name=op.f("ck_caps_scope")),
        sa.CheckConstraint("allowance_tokens >= 0 AND own_key_tokens >= 0", name=op.f("ck_caps_tokens")),
        sa.CheckConstraint("allowance_tokens IS NOT NULL OR own_key_tokens IS NOT NULL", name=op.f("ck_caps_some")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_caps_organization_id")),
        sa.PrimaryKeyConstraint("organization_id", "scope", "subject_id", name=op.f("pk_caps")),
    )
    # What late settlements have corrected of an organization's month counts, too.
    op.create_index(
        op.f("ix_ledger_entries_adjustments"),
        "ledger_entries",
        ["organization_id", "period"],
        sqlite_where=sa.text("kind = 'adjustment'"),
        postgresql_where=sa.text("kind = 'adjustment'"),
    )
    # As the first migration does for the other tables whose change must be seen at once.
    if op.get_bind().dialect.name == "sqlite":
        for change in ("INSERT", "UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER facts_caps_{change.lower()} AFTER {change} ON caps "
                "BEGIN UPDATE facts SET version = version + 1; END"
            )
        return
    op.execute(
        "CREATE TRIGGER facts_caps AFTER INSERT OR UPDATE OR DELETE ON caps "
        "FOR EACH STATEMENT EXECUTE FUNCTION raise_facts_version()"
    )
