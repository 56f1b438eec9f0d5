"""``ownkey caps``: the most tokens of a month that a member or a workspace may use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from ownkey.access import Actor
from ownkey.accounts import caps, memberships
from ownkey.accounts.caps import Scope
from ownkey.accounts.users import normal_email
from ownkey.cli.ending import BadUsage
from ownkey.cli.installation import Installation, installation
from ownkey.cli.numbers import whole
from ownkey.cli.output import Json, show
from ownkey.cli.parameters import Org, Workspace
from ownkey.errors import NotFound

app = App(name="caps", help="The most tokens of a month that a member or a workspace may use.")
Member = Annotated[str | None, Parameter(help="The member's e-mail address; without it, the cap is the workspace's.")]


@app.command(name="list")
async def list_caps(org: Org, /, *, json: Json = False) -> None:
    """List an organization's caps, with what was used under each this month."""
    async with installation() as here:
        _, actor = await here.organization(org)
        found = await caps.list_caps(here.db, actor)
    show([asdict(cap) for cap in found], json)


@app.command(name="set")
async def set_cap(
    org: Org,
    /,
    *,
    member: Member = None,
    workspace: Workspace = None,
    allowance: Annotated[int | None, whole("The most tokens a month of the allowance.")] = None,
    own_key: Annotated[int | None, whole("The most tokens a month on the organization's own keys.")] = None,
    json: Json = False,
) -> None:
    """Cap what a member, or a workspace, may use in a month. It replaces the cap before, and counts at once."""
    if allowance is None and own_key is None:
        raise BadUsage("Give --allowance, --own-key or both. `ownkey caps remove` lifts a cap.")
    async with installation() as here:
        _, actor = await here.organization(org, workspace)
        scope, subject = await _subject(here, actor, member)
        await caps.set_cap(here.db, actor, scope, subject, allowance, own_key)
    show({"scope": scope, "subject_id": subject, "allowance_tokens": allowance, "own_key_tokens": own_key}, json)


@app.command
async def remove(org: Org, /, *, member: Member = None, workspace: Workspace = None, json: Json = False) -> None:
    """Lift the cap of a member or a workspace, at once."""
    async with installation() as here:
        _, actor = await here.organization(org, workspace)
        scope, subject = await _subject(here, actor, member)
        await caps.set_cap(here.db, actor, scope, subject, None, None)
    show({"scope": scope, "subject_id": subject, "removed": True}, json)


async def _subject(here: Installation, actor: Actor, member: str | None) -> tuple[Scope, str]:
    if member is None:
        return "workspace", actor.workspace_id
    wanted = normal_email(member)
    for person in await memberships.list_members(here.db, actor):
        if person.user.email == wanted:
            return "member", person.user.id
    raise NotFound(f"{wanted} is not in this organization.")
