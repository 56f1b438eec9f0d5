"""``ownkey migrate``: bring the database up to date."""

from __future__ import annotations

from ownkey.cli.output import Json, show


def migrate(*, json: Json = False) -> None:
    """Bring the database up to date.

    Run it once before new nodes start on PostgreSQL; on the embedded database `serve` does it by itself. Doing it
    again changes nothing.
    """
    from ownkey.cli.configuration import configured
    from ownkey.cli.installation import database_of
    from ownkey.db import schema

    db = database_of(configured())
    schema.upgrade(db.url)
    show({"database": db.dialect, "up_to_date": schema.is_current(db.url)}, json)
