"""Invitations: once, for one person, with the role they were made with, and only while their maker may make them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import select

from ownkey import audit, clock
from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, invitations, memberships, sessions, sign_in, users, workspaces
from ownkey.accounts.organizations import Created
from ownkey.credentials import token_hash
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import Conflict, Expired, Forbidden, InvalidRequest, NotAuthenticated, NotFound
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

GUEST = "guest@example.com"
PLAN = DEFAULT_CATALOGUE["enterprise"]


async def invited(
    db: Database, role: Role = Role.DEVELOPER, email: str = GUEST
) -> tuple[Created, Actor, invitations.Invitation, str]:
    """An organization, the admin who invited, the invitation, and its token."""
    made = await build.organization(db)
    admin = await build.actor(db, made, Role.ADMIN)
    invitation, token = await invitations.create(db, admin, email, role, made.workspace.id)
    return made, admin, invitation, token


async def roles(db: Database, made: Created) -> dict[str, Role | None]:
    """Address to role in the first workspace, of everybody in the organization."""
    members = await memberships.list_members(db, await build.actor(db, made, None))
    return {member.user.email: member.roles.get(made.workspace.id) for member in members}


async def test_a_new_person_accepts_by_choosing_a_password(database: Database) -> None:
    """They get the role that was offered, in the workspace it was offered for, and are signed in there."""
    made, _, invitation, token = await invited(database)
    offer = await invitations.look(database, token)
    assert (offer.invitation, offer.organization_name) == (invitation, made.organization.name)
    assert not offer.has_account
    session = await invitations.accept(database, token, password=build.PASSWORD, name="Gus", ip="192.0.2.1")
    signed_in = await sessions.resolve(database, session)
    assert signed_in is not None
    assert (signed_in.user.email, signed_in.user.name) == (GUEST, "Gus")
    assert (signed_in.actor.role, signed_in.workspace) == (Role.DEVELOPER, made.workspace)
    await sign_in.with_password(database, GUEST, build.PASSWORD)
    entry = (await audit.entries(database, made.organization.id, action="membership.add"))[0]
    assert (entry.actor_id, entry.detail["invitation"]) == (signed_in.user.id, invitation.id)


async def test_somebody_with_an_account_accepts_signed_in(database: Database) -> None:
    """Their password stays; the new session is in the workspace they were invited to."""
    elsewhere = await build.organization(database, owner_email=GUEST)
    await sign_in.redeem_link(database, elsewhere.sign_in_token, build.PASSWORD)
    made, _, _, token = await invited(database)
    assert (await invitations.look(database, token)).has_account
    with pytest.raises(Conflict):
        await invitations.accept(database, token, password="a password from the admin")
    session = await invitations.accept(database, token, user_id=elsewhere.owner.id)
    signed_in = await sessions.resolve(database, session)
    assert signed_in is not None
    assert (signed_in.workspace, len(signed_in.places)) == (made.workspace, 2)
    await sign_in.with_password(database, GUEST, build.PASSWORD)


async def test_accepting_is_no_giving_of_the_password(database: Database) -> None:
    """Somebody signed in gets a session that is as old as theirs: not recent, and over when theirs would have been."""
    guests = await build.organization(database, owner_email=GUEST)
    before = await sessions.resolve(database, await build.session(database, guests.owner))
    assert before is not None
    with time_machine.travel(clock.now() + timedelta(minutes=11)):
        made, _, _, token = await invited(database)
        ids = {"user_id": guests.owner.id, "session_id": before.session_id}
        session = await invitations.accept(database, token, **ids)
        after = await sessions.resolve(database, session)
        assert after is not None
        assert (after.workspace, after.is_recent) == (made.workspace, False)
        assert after.authenticated_at == before.authenticated_at
    async with database.read() as tx:
        assert len(set(await tx.scalars(select(tables.sessions.c.expires_at)))) == 1


async def test_a_session_that_has_ended_accepts_nothing(database: Database) -> None:
    """Signed out between looking and accepting, or another person's session: the invitation stays open."""
    guests = await build.organization(database, owner_email=GUEST)
    other = await sessions.resolve(database, await build.session(database, (await build.organization(database)).owner))
    assert other is not None
    made, _, _, token = await invited(database)
    for session_id in (other.session_id, "ses_gone"):
        with pytest.raises(NotAuthenticated):
            await invitations.accept(database, token, user_id=guests.owner.id, session_id=session_id)
    assert GUEST not in await roles(database, made)
    await invitations.look(database, token)


async def test_an_invitation_is_for_the_address_it_names(database: Database) -> None:
    """Another person who got hold of it is refused, and it stays open for the right one."""
    made, admin, _, token = await invited(database)
    other = await build.organization(database)
    for user_id in (other.owner.id, str(admin.user_id), ""):
        with pytest.raises(Forbidden):
            await invitations.accept(database, token, user_id=user_id)
    assert GUEST not in await roles(database, made)
    await invitations.accept(database, token, password=build.PASSWORD)


async def test_an_invitation_works_once_also_when_used_twice_at_once(database: Database) -> None:
    """Of several at the same moment one wins, and there is one person with one role."""
    made, _, _, token = await invited(database)
    tries = await asyncio.gather(
        *(invitations.accept(database, token, password=f"{build.PASSWORD} {n}") for n in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, str) for result in tries) == 1
    assert {type(result) for result in tries if not isinstance(result, str)} <= {Expired, Conflict}
    assert (await roles(database, made))[GUEST] is Role.DEVELOPER
    with pytest.raises(Expired):
        await invitations.accept(database, token, password=build.PASSWORD)


async def test_a_poor_password_does_not_use_an_invitation_up(database: Database) -> None:
    """The person tries again with the same invitation."""
    _, _, _, token = await invited(database)
    for password in ("short", f"{GUEST} and more", None):
        with pytest.raises(InvalidRequest):
            await invitations.accept(database, token, password=password)
    with pytest.raises(InvalidRequest):
        await invitations.accept(database, token, password=build.PASSWORD, name="x" * 101)
    await invitations.accept(database, token, password=build.PASSWORD)


async def test_an_invitation_ends_after_seven_days(database: Database) -> None:
    """Afterwards it can be neither seen nor accepted, and is listed no more."""
    made, admin, _, token = await invited(database)
    with time_machine.travel(clock.now() + timedelta(days=7, seconds=1)):
        with pytest.raises(Expired):
            await invitations.look(database, token)
        with pytest.raises(Expired):
            await invitations.accept(database, token, password=build.PASSWORD)
        assert await invitations.list_open(database, admin) == []
    with time_machine.travel(clock.now() + timedelta(days=38)):
        assert await invitations.delete_old(database) == 1
    assert GUEST not in await roles(database, made)


async def test_a_revoked_invitation_is_worthless(database: Database) -> None:
    """It cannot be accepted, nor revoked again."""
    _, admin, invitation, token = await invited(database)
    assert [found.id for found in await invitations.list_open(database, admin)] == [invitation.id]
    await invitations.revoke(database, admin, invitation.id)
    with pytest.raises(Expired):
        await invitations.accept(database, token, password=build.PASSWORD)
    assert await invitations.list_open(database, admin) == []
    with pytest.raises(NotFound):
        await invitations.revoke(database, admin, invitation.id)


async def test_a_second_invitation_takes_the_place_of_the_first(database: Database) -> None:
    """One person has one open offer for a workspace; the earlier link is worthless."""
    made, admin, _, first = await invited(database, Role.ADMIN)
    _, second = await invitations.create(database, admin, GUEST.upper(), Role.USER, made.workspace.id)
    with pytest.raises(Expired):
        await invitations.look(database, first)
    await invitations.accept(database, second, password=build.PASSWORD)
    assert (await roles(database, made))[GUEST] is Role.USER


async def test_an_invitation_is_void_when_its_maker_lost_the_right(database: Database) -> None:
    """Demoted or removed, whoever invited brings nobody in any more."""
    made, admin, _, token = await invited(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    await memberships.change_role(database, owner, str(admin.user_id), made.workspace.id, Role.DEVELOPER)
    with pytest.raises(Expired):
        await invitations.accept(database, token, password=build.PASSWORD)
    assert await invitations.list_open(database, owner) == []
    await memberships.remove(database, owner, str(admin.user_id), made.workspace.id)
    with pytest.raises(Expired):
        await invitations.look(database, token)
    _, by_owner = await invitations.create(database, owner, GUEST, Role.USER, made.workspace.id)
    await invitations.accept(database, by_owner, password=build.PASSWORD)


async def test_an_invitation_is_void_when_the_token_that_made_it_is_revoked(database: Database) -> None:
    """One that a program made by the operator's token brings nobody in, and is not listed, once that has ended."""
    made = await build.organization(database)
    operator = await build.actor(database, made, None)
    program = await api_tokens.actor_for(
        database, await build.api_token(database, made, scopes=["members.manage"]), DEFAULT_CATALOGUE
    )
    invitation, token = await invitations.create(database, program, GUEST, Role.ADMIN, made.workspace.id)
    assert (await invitations.look(database, token)).invitation == invitation
    assert await invitations.list_open(database, operator) == [invitation]
    await api_tokens.revoke(database, operator, program.id)
    with pytest.raises(Expired):
        await invitations.accept(database, token, password=build.PASSWORD)
    assert await invitations.list_open(database, operator) == []
    assert GUEST not in await roles(database, made)


async def test_an_admin_of_one_workspace_invites_to_that_one(database: Database) -> None:
    """Into another workspace only its own admins and the owner invite."""
    made, admin, _, _ = await invited(database)
    second = await workspaces.create(database, await build.actor(database, made, None), PLAN, "Second")
    with pytest.raises(Forbidden):
        await invitations.create(database, admin, GUEST, Role.USER, second.id)
    with pytest.raises(InvalidRequest):
        await invitations.create(database, admin, GUEST, Role.OWNER, made.workspace.id)


async def test_members_are_not_invited_again(database: Database) -> None:
    """Somebody with a role there, and the owner, are a conflict."""
    made, admin, _, _ = await invited(database)
    person = await build.member(database, made, Role.USER)
    for email in (person.email, made.owner.email):
        with pytest.raises(Conflict):
            await invitations.create(database, admin, email, Role.ADMIN, made.workspace.id)


async def test_an_admin_cannot_choose_the_password_of_somebody_elses_member(database: Database) -> None:
    """Somebody in another organization without a password is not taken over by inviting them and opening the link."""
    victims = await build.organization(database)
    victim = await build.member(database, victims, Role.ADMIN)
    _, _, _, token = await invited(database, email=victim.email)
    assert not (await invitations.look(database, token)).has_account
    with pytest.raises(Conflict):
        await invitations.accept(database, token, password="chosen by the attacker")
    with pytest.raises(Conflict):
        await invitations.accept(database, token, password="chosen by the attacker")
    person = await users.by_id(database, victim.id)
    assert not person.has_password


async def test_an_admin_cannot_choose_the_password_of_another_workspaces_member(database: Database) -> None:
    """Also in one organization: it takes an admin of every workspace that somebody without a password is in."""
    made, admin, _, token = await invited(database)
    operator = await build.actor(database, made, None)
    second = await workspaces.create(database, operator, PLAN, "Second")
    victim = await build.member(database, made, Role.ADMIN, email=GUEST, workspace_id=second.id)
    program = await api_tokens.actor_for(
        database, await build.api_token(database, made, scopes=["members.manage"]), DEFAULT_CATALOGUE
    )
    for inviter in (admin, program):
        _, again = await invitations.create(database, inviter, GUEST, Role.USER, made.workspace.id)
        with pytest.raises(Expired):
            await invitations.look(database, token)
        with pytest.raises(Conflict):
            await invitations.accept(database, again, password="chosen by the attacker")
        token = again
    assert not (await users.by_id(database, victim.id)).has_password
    await memberships.add(database, operator, await address_of(database, admin), Role.DEVELOPER, second.id, PLAN)
    _, as_developer = await invitations.create(database, admin, GUEST, Role.USER, made.workspace.id)
    with pytest.raises(Conflict):
        await invitations.accept(database, as_developer, password="chosen by the attacker")


@pytest.mark.parametrize("inviter", [None, Role.OWNER, Role.ADMIN])
async def test_who_manages_all_of_somebodys_workspaces_invites_them(database: Database, inviter: Role | None) -> None:
    """The operator, the owner, and an admin of both: the person may choose the password with the invitation."""
    made = await build.organization(database)
    operator = await build.actor(database, made, None)
    second = await workspaces.create(database, operator, PLAN, "Second")
    await build.member(database, made, Role.USER, email=GUEST, workspace_id=second.id)
    actor = await build.actor(database, made, inviter)
    if inviter is Role.ADMIN:
        await memberships.add(database, operator, await address_of(database, actor), Role.ADMIN, second.id, PLAN)
    _, token = await invitations.create(database, actor, GUEST, Role.USER, made.workspace.id)
    session = await invitations.accept(database, token, password=build.PASSWORD)
    signed_in = await sessions.resolve(database, session)
    assert signed_in is not None
    assert {place.workspace.id for place in signed_in.places} == {made.workspace.id, second.id}


async def address_of(db: Database, actor: Actor) -> str:
    """The e-mail address of a person who acts."""
    return (await users.by_id(db, str(actor.user_id))).email


async def test_only_the_hash_of_an_invitation_is_kept(database: Database) -> None:
    """Whoever reads the table cannot accept with what they read."""
    _, _, _, token = await invited(database)
    async with database.read() as tx:
        [kept] = await tx.scalars(select(tables.invitations.c.token_hash))
    assert kept == token_hash(token) != token
    with pytest.raises(Expired):
        await invitations.look(database, kept)
