"""``ownkey organizations``: the customers."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ownkey.access import Actor
from ownkey.accounts import organizations
from ownkey.cli.installation import installation
from ownkey.cli.output import Json, show

app = App(name="organizations", help="The customers: create and list them.")


@app.command
async def create(
    name: Annotated[str, Parameter(help="What people call it.")],
    /,
    *,
    owner: Annotated[str, Parameter(help="The e-mail address of the person who owns it.")],
    plan: Annotated[str, Parameter(help="The code of its plan; see `ownkey plans list`.")] = "free",
    json: Json = False,
) -> None:
    """Create an organization with its first workspace and its owner, and print the owner's sign-in link."""
    async with installation() as here:
        made = await organizations.create(here.db, Actor.operator(), here.catalogue, name, owner, plan)
        document = {
            "id": made.organization.id,
            "name": made.organization.name,
            "slug": made.organization.slug,
            "owner": {"email": made.owner.email, "sign_in_url": here.sign_in_url(made.sign_in_token)},
            "workspace": {"id": made.workspace.id},
        }
    show(document, json, note="The link works once. Give it to the owner, who chooses a password there.")


@app.command(name="list")
async def list_all(*, json: Json = False) -> None:
    """List all organizations."""
    async with installation() as here:
        found = await organizations.list_all(here.db, Actor.operator())
    show([{"id": o.id, "name": o.name, "slug": o.slug, "created_at": o.created_at} for o in found], json)
