"""``ownkey members``: an organization's people."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from ownkey.access import Action, Role
from ownkey.accounts import memberships, subscriptions, workspaces
from ownkey.accounts.links import make_link
from ownkey.accounts.users import normal_email
from ownkey.changes import perform
from ownkey.cli.installation import installation
from ownkey.cli.output import Json, show
from ownkey.cli.parameters import Org, Workspace
from ownkey.errors import NotFound

app = App(name="members", help="An organization's people.")
_HAND_OVER = "The link works once. Give it to the person, who chooses a password there."


@app.command
async def add(
    org: Org,
    email: Annotated[str, Parameter(help="The person's e-mail address.")],
    /,
    *,
    role: Annotated[Literal["user", "developer", "admin"], Parameter(help="What the person may do there.")],
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """Add a person to a workspace; a person without a password yet gets a sign-in link."""
    async with installation() as here:
        _, actor = await here.organization(org, workspace)
        plan = await subscriptions.plan_of(here.db, actor, here.catalogue)
        added = await memberships.add(here.db, actor, email, Role.of(role), actor.workspace_id, plan)
        link = here.sign_in_url(added.sign_in_token) if added.sign_in_token else None
    document = {"email": added.user.email, "role": role, "sign_in_url": link}
    show(document, json, note=_HAND_OVER if link else "")


@app.command
async def link(
    org: Org, email: Annotated[str, Parameter(help="The person's e-mail address.")], /, *, json: Json = False
) -> None:
    """Make a new sign-in link for a person of the organization, who may have lost the first one or the password.

    Opening it ends all of the person's sessions. Until then nothing changes.
    """
    async with installation() as here:
        _, actor = await here.organization(org)
        wanted = normal_email(email)
        people = [member.user for member in await memberships.list_members(here.db, actor)]
        user = next((person for person in people if person.email == wanted), None)
        if user is None:
            raise NotFound(f"{wanted} is not in this organization.")
        async with perform(here.db, actor, Action.PASSWORD_CHANGE, user.id, {"by": "new sign-in link"}) as tx:
            token = await make_link(tx, user.email)
        document = {"email": user.email, "sign_in_url": here.sign_in_url(token)}
    show(document, json, note=_HAND_OVER)


@app.command(name="list")
async def list_members(org: Org, /, *, json: Json = False) -> None:
    """List an organization's people with their role in each workspace."""
    async with installation() as here:
        _, actor = await here.organization(org)
        found = await memberships.list_members(here.db, actor)
        places = {workspace.id: workspace.slug for workspace in await workspaces.list_for(here.db, actor)}
    if json:
        show(
            [
                {
                    "id": member.user.id,
                    "email": member.user.email,
                    "name": member.user.name,
                    "owner": member.is_owner,
                    "roles": {workspace: role.word for workspace, role in member.roles.items()},
                }
                for member in found
            ],
            json,
        )
        return
    show(
        [
            {
                "email": member.user.email,
                "name": member.user.name,
                "owner": member.is_owner,
                "roles": [f"{places.get(place, place)}: {role.word}" for place, role in member.roles.items()],
            }
            for member in found
        ],
        json,
    )
