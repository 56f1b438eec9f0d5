"""API tokens: shown once, bounded by scopes and by what their maker may do at the moment of use."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from ownkey import audit, clock
from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, memberships, workspaces
from ownkey.credentials import token_hash
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import Forbidden, InvalidRequest, NotAuthenticated, NotFound
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio


async def test_a_token_is_shown_once_and_kept_as_a_hash(database: Database) -> None:
    """Its form is fixed, so that scanners find a leaked one; the list shows the first characters."""
    made = await build.organization(database)
    developer = await build.actor(database, made, Role.DEVELOPER)
    token, text = await api_tokens.create(database, developer, " CI ", ["usage.read", "gateway"])
    assert re.fullmatch(r"ownkey_[0-9A-Za-z]{40}", text)
    assert token.hint == text[:11] + "…"
    assert (token.name, token.scopes) == ("CI", frozenset({"gateway", "usage.read"}))
    assert await api_tokens.list_tokens(database, developer) == [token]
    async with database.read() as tx:
        rows = (await tx.execute(select(tables.api_tokens))).all()
    assert rows[0].token_hash == token_hash(text)
    assert text[11:] not in str(rows)


async def test_a_token_acts_as_its_maker_within_its_scopes(database: Database) -> None:
    """In the workspace it was made for, with the maker's role of this moment."""
    made = await build.organization(database)
    for role in (Role.DEVELOPER, Role.ADMIN, Role.OWNER):
        maker = await build.actor(database, made, role)
        text = await build.api_token(database, made, scopes=["usage.read"], by=maker)
        actor = await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)
        assert (actor.kind, actor.role, actor.scopes) == ("api_token", role, frozenset({"usage.read"}))
        assert (actor.organization_id, actor.workspace_id) == (made.organization.id, made.workspace.id)
        assert actor.user_id == maker.user_id
        api_tokens.require_scope(actor, "usage.read")
        with pytest.raises(Forbidden, match=r"members\.read"):
            api_tokens.require_scope(actor, "members.read")


async def test_a_token_of_the_operator_acts_as_an_admin(database: Database) -> None:
    """Nobody made it whose rights could end; it is no owner."""
    made = await build.organization(database)
    actor = await api_tokens.actor_for(database, await build.api_token(database, made), DEFAULT_CATALOGUE)
    with pytest.raises(Forbidden, match=r"acts as an admin.*billing\.manage"):
        await build.api_token(database, made, scopes=["gateway", "billing.manage"])
    assert (actor.role, actor.user_id) == (Role.ADMIN, None)


async def test_a_token_rests_while_its_maker_is_below_developer(database: Database) -> None:
    """Demoted, it is refused at the next call; promoted again, it works; removed, it is refused."""
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    maker = await build.actor(database, made, Role.ADMIN)
    text = await build.api_token(database, made, scopes=["provider_keys.manage"], by=maker)
    maker_id, place = str(maker.user_id), made.workspace.id
    await memberships.change_role(database, owner, maker_id, place, Role.DEVELOPER)
    assert (await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)).role is Role.DEVELOPER
    await memberships.change_role(database, owner, maker_id, place, Role.USER)
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)
    await memberships.change_role(database, owner, maker_id, place, Role.DEVELOPER)
    await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)
    await memberships.remove(database, owner, maker_id, place)
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)


async def test_a_revoked_token_is_refused_at_once(database: Database) -> None:
    """It is gone from the list too, and can be neither revoked again nor renamed."""
    made = await build.organization(database)
    developer = await build.actor(database, made, Role.DEVELOPER)
    token, text = await api_tokens.create(database, developer, "CI", ["gateway"])
    await api_tokens.rename(database, developer, token.id, "Build")
    assert [found.name for found in await api_tokens.list_tokens(database, developer)] == ["Build"]
    await api_tokens.revoke(database, developer, token.id)
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)
    assert await api_tokens.list_tokens(database, developer) == []
    for attempt in (
        api_tokens.revoke(database, developer, token.id),
        api_tokens.rename(database, developer, token.id, "x"),
    ):
        with pytest.raises(NotFound):
            await attempt


@pytest.mark.parametrize("text", ["", "ownkey_", "ownkey_" + "0" * 40, "sk-something", "\x00", "\ud800"])
async def test_an_unknown_token_is_refused(database: Database, text: str) -> None:
    """Whatever the text, the answer is the same."""
    await build.organization(database)
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)


async def test_a_plan_without_api_access_refuses_its_tokens(database: Database) -> None:
    """The token is known, so the answer says what is missing."""
    made = await build.organization(database, plan="free")
    with pytest.raises(Forbidden, match="plan"):
        await api_tokens.actor_for(database, await build.api_token(database, made), DEFAULT_CATALOGUE)


async def test_a_suspended_organizations_tokens_are_refused(database: Database) -> None:
    """As if they did not exist."""
    made = await build.organization(database)
    text = await build.api_token(database, made)
    async with database.transaction() as tx:
        await tx.execute(update(tables.organizations).values(suspended_at=clock.now()))
    with pytest.raises(NotAuthenticated):
        await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)


async def test_nobody_gives_more_than_they_have(database: Database) -> None:
    """A developer's token cannot manage members or keys; the attempt is recorded. An admin's can."""
    made = await build.organization(database)
    developer, admin = [await build.actor(database, made, role) for role in (Role.DEVELOPER, Role.ADMIN)]
    for scope in ("members.manage", "provider_keys.manage", "audit.read"):
        with pytest.raises(Forbidden):
            await api_tokens.create(database, developer, "CI", ["gateway", scope])
    entries = await audit.entries(database, made.organization.id, action="api_token.create")
    assert [entry.allowed for entry in entries] == [False] * 3
    assert set(api_tokens.scopes_for(Role.DEVELOPER)) == {
        "gateway",
        "usage.read",
        "provider_keys.read",
        "api_tokens.manage",
    }
    await api_tokens.create(database, admin, "CI", api_tokens.scopes_for(Role.ADMIN))
    await api_tokens.create(database, developer, "CI", api_tokens.scopes_for(Role.DEVELOPER))


async def test_a_token_makes_no_tokens(database: Database) -> None:
    """Otherwise a leaked one would outlive its revocation."""
    made = await build.organization(database)
    text = await build.api_token(database, made, scopes=list(api_tokens.scopes_for(Role.ADMIN)))
    actor = await api_tokens.actor_for(database, text, DEFAULT_CATALOGUE)
    with pytest.raises(Forbidden):
        await api_tokens.create(database, actor, "heir", ["gateway"])


@pytest.mark.parametrize(("name", "scopes"), [("CI", []), ("CI", ["everything"]), ("", ["gateway"])])
async def test_a_token_needs_a_name_and_known_scopes(database: Database, name: str, scopes: list[str]) -> None:
    """At least one scope, from the table."""
    made = await build.organization(database)
    developer = await build.actor(database, made, Role.DEVELOPER)
    with pytest.raises(InvalidRequest):
        await api_tokens.create(database, developer, name, scopes)


async def test_tokens_belong_to_a_workspace(database: Database) -> None:
    """In another workspace of the same organization they are neither seen nor touched."""
    made = await build.organization(database)
    plan = DEFAULT_CATALOGUE["enterprise"]
    second = await workspaces.create(database, await build.actor(database, made, None), plan, "Second")
    here, there = (
        await build.actor(database, made, Role.DEVELOPER),
        await build.actor(database, made, Role.DEVELOPER, workspace_id=second.id),
    )
    token, _ = await api_tokens.create(database, here, "CI", ["gateway"])
    assert await api_tokens.list_tokens(database, there) == []
    for attempt in (
        api_tokens.revoke(database, there, token.id),
        api_tokens.rename(database, there, token.id, "x"),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_the_operator_revokes_by_id_alone(database: Database) -> None:
    """Without naming the organization; the entry stands in that organization's log."""
    made = await build.organization(database)
    developer = await build.actor(database, made, Role.DEVELOPER)
    token, _ = await api_tokens.create(database, developer, "CI", ["gateway"])
    await api_tokens.revoke(database, Actor.operator(), token.id)
    entry = (await audit.entries(database, made.organization.id, action="api_token.revoke"))[0]
    assert (entry.actor_kind, entry.target, entry.allowed) == ("operator", token.id, True)
    with pytest.raises(NotFound):
        await api_tokens.revoke(database, Actor.operator(), "tok_unknown")


async def test_the_list_shows_this_months_requests_and_the_last_use_ever(database: Database) -> None:
    """The share of a monthly limit begins anew each month; when a token was last used does not."""
    made = await build.organization(database)
    developer = await build.actor(database, made, Role.DEVELOPER)
    token, _ = await api_tokens.create(database, developer, "CI", ["gateway"])
    assert (token.requests_this_month, token.last_used_at) == (0, None)
    now = clock.now().replace(microsecond=0)
    long_ago = now - timedelta(days=40)
    rows = [(clock.period_of(long_ago), 70, long_ago), (clock.period_of(now), 3, now)]
    for count, (period, requests, at) in enumerate(rows):
        async with database.transaction() as tx:
            values = {"api_token_id": token.id, "organization_id": made.organization.id, "period": period}
            await tx.execute(insert(tables.api_token_months).values(**values, requests=requests, last_used_at=at))
        [shown] = await api_tokens.list_tokens(database, developer)
        assert (shown.requests_this_month, shown.last_used_at) == ((0, long_ago), (3, now))[count]
