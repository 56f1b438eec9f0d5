"""People: members, their roles, and open invitations. A token acts in its own workspace only."""

from __future__ import annotations

from datetime import datetime

from ownkey.access import Role
from ownkey.accounts import invitations, memberships, subscriptions
from ownkey.accounts.memberships import Member as Person
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Email, Given, Page, RoleWord, Shown


class RoleIn(Shown):
    """A role in one workspace."""

    workspace_id: str
    role: str


class Member(Shown):
    """A person of the organization. The owner has no roles: they are above all."""

    id: str
    email: str
    name: str
    owner: bool
    roles: list[RoleIn]

    @classmethod
    def of(cls, member: Person) -> Member:
        """The reply's shape of a member."""
        roles = [RoleIn(workspace_id=place, role=role.word) for place, role in member.roles.items()]
        user = member.user
        return cls(id=user.id, email=user.email, name=user.name, owner=member.is_owner, roles=roles)


class Joining(Given):
    """Whom to add or invite to the token's workspace, and as what."""

    email: Email
    role: RoleWord


class RoleChange(Given):
    """Which role to give."""

    role: RoleWord


class Invitation(Shown):
    """An offer of a membership that can still be accepted."""

    id: str
    email: str
    role: str
    workspace_id: str
    invited_by: str
    expires_at: datetime

    @classmethod
    def of(cls, invitation: invitations.Invitation) -> Invitation:
        """The reply's shape of an invitation."""
        return cls(
            id=invitation.id,
            email=invitation.email,
            role=invitation.role.word,
            workspace_id=invitation.workspace_id,
            invited_by=invitation.invited_by,
            expires_at=invitation.expires_at,
        )


class NewInvitation(Shown):
    """An invitation. Its one-time address was mailed, or is ``url``: pass it on yourself, it is not shown again."""

    invitation: Invitation
    mailed: bool
    url: str | None


async def list_members(node: Here, actor: Caller) -> Page[Member]:
    """List everybody in the organization, the owner first."""
    return Page(items=[Member.of(member) for member in await memberships.list_members(node.db, actor)])


async def add(node: Here, actor: Caller, given: Joining) -> RoleIn:
    """Give somebody a role in the token's workspace. Who is not in the organization yet is refused: invite them."""
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    await memberships.add(node.db, actor, given.email, Role.of(given.role), actor.workspace_id, plan)
    return RoleIn(workspace_id=actor.workspace_id, role=given.role)


async def change_role(node: Here, actor: Caller, user_id: str, workspace_id: str, given: RoleChange) -> RoleIn:
    """Change somebody's role; it counts at their next request. Nobody changes their own."""
    await memberships.change_role(node.db, actor, user_id, workspace_id, Role.of(given.role))
    return RoleIn(workspace_id=workspace_id, role=given.role)


async def remove(node: Here, actor: Caller, user_id: str, workspace_id: str) -> None:
    """Take somebody out of a workspace, at once."""
    await memberships.remove(node.db, actor, user_id, workspace_id)


async def list_invitations(node: Here, actor: Caller) -> Page[Invitation]:
    """List the invitations that can still be accepted, newest first."""
    return Page(items=[Invitation.of(found) for found in await invitations.list_open(node.db, actor)])


async def invite(node: Here, actor: Caller, given: Joining) -> NewInvitation:
    """Invite somebody to the token's workspace: once, for seven days."""
    made, token = await invitations.create(node.db, actor, given.email, Role.of(given.role), actor.workspace_id)
    url = f"{node.settings.public_url}/invitations/{token}"
    subject = f"You are invited to {node.settings.app_name}"
    text = f"Accept the invitation within seven days. The link works once.\n\n{url}\n"
    # As on the page: who can be reached by mail gets the link there, and nobody else sees it.
    mailed = node.mailer.can_send and await node.mailer.send(made.email, subject, text)
    return NewInvitation(invitation=Invitation.of(made), mailed=mailed, url=None if mailed else url)


async def revoke_invitation(node: Here, actor: Caller, invitation_id: str) -> None:
    """Take an open invitation back."""
    await invitations.revoke(node.db, actor, invitation_id)
