"""Settings → Members: who is in the organization, in which workspaces and as what; and invitations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from ownkey.access import Role
from ownkey.accounts import caps, invitations, memberships, subscriptions, workspaces
from ownkey.accounts.caps import CapInForce
from ownkey.accounts.invitations import Invitation
from ownkey.accounts.memberships import Member
from ownkey.accounts.sessions import SignedIn
from ownkey.accounts.workspaces import Workspace
from ownkey.errors import Conflict, InvalidRequest, NotFound
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.pages.caps import may_cap
from ownkey.web.rendering import redirect, render

PATH = "/settings/members"
# Owner is not assignable.
ROLES = (Role.USER, Role.DEVELOPER, Role.ADMIN)
_ROLE_WORDS = [role.word for role in ROLES]


@dataclass(frozen=True, slots=True)
class PlaceOfMember:
    """A member's role in one workspace, and whether the reader may change it."""

    workspace: Workspace
    role: Role
    may_change: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A member as the list shows them; ``open_workspaces`` are those the reader may add them to."""

    member: Member
    is_self: bool
    places: Sequence[PlaceOfMember]
    open_workspaces: Sequence[Workspace]
    cap: CapInForce | None
    may_cap: bool


async def show(request: Request) -> Response:
    """``GET /settings/members``: admins and up."""
    return await _page(request, await session.require(request))


async def invite(request: Request) -> Response:
    """``POST /settings/members/invitations``: mail the one-time link, or show it once if mail cannot be sent."""
    form = await forms.read(request)
    signed_in, node = await session.require(request), session.node_of(request)
    email = form.text("email", "an e-mail address", longest=254)
    role = form.choice("role", _ROLE_WORDS, "a role")
    workspace_id = form.choice("workspace", _administered(signed_in), "a workspace")
    if not form.ok:
        return await _page(request, signed_in, form=form)
    try:
        invitation, token = await invitations.create(node.db, signed_in.actor, email, Role.of(role), workspace_id)
    except (InvalidRequest, Conflict) as error:
        form.fail("email", error.message)
        return await _page(request, signed_in, form=form)
    link = f"{node.settings.public_url}/invitations/{token}"
    if node.mailer.can_send and await node.mailer.send(
        invitation.email, *_mail(node.settings.app_name, signed_in, link)
    ):
        return redirect(request, PATH, f"An invitation is on its way to {invitation.email}.")
    # Not a redirect: the link is kept nowhere, so it can be shown only in the reply to its making.
    return await _page(request, signed_in, invited=invitation, link=link)


async def revoke_invitation(request: Request) -> Response:
    """``POST /settings/members/invitations/{invitation}/revoke``."""
    await forms.read(request)
    signed_in = await session.require(request)
    await invitations.revoke(session.node_of(request).db, signed_in.actor, request.path_params["invitation"])
    return redirect(request, PATH, "The invitation is taken back. Its link no longer works.")


async def change_role(request: Request) -> Response:
    """``POST /settings/members/{user}/role``: counts at the person's next request."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    row = await _row(request, signed_in)
    role, workspace_id = form.choice("role", _ROLE_WORDS, "a role"), form.get("workspace", "")
    if not form.ok:
        raise InvalidRequest("Choose one of the roles User, Developer and Admin.")
    user = row.member.user
    await memberships.change_role(session.node_of(request).db, signed_in.actor, user.id, workspace_id, Role.of(role))
    name = next(place.workspace.name for place in row.places if place.workspace.id == workspace_id)
    return redirect(request, PATH, f"{user.label} is now {Role.of(role).label} in {name}.")


async def open_add(request: Request) -> Response:
    """``GET /settings/members/{user}/workspaces``: choose workspaces to add a member to, and a role in each."""
    signed_in = await session.require(request)
    return _add_page(request, signed_in, await _row(request, signed_in))


async def add(request: Request) -> Response:
    """``POST /settings/members/{user}/workspaces``."""
    form = await forms.read(request)
    signed_in, node = await session.require(request), session.node_of(request)
    row = await _row(request, signed_in)
    chosen = [workspace for workspace in row.open_workspaces if workspace.id in form.many("workspace")]
    roles = [form.choice(f"role-{workspace.id}", _ROLE_WORDS, "a role") for workspace in chosen]
    if not chosen:
        form.fail("", "Choose at least one workspace.")
    if not form.ok:
        return _add_page(request, signed_in, row, form)
    plan = await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue)
    for workspace, role in zip(chosen, roles, strict=True):
        await memberships.add(node.db, signed_in.actor, row.member.user.email, Role.of(role), workspace.id, plan)
    names = ", ".join(workspace.name for workspace in chosen)
    return redirect(request, PATH, f"{row.member.user.label} was added to {names}.")


async def confirm_removal(request: Request) -> Response:
    """``GET /settings/members/{user}/remove?workspace=…``: the question, for a browser without the dialog."""
    signed_in = await session.require(request)
    row = await _row(request, signed_in)
    place = _place(row, request.query_params.get("workspace", ""))
    return render(request, "members_remove.html", signed_in=signed_in, row=row, place=place)


async def remove(request: Request) -> Response:
    """``POST /settings/members/{user}/remove``: out of one workspace, at once."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    row = await _row(request, signed_in)
    place = _place(row, form.get("workspace", ""))
    user = row.member.user
    await memberships.remove(session.node_of(request).db, signed_in.actor, user.id, place.workspace.id)
    return redirect(request, PATH, f"{user.label} is no longer in {place.workspace.name}.")


async def _page(
    request: Request,
    signed_in: SignedIn,
    *,
    form: Form | None = None,
    invited: Invitation | None = None,
    link: str = "",
) -> Response:
    node, actor = session.node_of(request), signed_in.actor
    administered = _administered(signed_in)
    everywhere = await workspaces.list_for(node.db, actor)
    return render(
        request,
        "members.html",
        signed_in=signed_in,
        status=422 if form else 200,
        rows=await _rows(request, signed_in),
        roles=ROLES,
        invitable=[workspace for workspace in everywhere if workspace.id in administered],
        invitations=await invitations.list_open(node.db, actor),
        administered=administered,
        plan=await subscriptions.plan_of(node.db, actor, node.catalogue),
        seats=await subscriptions.seats(node.db, actor),
        can_mail=node.mailer.can_send,
        form=form,
        invited=invited,
        link=link,
    )


def _add_page(request: Request, signed_in: SignedIn, row: Row, form: Form | None = None) -> Response:
    if not row.open_workspaces:
        raise NotFound
    return render(
        request,
        "members_add.html",
        signed_in=signed_in,
        status=422 if form else 200,
        row=row,
        roles=ROLES,
        chosen=form.many("workspace") if form else [],
        form=form,
    )


async def _rows(request: Request, signed_in: SignedIn) -> Sequence[Row]:
    db, actor = session.node_of(request).db, signed_in.actor
    everywhere = await workspaces.list_for(db, actor)
    found = {cap.subject_id: cap for cap in await caps.list_caps(db, actor)}
    return [
        _row_of(member, everywhere, signed_in, found.get(member.user.id))
        for member in await memberships.list_members(db, actor)
    ]


async def _row(request: Request, signed_in: SignedIn) -> Row:
    for row in await _rows(request, signed_in):
        if row.member.user.id == request.path_params["user"]:
            return row
    raise NotFound


def _row_of(member: Member, everywhere: Sequence[Workspace], signed_in: SignedIn, cap: CapInForce | None) -> Row:
    mine, is_self = _administered(signed_in), member.user.id == signed_in.user.id
    places = [
        PlaceOfMember(workspace, member.roles[workspace.id], workspace.id in mine and not is_self)
        for workspace in everywhere
        if workspace.id in member.roles
    ]
    free = [workspace for workspace in everywhere if workspace.id in mine and workspace.id not in member.roles]
    return Row(member, is_self, places, [] if member.is_owner else free, cap, may_cap(signed_in, member))


def _place(row: Row, workspace_id: str) -> PlaceOfMember:
    for place in row.places:
        if place.workspace.id == workspace_id:
            return place
    raise NotFound


def _administered(signed_in: SignedIn) -> Collection[str]:
    """The ids of the organization's workspaces that this person is admin of."""
    return {
        place.workspace.id
        for place in signed_in.places
        if place.organization.id == signed_in.organization.id and place.role >= Role.ADMIN
    }


def _mail(app_name: str, signed_in: SignedIn, link: str) -> tuple[str, str]:
    organization, inviter = signed_in.organization.name, signed_in.user.label
    subject = f"{inviter} invites you to {organization} on {app_name}"
    text = (
        f"{inviter} invites you to {organization} on {app_name}.\n\n"
        f"Accept here within seven days:\n{link}\n\nIf you did not expect this, ignore it."
    )
    return subject, text
