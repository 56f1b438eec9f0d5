"""Settings → Organization: its name, its owner and its workspaces."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import organizations, subscriptions, users, workspaces
from ownkey.errors import InvalidRequest
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render


async def show(request: Request) -> Response:
    """``GET /settings/organization``."""
    return await _page(request, None)


async def rename(request: Request) -> Response:
    """``POST /settings/organization``."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    try:
        await organizations.rename(session.node_of(request).db, signed_in.actor, form.get("name", ""))
    except InvalidRequest as error:
        form.fail("name", error.message)
        return await _page(request, form)
    return redirect(request, "/settings/organization", notice="The organization's name is saved.")


async def _page(request: Request, form: Form | None) -> Response:
    node, signed_in = session.node_of(request), await session.require(request)
    return render(
        request,
        "organization.html",
        signed_in=signed_in,
        form=form,
        status=422 if form else 200,
        owner=await users.by_id(node.db, signed_in.organization.owner_id),
        plan=await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue),
        workspaces=await workspaces.list_for(node.db, signed_in.actor),
    )
