"""Monthly caps: of the workspace, under Settings → Workspace; of a member, under Settings → Members."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from ownkey.access import Role
from ownkey.accounts import caps, memberships
from ownkey.accounts.caps import CapInForce, Scope
from ownkey.accounts.memberships import Member
from ownkey.accounts.sessions import SignedIn
from ownkey.errors import NotFound
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.pages import workspace
from ownkey.web.rendering import redirect, render


async def save_workspace(request: Request) -> Response:
    """``POST /settings/workspace/cap``: cap what the workspace may use in a month; empty fields lift the cap."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    if not await _save(request, signed_in, form, "workspace", signed_in.workspace.id):
        return await workspace.page(request, form)
    return redirect(request, "/settings/workspace", notice="The workspace's cap is saved.")


async def open_member(request: Request) -> Response:
    """``GET /settings/members/{user}/cap``: a member's cap, and what they used under it this month."""
    signed_in = await session.require(request)
    return await _member_page(request, signed_in, await _member(request, signed_in))


async def save_member(request: Request) -> Response:
    """``POST /settings/members/{user}/cap``: empty fields lift the cap."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    member = await _member(request, signed_in)
    if not await _save(request, signed_in, form, "member", member.user.id):
        return await _member_page(request, signed_in, member, form)
    return redirect(request, "/settings/members", notice=f"The cap of {member.user.label} is saved.")


def may_cap(signed_in: SignedIn, member: Member) -> bool:
    """Whether this person may change a member's cap: the owner any, an admin those of others in this workspace."""
    if signed_in.actor.role == Role.OWNER:
        return True
    return not member.is_owner and member.user.id != signed_in.user.id and signed_in.workspace.id in member.roles


async def _save(request: Request, signed_in: SignedIn, form: Form, scope: Scope, subject_id: str) -> bool:
    """Set the cap in the form, unless something is wrong with it; whether it was right."""
    allowance = form.tokens("allowance_tokens", caps.MOST_TOKENS, required=False)
    own_key = form.tokens("own_key_tokens", caps.MOST_TOKENS, required=False)
    if form.ok:
        with suppress(NotFound):  # nothing to lift
            await caps.set_cap(session.node_of(request).db, signed_in.actor, scope, subject_id, allowance, own_key)
    return form.ok


async def _member(request: Request, signed_in: SignedIn) -> Member:
    for member in await memberships.list_members(session.node_of(request).db, signed_in.actor):
        if member.user.id == request.path_params["user"] and may_cap(signed_in, member):
            return member
    raise NotFound


async def _member_page(request: Request, signed_in: SignedIn, member: Member, form: Form | None = None) -> Response:
    found = {cap.subject_id: cap for cap in await caps.list_caps(session.node_of(request).db, signed_in.actor)}
    cap: CapInForce | None = found.get(member.user.id)
    return render(
        request, "members_cap.html", signed_in=signed_in, status=422 if form else 200, member=member, cap=cap, form=form
    )
