"""Every change of accounts, by every role: the table in ``access.py`` is what is enforced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product

import pytest

from ownkey import audit
from ownkey.access import LOWEST_ROLE, Action, Actor, Role
from ownkey.accounts import api_tokens, invitations, memberships, organizations, subscriptions, users, workspaces
from ownkey.accounts.organizations import Created
from ownkey.db.engine import Database
from ownkey.errors import Forbidden, NotFound
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

PLAN = DEFAULT_CATALOGUE["enterprise"]


@dataclass(frozen=True, slots=True)
class Scene:
    """An organization with somebody to act upon."""

    db: Database
    created: Created
    member_id: str
    token_id: str
    invitation_id: str

    @property
    def place(self) -> str:
        return self.created.workspace.id


async def scene(db: Database) -> Scene:
    """A new one for each try, so that a refusal cannot come from an earlier success."""
    created = await build.organization(db)
    operator = await build.actor(db, created, None)
    somebody = await build.member(db, created, Role.USER)
    token, _ = await api_tokens.create(db, operator, "t", ["gateway"])
    invitation, _ = await invitations.create(db, operator, "guest@example.com", Role.USER, created.workspace.id)
    return Scene(db, created, somebody.id, token.id, invitation.id)


Change = Callable[[Scene, Actor], Awaitable[object]]

CHANGES: dict[Action, Change] = {
    Action.ACCOUNT_UPDATE: lambda s, a: users.rename(s.db, a, "New Name"),
    Action.API_TOKEN_CREATE: lambda s, a: api_tokens.create(s.db, a, "mine", ["gateway"]),
    Action.API_TOKEN_READ: lambda s, a: api_tokens.list_tokens(s.db, a),
    Action.API_TOKEN_RENAME: lambda s, a: api_tokens.rename(s.db, a, s.token_id, "other"),
    Action.API_TOKEN_REVOKE: lambda s, a: api_tokens.revoke(s.db, a, s.token_id),
    Action.INVITATION_CREATE: lambda s, a: invitations.create(s.db, a, "other@example.com", Role.USER, s.place),
    Action.INVITATION_REVOKE: lambda s, a: invitations.revoke(s.db, a, s.invitation_id),
    Action.MEMBERSHIP_READ: lambda s, a: memberships.list_members(s.db, a),
    Action.MEMBERSHIP_CHANGE_ROLE: lambda s, a: memberships.change_role(s.db, a, s.member_id, s.place, Role.DEVELOPER),
    Action.MEMBERSHIP_REMOVE: lambda s, a: memberships.remove(s.db, a, s.member_id, s.place),
    Action.ORGANIZATION_CREATE: lambda s, a: organizations.create(
        s.db, a, DEFAULT_CATALOGUE, "Another", "somebody@example.com"
    ),
    Action.ORGANIZATION_UPDATE: lambda s, a: organizations.rename(s.db, a, "Renamed"),
    Action.SUBSCRIPTION_CHANGE: lambda s, a: subscriptions.change(s.db, a, DEFAULT_CATALOGUE, "enterprise", "year"),
    Action.WORKSPACE_CREATE: lambda s, a: workspaces.create(s.db, a, PLAN, "Second"),
    Action.WORKSPACE_UPDATE: lambda s, a: workspaces.rename(s.db, a, "Renamed"),
}
READS = {Action.API_TOKEN_READ, Action.MEMBERSHIP_READ}


async def entries_of(db: Database, created: Created, action: Action) -> list[tuple[str, bool]]:
    """Who did, or was refused, this action in the organization."""
    found = await audit.entries(db, created.organization.id, action=action.value)
    return [(entry.actor_id, entry.allowed) for entry in found]


async def test_every_change_needs_the_role_of_its_action(database: Database) -> None:
    """Who reaches the action's lowest role does it and is recorded; everybody else is refused, and recorded too."""
    here = await scene(database)
    for action, role in product(CHANGES, Role):
        lowest = LOWEST_ROLE[action]
        allowed = lowest is not None and role >= lowest
        actor = await build.actor(database, here.created, role)
        earlier = len(await entries_of(database, here.created, action))
        if allowed:
            await CHANGES[action](here, actor)
        else:
            with pytest.raises(Forbidden):
                await CHANGES[action](here, actor)
        told = await entries_of(database, here.created, action)
        expected = [] if allowed and action in READS else [(actor.id, allowed)]
        assert told[: len(told) - earlier] == expected, (action, role)
        if allowed and action not in READS:
            here = await scene(database)


async def test_the_operator_may_do_everything_and_is_recorded(database: Database) -> None:
    """The command line passes the same door as everyone and stands in the log like anyone."""
    for action in CHANGES.keys() - {Action.ACCOUNT_UPDATE} - READS:
        here = await scene(database)
        before = len(await entries_of(database, here.created, action))
        result = await CHANGES[action](here, await build.actor(database, here.created, None))
        there = result if isinstance(result, Created) else here.created
        told = await entries_of(database, there, action)
        assert told[0] == ("operator", True), action
        assert len(told) == before * (there is here.created) + 1, action


async def test_nobody_changes_another_organization(database: Database) -> None:
    """The things of another organization do not exist for an admin or owner: not found, and nothing changes."""
    here, theirs = await scene(database), await scene(database)
    for role in (Role.ADMIN, Role.OWNER):
        actor = await build.actor(database, here.created, role)
        for attempt in (
            api_tokens.rename(database, actor, theirs.token_id, "x"),
            api_tokens.revoke(database, actor, theirs.token_id),
            invitations.create(database, actor, "x@example.com", Role.USER, theirs.place),
            invitations.revoke(database, actor, theirs.invitation_id),
            memberships.add(database, actor, "x@example.com", Role.USER, theirs.place, PLAN),
            memberships.change_role(database, actor, theirs.member_id, theirs.place, Role.ADMIN),
            memberships.change_role(database, actor, theirs.member_id, here.place, Role.ADMIN),
            memberships.remove(database, actor, theirs.member_id, theirs.place),
            memberships.remove(database, actor, theirs.member_id, here.place),
            workspaces.by_reference(database, actor.organization_id, theirs.place),
        ):
            with pytest.raises(NotFound):
                await attempt
    everybody = await memberships.list_members(database, await build.actor(database, theirs.created, None))
    assert {member.user.id for member in everybody} == {theirs.created.owner.id, theirs.member_id}
