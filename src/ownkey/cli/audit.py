"""``ownkey audit``: who did, or was refused, what and when."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from ownkey import audit
from ownkey.cli.installation import installation
from ownkey.cli.numbers import whole
from ownkey.cli.output import Json, show
from ownkey.cli.parameters import Org
from ownkey.db.engine import LARGEST_NUMBER
from ownkey.errors import Conflict

app = App(name="audit", help="Who did, or was refused, what and when.")


@app.command(name="list")
async def list_entries(
    org: Org,
    /,
    *,
    action: Annotated[str | None, Parameter(help="Only this action, for example `provider_key.replace`.")] = None,
    before: Annotated[
        int | None, whole("Only entries older than the one with this id.", least=1, most=LARGEST_NUMBER)
    ] = None,
    limit: Annotated[int, whole("At most this many.", least=1, most=LARGEST_NUMBER)] = 100,
    json: Json = False,
) -> None:
    """List an organization's audit entries, newest first."""
    async with installation() as here:
        organization, _ = await here.organization(org)
        found = await audit.entries(here.db, organization.id, action=action, before=before, limit=limit)
    if json:
        show([asdict(entry) for entry in found], json)
        return
    show(
        [
            {
                "id": str(entry.id),
                "when": entry.created_at,
                "who": entry.actor_label,
                "action": entry.action,
                "target": entry.target,
                "result": "done" if entry.allowed else "refused",
            }
            for entry in found
        ],
        json,
    )


@app.command
async def verify(*, json: Json = False) -> None:
    """Recompute the chain of all entries; exits 1 and names the first one that was edited or follows a deleted one."""
    async with installation() as here:
        good, bad = await audit.verify(here.db)
    if json:
        show({"good": good, "first_bad": bad}, json)
    if bad is not None:
        raise Conflict(f"Audit entry {bad} is not what was written, or one before it was deleted; {good} are good.")
    if not json:
        print(f"All {good:,} audit entries are as they were written.")
