"""Changing the password: what ends with it, and who is too late for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ownkey import audit
from ownkey.accounts import passwords, sessions, sign_in
from ownkey.accounts.sessions import SignedIn
from ownkey.db.engine import Database
from ownkey.errors import Expired, InvalidRequest, NotAuthenticated
from tests import build
from tests.integration.accounts.test_sign_in import OTHER_PASSWORD, resolved, somebody

pytestmark = pytest.mark.anyio


async def test_changing_the_password_ends_the_other_sessions(database: Database) -> None:
    """This browser stays signed in; the others, and open links, do not."""
    email = await somebody(database)
    here, there = [await sign_in.with_password(database, email, build.PASSWORD) for _ in range(2)]
    async with database.transaction() as tx:
        link = await sign_in.make_link(tx, email, "reset")
    signed_in = await resolved(database, here)
    for current, new in (("wrong, so wrong, so wrong", OTHER_PASSWORD), (build.PASSWORD, "short")):
        with pytest.raises(InvalidRequest):
            await sign_in.change_password(database, signed_in, current, new)
    assert await sessions.resolve(database, there) is not None
    await sign_in.change_password(database, signed_in, build.PASSWORD, OTHER_PASSWORD)
    assert await sessions.resolve(database, there) is None
    assert await sessions.resolve(database, here) is not None
    with pytest.raises(Expired):
        await sign_in.link_email(database, link)


async def test_a_password_changed_meanwhile_does_not_open(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives the old password while it is being changed does not get in behind the change."""
    email = await somebody(database)
    session = await resolved(database, await sign_in.with_password(database, email, build.PASSWORD))
    checking, changed = asyncio.Event(), asyncio.Event()
    real = passwords.verify

    async def slow(kept: str | None, text: str) -> bool:
        result = await real(kept, text)
        if not checking.is_set():
            checking.set()
            await changed.wait()
        return result

    monkeypatch.setattr(passwords, "verify", slow)
    late = asyncio.create_task(sign_in.with_password(database, email, build.PASSWORD))
    await checking.wait()
    await sign_in.change_password(database, session, build.PASSWORD, OTHER_PASSWORD)
    changed.set()
    with pytest.raises(NotAuthenticated):
        await late


async def recovered(db: Database, signed_in: SignedIn) -> None:
    """The person uses a link and chooses another password."""
    async with db.transaction() as tx:
        link = await sign_in.make_link(tx, signed_in.user.email, "reset")
    await sign_in.redeem_link(db, link, OTHER_PASSWORD)


async def signed_out(db: Database, signed_in: SignedIn) -> None:
    """The person ends all sessions from elsewhere."""
    await sessions.revoke_all(db, signed_in.user.id)


@pytest.mark.parametrize(("meanwhile", "password"), [(recovered, OTHER_PASSWORD), (signed_out, build.PASSWORD)])
async def test_a_change_that_comes_too_late_changes_nothing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Database, SignedIn], Awaitable[None]],
    password: str,
) -> None:
    """Whoever gave the old password cannot undo a recovery, or a sign-out, that came before the change was made."""
    email = await somebody(database)
    stolen = await resolved(database, await sign_in.with_password(database, email, build.PASSWORD))
    checked, done = asyncio.Event(), asyncio.Event()
    real = passwords.hash_password

    async def slow(text: str) -> str:
        if not checked.is_set():
            checked.set()
            await done.wait()
        return await real(text)

    monkeypatch.setattr(passwords, "hash_password", slow)
    late = asyncio.create_task(sign_in.change_password(database, stolen, build.PASSWORD, "the thief chose these words"))
    await checked.wait()
    await meanwhile(database, stolen)
    done.set()
    with pytest.raises(NotAuthenticated, match="Sign in again"):
        await late
    await sign_in.with_password(database, email, password)
    entries = await audit.entries(database, stolen.organization.id, action="password.change")
    assert "password" not in [entry.detail["by"] for entry in entries]


async def test_a_session_that_has_ended_is_not_confirmed(database: Database) -> None:
    """The right password in a session that was ended elsewhere does not bring it back."""
    email = await somebody(database)
    token = await sign_in.with_password(database, email, build.PASSWORD)
    ended = await resolved(database, token)
    await signed_out(database, ended)
    with pytest.raises(NotAuthenticated):
        await sign_in.confirm_password(database, ended, build.PASSWORD)
    assert await sessions.resolve(database, token) is None
