"""``ownkey tokens``: API tokens, which programs use to call the gateway."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ownkey.access import Actor
from ownkey.accounts import api_tokens, subscriptions
from ownkey.cli.installation import installation
from ownkey.cli.output import Json, show, warn
from ownkey.cli.parameters import Org, Workspace

app = App(name="tokens", help="API tokens, which programs use to call the gateway.")


@app.command
async def create(
    org: Org,
    /,
    *,
    name: Annotated[str, Parameter(help="What the token is for.")],
    scope: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, help="What it may do, several allowed; `gateway` is to use AI."),
    ] = ("gateway",),
    workspace: Workspace = None,
    json: Json = False,
) -> None:
    """Create an API token and print it: the only time it is shown."""
    async with installation() as here:
        _, actor = await here.organization(org, workspace)
        token, text = await api_tokens.create(here.db, actor, name, scope)
        plan = await subscriptions.plan_of(here.db, actor, here.catalogue)
    if not plan.api_access:
        warn(f"The {plan.name} plan does not include API access: the token works after a change of plan.")
    show({"id": token.id, "token": text}, json, note="Keep it now: it is not shown again.")


@app.command(name="list")
async def list_tokens(org: Org, /, *, workspace: Workspace = None, json: Json = False) -> None:
    """List a workspace's API tokens; of each only its beginning is known."""
    async with installation() as here:
        _, actor = await here.organization(org, workspace)
        found = await api_tokens.list_tokens(here.db, actor)
    show(
        [
            {
                "id": token.id,
                "name": token.name,
                "hint": token.hint,
                "scopes": sorted(token.scopes),
                "created_by": token.created_by,
                "created_at": token.created_at,
                "last_used_at": token.last_used_at,
                "revoked_at": token.revoked_at,
            }
            for token in found
        ],
        json,
    )


@app.command
async def revoke(
    token_id: Annotated[str, Parameter(name="ID", help="The token's id, `tok_…`.")], /, *, json: Json = False
) -> None:
    """Revoke an API token, at once and for good."""
    async with installation() as here:
        await api_tokens.revoke(here.db, Actor.operator(), token_id)
    show({"id": token_id, "revoked": True}, json)
