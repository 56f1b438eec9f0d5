"""A usage event is its own ledger entry; events and entries of a month are one chain with a running balance.

What the old ledger said is kept as evidence: an event takes the place of its usage entry and what was used after that
entry, not after itself. Where the two differed, or one of them was missing or doubled, the chain does not add up there,
and ``ownkey ledger verify`` names it as it did before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ownkey.db.utc_time import UtcTime

revision = "0004"
down_revision = "0003"

# Every usage entry, grant and adjustment in order; an event that took nothing, and so has no entry, comes behind the
# entry of the event before it. Usage entries beyond the first of a request have no event: they leave a gap.
_CHAIN = """
CREATE TEMPORARY TABLE chain AS
SELECT entry_id, request_id, organization_id, period,
    row_number() OVER (PARTITION BY organization_id, period ORDER BY place, event_id) AS position,
    CAST(sum(taken) OVER (PARTITION BY organization_id, period ORDER BY place, event_id) AS BIGINT) AS used_after
FROM (
    SELECT id AS entry_id, organization_id, period, id AS place, 0 AS event_id,
        CASE WHEN kind = 'grant' THEN 0 ELSE -tokens END AS taken,
        CASE WHEN kind = 'usage' AND row_number() OVER (PARTITION BY kind, request_id ORDER BY id) = 1
            THEN request_id END AS request_id
    FROM ledger_entries
    UNION ALL
    SELECT NULL, organization_id, period, place, id, 0, request_id
    FROM (
        SELECT e.id, e.organization_id, e.period, e.request_id, e.billed_to, l.id AS entry_id,
            coalesce(max(l.id) OVER (PARTITION BY e.organization_id, e.period ORDER BY e.id), 0) AS place
        FROM usage_events e LEFT JOIN (
            SELECT request_id, min(id) AS id FROM ledger_entries WHERE kind = 'usage' GROUP BY request_id
        ) AS l ON l.request_id = e.request_id
    ) AS events
    WHERE entry_id IS NULL AND billed_to = 'allowance'
) AS entries
"""
_COUNTS = "SELECT organization_id, period, max(position) AS entries FROM chain GROUP BY organization_id, period"
_EVENT_COLUMNS = (
    "id, request_id, organization_id, workspace_id, period, provider, model, dialect, billed_to, provider_key_id, "
    "api_token_id, user_id, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, "
    "charged_tokens, estimated, outcome, started_at, duration_ms"
)
_ENTRY_COLUMNS = "id, organization_id, period, kind, tokens, request_id, note, created_at"
_POSITION = "(billed_to = 'own_key') = (position IS NULL)"
_USED_AFTER = "(position IS NULL) = (used_after IS NULL)"
_KIND = "kind IN ('grant', 'adjustment')"
_BEGINNING = "(organization_id, period) IN (SELECT organization_id, period FROM counts)"


def upgrade() -> None:
    """Change the schema."""
    op.execute(_CHAIN)
    op.execute(f"CREATE TEMPORARY TABLE counts AS {_COUNTS}")
    op.add_column("allowances", sa.Column("entries", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE allowances SET entries = (SELECT entries FROM counts WHERE counts.organization_id = "
        f"allowances.organization_id AND counts.period = allowances.period) WHERE {_BEGINNING}"
    )
    if op.get_bind().dialect.name == "sqlite":
        _rebuild()
    else:
        _alter()
    op.execute("DROP TABLE chain")
    op.execute("DROP TABLE counts")


def _alter() -> None:
    for table in ("usage_events", "ledger_entries"):
        op.add_column(table, sa.Column("position", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("used_after", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE usage_events SET position = chain.position, used_after = chain.used_after FROM chain "
        "WHERE chain.request_id = usage_events.request_id AND billed_to = 'allowance'"
    )
    op.create_check_constraint("position", "usage_events", _POSITION)
    op.create_check_constraint("used_after", "usage_events", _USED_AFTER)
    op.execute("DELETE FROM ledger_entries WHERE kind = 'usage'")
    op.execute(
        "UPDATE ledger_entries SET position = chain.position, used_after = chain.used_after FROM chain "
        "WHERE chain.entry_id = ledger_entries.id"
    )
    op.alter_column("ledger_entries", "position", nullable=False)
    op.alter_column("ledger_entries", "used_after", nullable=False)
    op.drop_constraint(op.f("ck_ledger_entries_kind"), "ledger_entries")
    op.create_check_constraint("kind", "ledger_entries", _KIND)


def _rebuild() -> None:
    """SQLite cannot change a check, so that its tables are written anew."""
    # The names of indexes are one space, and renamed tables keep theirs.
    op.drop_index(op.f("ix_usage_events_organization_id_period_id"), "usage_events")
    op.drop_index("uq_ledger_entries_adjustment", "ledger_entries")
    op.rename_table("usage_events", "old_events")
    op.rename_table("ledger_entries", "old_entries")
    _create_tables()
    op.execute("CREATE INDEX chain_by_request ON chain (request_id)")
    op.execute("CREATE INDEX chain_by_entry ON chain (entry_id)")
    columns = ", ".join(f"old_events.{column}" for column in _EVENT_COLUMNS.split(", "))
    op.execute(
        f"INSERT INTO usage_events ({_EVENT_COLUMNS}, position, used_after) "
        f"SELECT {columns}, chain.position, chain.used_after FROM old_events LEFT JOIN chain "
        "ON chain.request_id = old_events.request_id AND billed_to = 'allowance' ORDER BY old_events.id"
    )
    columns = ", ".join(f"old_entries.{column}" for column in _ENTRY_COLUMNS.split(", "))
    op.execute(
        f"INSERT INTO ledger_entries ({_ENTRY_COLUMNS}, position, used_after) "
        f"SELECT {columns}, chain.position, chain.used_after FROM old_entries JOIN chain "
        "ON chain.entry_id = old_entries.id WHERE kind <> 'usage' ORDER BY old_entries.id"
    )
    op.drop_table("old_events")
    op.drop_table("old_entries")
    op.create_index(
        op.f("ix_usage_events_organization_id_period_id"), "usage_events", ["organization_id", "period", "id"]
    )
    op.create_index(
        "uq_ledger_entries_adjustment",
        "ledger_entries",
        ["request_id"],
        unique=True,
        sqlite_where=sa.text("kind = 'adjustment'"),
    )


def _create_tables() -> None:
    tokens = ("input", "cached_input", "cache_write", "output", "reasoning", "charged")
    op.create_table(
        "usage_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("request_id", "organization_id", "workspace_id")),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("period", "provider", "model", "dialect", "billed_to")
        ),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("provider_key_id", "api_token_id", "user_id")),
        *(sa.Column(f"{kind}_tokens", sa.BigInteger(), nullable=False) for kind in tokens),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("used_after", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("billed_to IN ('allowance', 'own_key')", name=op.f("ck_usage_events_billed_to")),
        sa.CheckConstraint(_POSITION, name=op.f("ck_usage_events_position")),
        sa.CheckConstraint(_USED_AFTER, name=op.f("ck_usage_events_used_after")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_events")),
        sa.UniqueConstraint("request_id", name=op.f("uq_usage_events_request_id")),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("used_after", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_KIND, name=op.f("ck_ledger_entries_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
