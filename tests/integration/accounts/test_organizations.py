"""Organizations and workspaces."""

from __future__ import annotations

import asyncio

import pytest

from ownkey.access import Actor, Role
from ownkey.accounts import memberships, organizations, sessions, subscriptions, workspaces
from ownkey.db.engine import Database
from ownkey.errors import Conflict, Forbidden, InvalidRequest, NotFound, PlanLimitReached
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

STARTER = DEFAULT_CATALOGUE["starter"]


async def test_an_organization_begins_with_a_workspace_an_owner_and_a_plan(database: Database) -> None:
    """The owner has no membership and is above all workspaces; the link is theirs."""
    made = await build.organization(database, name="Acme & Söhne", plan="starter", owner_email="Ann@Example.com")
    assert (made.organization.slug, made.workspace.name) == ("acme-sohne", "General")
    assert (made.owner.email, made.owner.has_password) == ("ann@example.com", False)
    operator = await build.actor(database, made, None)
    assert (await subscriptions.plan_of(database, operator, DEFAULT_CATALOGUE)).code == "starter"
    [member] = await memberships.list_members(database, operator)
    assert (member.user, member.is_owner, member.roles) == (made.owner, True, {})
    signed_in = await sessions.resolve(database, await build.session(database, made.owner))
    assert signed_in is not None
    assert (signed_in.actor.role, signed_in.workspace) == (Role.OWNER, made.workspace)


async def test_an_organization_is_found_by_id_and_slug(database: Database) -> None:
    """Both name one organization; anything else is not found, the text of an injection too."""
    first, second = [(await build.organization(database, name="Acme")).organization for _ in range(2)]
    assert (first.slug, second.slug) == ("acme", "acme-2")
    assert await organizations.by_reference(database, second.id) == second
    assert await organizations.by_reference(database, "acme") == first
    for unknown in ("", "Acme", "acme%", "' OR 1=1 --"):
        with pytest.raises(NotFound):
            await organizations.by_reference(database, unknown)


async def test_organizations_of_one_name_at_once_get_slugs_of_their_own(database: Database) -> None:
    """Of several at the same moment each gets its own slug or is asked to try again."""
    made = await asyncio.gather(*(build.organization(database, name="Rush") for _ in range(5)), return_exceptions=True)
    slugs = [one.organization.slug for one in made if not isinstance(one, BaseException)]
    assert len(set(slugs)) == len(slugs) >= 1
    assert all(isinstance(one, Conflict) for one in made if isinstance(one, BaseException))


@pytest.mark.parametrize(
    ("name", "owner", "plan"),
    [("", "a@b.com", "free"), ("Acme", "nobody", "free"), ("Acme", "a@b.com", "gold"), ("A\nB", "a@b.com", "free")],
)
async def test_an_unusable_organization_is_refused(database: Database, name: str, owner: str, plan: str) -> None:
    """A name, an owner's address and a plan of the catalogue are needed; without one nothing is made."""
    with pytest.raises(InvalidRequest):
        await organizations.create(database, Actor.operator(), DEFAULT_CATALOGUE, name, owner, plan)
    assert await organizations.list_all(database, Actor.operator()) == []


async def test_only_the_operator_sees_all_organizations(database: Database) -> None:
    """Whoever belongs to one learns nothing of the others."""
    made = await build.organization(database)
    with pytest.raises(Forbidden):
        await organizations.list_all(database, build.acting(made.owner, made, Role.OWNER))


async def test_whoever_makes_a_workspace_is_its_admin(database: Database) -> None:
    """An admin gets a membership in the new workspace; the owner needs none."""
    made = await build.organization(database, plan="starter")
    admin = await build.actor(database, made, Role.ADMIN)
    second = await workspaces.create(database, admin, STARTER, "Research")
    third = await workspaces.create(database, build.acting(made.owner, made, Role.OWNER), STARTER, "Research")
    assert (second.slug, third.slug) == ("research", "research-2")
    members = {m.user.id: m for m in await memberships.list_members(database, admin)}
    assert members[str(admin.user_id)].roles == {made.workspace.id: Role.ADMIN, second.id: Role.ADMIN}
    assert members[made.owner.id].roles == {}


async def test_a_plan_limits_workspaces_also_when_they_come_at_once(database: Database) -> None:
    """With room for two more of five simultaneous ones, two are made."""
    made = await build.organization(database, plan="starter")
    owner = build.acting(made.owner, made, Role.OWNER)
    tries = await asyncio.gather(
        *(workspaces.create(database, owner, STARTER, f"W{n}") for n in range(5)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in tries) == ["PlanLimitReached"] * 3 + ["Workspace"] * 2
    assert len(await workspaces.list_for(database, owner)) == 3


async def test_the_plan_of_a_moment_ago_does_not_count(database: Database) -> None:
    """Who looked at the plan before a downgrade does not get the old plan's workspaces."""
    made = await build.organization(database, plan="starter")
    owner = build.acting(made.owner, made, Role.OWNER)
    await subscriptions.change(database, owner, DEFAULT_CATALOGUE, "free")
    with pytest.raises(Conflict):
        await workspaces.create(database, owner, STARTER, "Second")


async def test_people_see_the_workspaces_they_belong_to(database: Database) -> None:
    """Admins see all workspaces of the organization, others those they are in."""
    made = await build.organization(database, plan="starter")
    owner = build.acting(made.owner, made, Role.OWNER)
    second = await workspaces.create(database, owner, STARTER, "Second")
    await workspaces.create(database, owner, STARTER, "Third")
    user = await build.actor(database, made, Role.USER, workspace_id=second.id)
    assert await workspaces.list_for(database, user) == [second]
    assert len(await workspaces.list_for(database, owner)) == 3


async def test_a_downgrade_below_what_is_there_is_refused_with_the_reason(database: Database) -> None:
    """Too many workspaces, or fewer included members than people, keep the plan as it is."""
    made = await build.organization(database, plan="professional")
    owner = build.acting(made.owner, made, Role.OWNER)
    for name in ("Second", "Third", "Fourth"):
        await workspaces.create(database, owner, DEFAULT_CATALOGUE["professional"], name)
    with pytest.raises(PlanLimitReached, match="3 workspaces; you have 4"):
        await subscriptions.change(database, owner, DEFAULT_CATALOGUE, "starter")
    assert (await subscriptions.plan_of(database, owner, DEFAULT_CATALOGUE)).code == "professional"

    other = await build.organization(database, plan="starter")
    owner = build.acting(other.owner, other, Role.OWNER)
    await build.member(database, other, Role.USER)
    assert await subscriptions.seats(database, owner) == 2
    with pytest.raises(PlanLimitReached, match="1 member; you have 2"):
        await subscriptions.change(database, owner, DEFAULT_CATALOGUE, "free")


async def test_extra_seats_do_not_hold_up_an_upgrade(database: Database) -> None:
    """More people than a plan includes are seats to pay for; a larger plan may still include fewer than there are."""
    made = await build.organization(database, plan="free")
    owner = build.acting(made.owner, made, Role.OWNER)
    for _ in range(6):
        await build.member(database, made, Role.USER)
    changed = await subscriptions.change(database, owner, DEFAULT_CATALOGUE, "starter", "year")
    assert (changed.code, await subscriptions.interval_of(database, owner)) == ("starter", "year")
    with pytest.raises(PlanLimitReached):
        await subscriptions.change(database, owner, DEFAULT_CATALOGUE, "free")


async def test_slugs_stay_when_names_change(database: Database) -> None:
    """A command that names an organization or workspace by its slug goes on working."""
    made = await build.organization(database, name="Acme")
    owner = build.acting(made.owner, made, Role.OWNER)
    await organizations.rename(database, owner, "Apex")
    await workspaces.rename(database, owner, "Main")
    renamed = await organizations.by_reference(database, "acme")
    assert renamed.name == "Apex"
    assert (await workspaces.by_reference(database, renamed.id, "general")).name == "Main"
