"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ownkey.db.utc_time import UtcTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Change the schema."""
    ${upgrades if upgrades else "pass"}
