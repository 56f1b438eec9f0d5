"""Members: added, given roles, removed; each counts at the very next request."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from ownkey import audit, clock
from ownkey.access import Action, Actor, Role
from ownkey.accounts import memberships, sessions, sign_in, users, workspaces
from ownkey.accounts.organizations import Created
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import Conflict, Forbidden, InvalidRequest, NotFound
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

PLAN = DEFAULT_CATALOGUE["enterprise"]


async def second_workspace(db: Database, made: Created) -> str:
    """The id of another workspace of the organization."""
    return (await workspaces.create(db, await build.actor(db, made, None), PLAN, "Second")).id


async def role_now(db: Database, session: str) -> Role | None:
    """The role that a session's next request has."""
    signed_in = await sessions.resolve(db, session)
    return signed_in.actor.role if signed_in else None


async def test_a_changed_role_counts_at_the_next_request(database: Database) -> None:
    """Up or down, without signing in again."""
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    person = await build.member(database, made, Role.USER)
    session = await build.session(database, person)
    for role in (Role.ADMIN, Role.DEVELOPER, Role.USER):
        await memberships.change_role(database, owner, person.id, made.workspace.id, role)
        assert await role_now(database, session) is role
    entry = (await audit.entries(database, made.organization.id, action="membership.change_role"))[0]
    assert entry.detail == {"workspace": made.workspace.id, "role": "user", "before": "developer"}


async def test_a_removed_member_is_out_at_the_next_request(database: Database) -> None:
    """With no place left they are known but nowhere; with another place they are there, and only there."""
    made = await build.organization(database)
    other = await second_workspace(database, made)
    owner = build.acting(made.owner, made, Role.OWNER)
    person = await build.member(database, made, Role.ADMIN)
    await memberships.add(database, owner, person.email, Role.USER, other, PLAN)
    session = await build.session(database, person, workspace_id=made.workspace.id)
    assert await role_now(database, session) is Role.ADMIN
    await memberships.remove(database, owner, person.id, made.workspace.id)
    signed_in = await sessions.resolve(database, session)
    assert signed_in is not None
    assert (signed_in.actor.role, signed_in.workspace.id) == (Role.USER, other)
    await memberships.remove(database, owner, person.id, other)
    with pytest.raises(Forbidden):
        await sessions.resolve(database, session)
    with pytest.raises(NotFound):
        await memberships.remove(database, owner, person.id, other)


async def test_nobody_changes_their_own_role(database: Database) -> None:
    """Not up and not down, not the owner either; the attempt is recorded."""
    made = await build.organization(database)
    for role in (Role.ADMIN, Role.OWNER):
        actor = await build.actor(database, made, role)
        with pytest.raises(Forbidden):
            await memberships.change_role(database, actor, str(actor.user_id), made.workspace.id, Role.USER)
        entry = (await audit.entries(database, made.organization.id, action="membership.change_role"))[0]
        assert (entry.actor_id, entry.allowed) == (actor.id, False)


async def test_a_token_does_not_change_its_makers_role(database: Database) -> None:
    """What a person may not do with their own role, their API token may not either."""
    made = await build.organization(database)
    admin = await build.actor(database, made, Role.ADMIN)
    token = Actor("api_token", "tok_1", "Token", made.organization.id, made.workspace.id, Role.ADMIN, admin.user_id)
    with pytest.raises(Forbidden):
        await memberships.change_role(database, token, str(admin.user_id), made.workspace.id, Role.DEVELOPER)


async def test_owner_is_not_a_role_to_give(database: Database) -> None:
    """Ownership is the organization's; no membership carries it."""
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    person = await build.member(database, made, Role.ADMIN)
    with pytest.raises(InvalidRequest):
        await memberships.change_role(database, owner, person.id, made.workspace.id, Role.OWNER)
    with pytest.raises(InvalidRequest):
        await memberships.add(database, owner, person.email, Role.OWNER, made.workspace.id, PLAN)


async def test_the_owner_can_be_neither_removed_nor_demoted(database: Database) -> None:
    """There is no membership to take away, and none can be given."""
    made = await build.organization(database)
    admin = await build.actor(database, made, Role.ADMIN)
    with pytest.raises(NotFound):
        await memberships.remove(database, admin, made.owner.id, made.workspace.id)
    with pytest.raises(NotFound):
        await memberships.change_role(database, admin, made.owner.id, made.workspace.id, Role.USER)
    with pytest.raises(Conflict):
        await memberships.add(database, admin, made.owner.email, Role.USER, made.workspace.id, PLAN)


async def test_an_admin_manages_the_workspaces_they_are_admin_of(database: Database) -> None:
    """An admin of the active workspace is nobody in another: the role there decides."""
    made = await build.organization(database)
    other = await second_workspace(database, made)
    admin = await build.actor(database, made, Role.ADMIN)
    person = await build.member(database, made, Role.USER, workspace_id=other)
    for attempt in (
        memberships.add(database, admin, person.email, Role.ADMIN, other, PLAN),
        memberships.change_role(database, admin, person.id, other, Role.ADMIN),
        memberships.remove(database, admin, person.id, other),
    ):
        with pytest.raises(Forbidden):
            await attempt
    await memberships.add(database, admin, person.email, Role.USER, made.workspace.id, PLAN)
    owner = build.acting(made.owner, made, Role.OWNER)
    await memberships.add(database, owner, str(await email_of(database, admin)), Role.ADMIN, other, PLAN)
    await memberships.change_role(database, admin, person.id, other, Role.DEVELOPER)


async def email_of(db: Database, actor: Actor) -> str:
    """The address of the person who acts."""
    return (await users.by_id(db, str(actor.user_id))).email


async def test_a_stale_role_in_the_request_does_not_count(database: Database) -> None:
    """Who was admin when the page was sent and is no more when the form comes back is refused."""
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    admin = await build.actor(database, made, Role.ADMIN)
    person = await build.member(database, made, Role.USER)
    await memberships.change_role(database, owner, str(admin.user_id), made.workspace.id, Role.USER)
    with pytest.raises(Forbidden):
        await memberships.remove(database, admin, person.id, made.workspace.id)


async def test_an_admin_adds_who_is_in_the_organization_and_invites_others(database: Database) -> None:
    """An address proves nothing: a person from outside is added by accepting, not by being named."""
    here, there = await build.organization(database), await build.organization(database)
    stranger = await build.member(database, there, Role.USER)
    admin = await build.actor(database, here, Role.ADMIN)
    for email in (stranger.email, "nobody-yet@example.com"):
        with pytest.raises(InvalidRequest, match="invitation"):
            await memberships.add(database, admin, email, Role.USER, here.workspace.id, PLAN)
    assert await users.by_email(database, "nobody-yet@example.com") is None


async def test_only_the_operator_gets_a_link_for_somebody_else(database: Database) -> None:
    """An admin never holds a credential of a person, who may belong to other organizations as well."""
    made = await build.organization(database)
    other = await second_workspace(database, made)
    operator = await build.actor(database, made, None)
    added = await memberships.add(database, operator, "new@example.com", Role.USER, made.workspace.id, PLAN)
    assert added.sign_in_token is not None
    owner = build.acting(made.owner, made, Role.OWNER)
    assert (await memberships.add(database, owner, "new@example.com", Role.USER, other, PLAN)).sign_in_token is None
    await sign_in.redeem_link(database, added.sign_in_token, build.PASSWORD)
    await memberships.remove(database, operator, added.user.id, other)
    again = await memberships.add(database, operator, "new@example.com", Role.USER, other, PLAN)
    assert again.sign_in_token is None


async def test_a_person_is_in_a_workspace_once(database: Database) -> None:
    """Adding somebody who is there is a conflict, however the address is written, and changes no role."""
    made = await build.organization(database)
    operator = await build.actor(database, made, None)
    person = await build.member(database, made, Role.DEVELOPER)
    with pytest.raises(Conflict):
        await memberships.add(database, operator, person.email.upper(), Role.ADMIN, made.workspace.id, PLAN)
    members = {m.user.id: m for m in await memberships.list_members(database, operator)}
    assert members[person.id].roles == {made.workspace.id: Role.DEVELOPER}


async def test_members_beyond_the_plan_are_extra_seats(database: Database) -> None:
    """They are added all the same, and the log says how many there are."""
    made = await build.organization(database, plan="free")
    operator = await build.actor(database, made, None)
    for number in range(2):
        email = f"extra{number}@example.com"
        free = DEFAULT_CATALOGUE["free"]
        await memberships.add(database, operator, email, Role.USER, made.workspace.id, free)
    entry = (await audit.entries(database, made.organization.id, action=Action.MEMBERSHIP_ADD.value))[0]
    assert entry.detail["extra_seats"] == 2


async def test_a_suspended_person_or_organization_is_out_at_once(database: Database) -> None:
    """A disabled user's session is none; a suspended organization is no place."""
    made, other = await build.organization(database), await build.organization(database)
    person = await build.member(database, made, Role.USER)
    session, owners = await build.session(database, person), await build.session(database, other.owner)
    async with database.transaction() as tx:
        await tx.execute(update(tables.users).where(tables.users.c.id == person.id).values(disabled_at=clock.now()))
        theirs = tables.organizations.c.id == other.organization.id
        await tx.execute(update(tables.organizations).where(theirs).values(suspended_at=clock.now()))
    assert await sessions.resolve(database, session) is None
    with pytest.raises(Forbidden):
        await sessions.resolve(database, owners)
