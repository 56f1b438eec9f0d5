"""``ownkey ledger``: the token bookkeeping."""

from __future__ import annotations

from dataclasses import asdict

from cyclopts import App

from ownkey.cli.installation import installation
from ownkey.cli.output import Json, show
from ownkey.errors import Conflict
from ownkey.metering import ledger

app = App(name="ledger", help="The token bookkeeping.")


@app.command
async def verify(*, json: Json = False) -> None:
    """Recompute every balance from its entries; exits 1 and names organization, month and difference."""
    async with installation() as here:
        found = await ledger.verify(here.db)
    if json:
        show({"differences": [asdict(difference) for difference in found]}, json)
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Conflict(
            f"Organization {first.organization_id}, month {first.period}: {first.subject} should be "
            f"{first.expected:,} but is {first.found:,}, a difference of {first.found - first.expected:+,}{more}."
        )
    if not json:
        print("Every balance is the sum of its entries.")
