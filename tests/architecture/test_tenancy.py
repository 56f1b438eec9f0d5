"""Every row that belongs to a customer says to which one, and cannot point into another."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint

from ownkey.db import usage_tables  # noqa: F401 - so that the metadata has all
from ownkey.db.tables import metadata

WITHOUT_ORGANIZATION = {
    "users": "a person may be in several organizations",
    "sessions": "belongs to a person",
    "one_time_tokens": "belongs to an e-mail address",
    "sign_in_attempts": "belongs to an e-mail address",
    "organizations": "is the organization",
    "model_prices": "the prices of providers, which are the same for everybody",
    "facts": "one row for the whole installation",
    "audit_end": "where the one chain of audit entries ends",
}


def test_every_table_names_its_organization() -> None:
    """Every table carries ``organization_id``, but for those listed here with the reason."""
    without = {table.name for table in metadata.sorted_tables if "organization_id" not in table.columns}
    assert without == WITHOUT_ORGANIZATION.keys()


def test_a_workspace_is_named_with_its_organization() -> None:
    """A foreign key to a workspace is the pair (organization, workspace), so a row cannot cross tenants."""
    for table in metadata.sorted_tables:
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint) and constraint.referred_table.name == "workspaces":
                assert constraint.column_keys == ["organization_id", "workspace_id"], table.name
