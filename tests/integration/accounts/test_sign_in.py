"""Signing in: links that work once, passwords, and the limit on wrong ones."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import time_machine
from argon2 import PasswordHasher
from sqlalchemy import select, text

from ownkey import audit, clock
from ownkey.access import Role
from ownkey.accounts import memberships, passwords, sessions, sign_in, users
from ownkey.accounts.sessions import SignedIn
from ownkey.credentials import token_hash
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import Expired, Forbidden, InvalidRequest, NotAuthenticated, NotFound, TooManyAttempts
from ownkey.plans import DEFAULT_CATALOGUE
from tests import build

pytestmark = pytest.mark.anyio

OTHER_PASSWORD = "another tram in the snow"


async def somebody(db: Database) -> str:
    """The address of an owner who has chosen ``build.PASSWORD``."""
    made = await build.organization(db)
    await sign_in.redeem_link(db, made.sign_in_token, build.PASSWORD)
    return made.owner.email


async def resolved(db: Database, token: str) -> SignedIn:
    """Who a session belongs to, which must be a live one."""
    signed_in = await sessions.resolve(db, token)
    assert signed_in is not None
    return signed_in


async def connected(db: Database) -> None:
    """Open as many connections as there may be, so that what comes at once is not put in a row by connecting."""
    everybody = asyncio.Barrier(10)

    async def connect() -> None:
        async with db.read():
            await everybody.wait()

    await asyncio.gather(*(connect() for _ in range(10)))


async def test_a_link_sets_the_password_and_signs_in(database: Database) -> None:
    """Looking at a link does not use it; afterwards the password works."""
    made = await build.organization(database)
    assert await sign_in.link_email(database, made.sign_in_token) == made.owner.email
    session = await sign_in.redeem_link(database, made.sign_in_token, build.PASSWORD, name="Ann")
    signed_in = await resolved(database, session)
    assert (signed_in.user.name, signed_in.user.has_password, signed_in.actor.label) == ("Ann", True, "Ann")
    again = await sign_in.with_password(database, made.owner.email.upper(), build.PASSWORD)
    assert (await resolved(database, again)).user.id == made.owner.id
    assert again != session


async def test_a_link_works_once_also_when_used_twice_at_once(database: Database) -> None:
    """Of several at the same moment one wins; the others, and everybody later, are told it is used."""
    made = await build.organization(database)
    tries = await asyncio.gather(
        *(sign_in.redeem_link(database, made.sign_in_token, f"{build.PASSWORD} {n}") for n in range(5)),
        return_exceptions=True,
    )
    won = [n for n, result in enumerate(tries) if isinstance(result, str)]
    assert len(won) == 1
    assert sum(isinstance(result, Expired) for result in tries) == 4
    await sign_in.with_password(database, made.owner.email, f"{build.PASSWORD} {won[0]}")
    with pytest.raises(Expired):
        await sign_in.link_email(database, made.sign_in_token)


async def test_a_poor_password_does_not_use_a_link_up(database: Database) -> None:
    """Nor does an unusable name; the person tries again with the same link."""
    made = await build.organization(database)
    with pytest.raises(InvalidRequest):
        await sign_in.redeem_link(database, made.sign_in_token, "short")
    with pytest.raises(InvalidRequest):
        await sign_in.redeem_link(database, made.sign_in_token, f"{made.owner.email} again")
    with pytest.raises(InvalidRequest):
        await sign_in.redeem_link(database, made.sign_in_token, build.PASSWORD, name="a\nb")
    with pytest.raises(InvalidRequest):
        await sign_in.redeem_link(database, made.sign_in_token, "all about apex systems", context=("Apex",))
    await sign_in.redeem_link(database, made.sign_in_token, build.PASSWORD)


async def test_a_link_ends_after_seven_days(database: Database) -> None:
    """A longer life cannot be asked for, and expired links are forgotten."""
    made = await build.organization(database)
    async with database.transaction() as tx:
        longer = await sign_in.make_link(tx, made.owner.email, lifetime=timedelta(days=365))
    with time_machine.travel(clock.now() + timedelta(days=7, seconds=1)):
        for token in (made.sign_in_token, longer):
            with pytest.raises(Expired):
                await sign_in.redeem_link(database, token, build.PASSWORD)
        assert await sign_in.delete_expired(database) == 2


async def test_choosing_a_password_ends_what_was_before_it(database: Database) -> None:
    """Every other link of the address, and every session begun with the password before."""
    email = await somebody(database)
    old = await sign_in.with_password(database, email, build.PASSWORD)
    async with database.transaction() as tx:
        reset, other = await sign_in.make_link(tx, email, "reset"), await sign_in.make_link(tx, email, "reset")
    await sign_in.redeem_link(database, reset, OTHER_PASSWORD)
    assert await sessions.resolve(database, old) is None
    with pytest.raises(Expired):
        await sign_in.link_email(database, other)
    with pytest.raises(NotAuthenticated):
        await sign_in.with_password(database, email, build.PASSWORD)
    await sign_in.with_password(database, email, OTHER_PASSWORD)


@pytest.mark.parametrize("email", ["nobody@example.com", "no address", "", "\x00@example.com"])
async def test_an_unknown_person_and_a_wrong_password_look_the_same(database: Database, email: str) -> None:
    """One sentence for both, so that nobody learns who has an account."""
    known = await somebody(database)
    with pytest.raises(NotAuthenticated) as unknown:
        await sign_in.with_password(database, email, OTHER_PASSWORD)
    with pytest.raises(NotAuthenticated) as wrong:
        await sign_in.with_password(database, known, OTHER_PASSWORD)
    assert unknown.value.message == wrong.value.message


async def test_whoever_has_not_chosen_a_password_cannot_sign_in_with_one(database: Database) -> None:
    """An empty password is not the password of somebody who has none."""
    made = await build.organization(database)
    for guess in ("", build.PASSWORD, "the password of somebody who does not exist"):
        with pytest.raises(NotAuthenticated):
            await sign_in.with_password(database, made.owner.email, guess)


async def test_ten_wrong_passwords_in_fifteen_minutes(database: Database) -> None:
    """The eleventh is not looked at, right or wrong, however the address is written; after a while it is."""
    email = await somebody(database)
    start = clock.now()
    with time_machine.travel(start, tick=False) as traveller:
        for n in range(10):
            with pytest.raises(NotAuthenticated):
                await sign_in.with_password(database, email, OTHER_PASSWORD, ip=f"192.0.2.{n}", user_agent=str(n))
        for spelling in (email, email.upper(), f" {email}\t", email.replace("e", "\uff45")):
            with pytest.raises(TooManyAttempts) as refused:
                await sign_in.with_password(database, spelling, build.PASSWORD, ip="198.51.100.1")
            assert refused.value.headers["retry-after"] == "900"
        traveller.move_to(start + timedelta(minutes=15, seconds=1))
        await sign_in.with_password(database, email, build.PASSWORD)
        for _ in range(9):
            with pytest.raises(NotAuthenticated):
                await sign_in.with_password(database, email, OTHER_PASSWORD)
        await sign_in.with_password(database, email, build.PASSWORD)


async def test_attempts_at_once_are_counted_too(database: Database) -> None:
    """Thirty simultaneous guesses are ten guesses: each is counted before it is made."""
    email = await somebody(database)
    await connected(database)
    tries = await asyncio.gather(
        *(sign_in.with_password(database, email, f"{OTHER_PASSWORD} {n}") for n in range(30)), return_exceptions=True
    )
    kinds = [type(result).__name__ for result in tries]
    assert (kinds.count("NotAuthenticated"), kinds.count("TooManyAttempts")) == (10, 20)


async def test_an_unknown_address_has_the_same_limit(database: Database) -> None:
    """That an account is limited does not tell that it exists."""
    for _ in range(10):
        with pytest.raises(NotAuthenticated):
            await sign_in.with_password(database, "nobody@example.com", OTHER_PASSWORD)
    with pytest.raises(TooManyAttempts):
        await sign_in.with_password(database, "nobody@example.com", OTHER_PASSWORD)


async def test_a_hundred_in_a_row_take_a_new_link(database: Database) -> None:
    """Slow guessing ends as well: until a link is used, the right password does not help either."""
    email = await somebody(database)
    async with database.transaction() as tx:
        long_ago = clock.now() - timedelta(days=90)
        await tx.execute(tables.sign_in_attempts.insert(), [{"email": email, "at": long_ago}] * 100)
        link = await sign_in.make_link(tx, email, "reset")
    with pytest.raises(TooManyAttempts, match="link"):
        await sign_in.with_password(database, email, build.PASSWORD)
    await sign_in.redeem_link(database, link, OTHER_PASSWORD)
    await sign_in.with_password(database, email, OTHER_PASSWORD)


async def test_whoever_is_signed_in_is_never_shut_out(database: Database) -> None:
    """Guessing by strangers touches neither an open session nor the change of the password in it."""
    email = await somebody(database)
    session = await sign_in.with_password(database, email, build.PASSWORD)
    for _ in range(11):
        with pytest.raises((NotAuthenticated, TooManyAttempts)):
            await sign_in.with_password(database, email, OTHER_PASSWORD)
    signed_in = await resolved(database, session)
    await sign_in.change_password(database, signed_in, build.PASSWORD, OTHER_PASSWORD)
    await sign_in.with_password(database, email, OTHER_PASSWORD)


async def test_guessing_the_password_in_a_stolen_session_is_limited(database: Database) -> None:
    """Ten wrong ones, and the session has to wait; another session of the person does not."""
    email = await somebody(database)
    stolen, own = [await resolved(database, await sign_in.with_password(database, email, build.PASSWORD)) for _ in "ab"]
    for _ in range(10):
        with pytest.raises(InvalidRequest):
            await sign_in.confirm_password(database, stolen, OTHER_PASSWORD)
    with pytest.raises(TooManyAttempts):
        await sign_in.confirm_password(database, stolen, build.PASSWORD)
    await sign_in.confirm_password(database, own, build.PASSWORD)


async def test_giving_the_password_again_makes_a_session_recent(database: Database) -> None:
    """Ten minutes after it was given it is asked for again."""
    email = await somebody(database)
    session = await sign_in.with_password(database, email, build.PASSWORD)
    assert (await resolved(database, session)).is_recent
    with time_machine.travel(clock.now() + timedelta(minutes=11)):
        signed_in = await resolved(database, session)
        assert not signed_in.is_recent
        await sign_in.confirm_password(database, signed_in, build.PASSWORD)
        assert (await resolved(database, session)).is_recent


async def test_a_session_ends_when_idle_and_in_any_case(database: Database) -> None:
    """Twelve hours without a request, or thirty days with them."""
    made = await build.organization(database)
    start = clock.now()
    idle, busy = [await build.session(database, made.owner) for _ in range(2)]
    with time_machine.travel(start) as traveller:
        for hours in range(11, 30 * 24, 11):
            traveller.move_to(start + timedelta(hours=hours))
            assert await sessions.resolve(database, busy) is not None, hours
        assert await sessions.resolve(database, idle) is None
        traveller.move_to(start + timedelta(days=30, seconds=1))
        assert await sessions.resolve(database, busy) is None
        assert await sessions.delete_expired(database) == 2


async def test_only_the_hash_of_a_session_is_kept(database: Database) -> None:
    """Whoever reads the table cannot sign in with what they read."""
    made = await build.organization(database)
    token = await build.session(database, made.owner)
    async with database.read() as tx:
        [kept] = await tx.scalars(select(tables.sessions.c.token_hash))
    assert kept == token_hash(token) != token
    assert await sessions.resolve(database, kept) is None
    assert await sessions.resolve(database, "") is None


async def test_signing_out_and_ending_sessions(database: Database) -> None:
    """One's own sessions can be listed and ended; somebody else's are not found; each end is recorded."""
    made, other = await build.organization(database), await build.organization(database)
    tokens = [await build.session(database, made.owner) for _ in range(4)]
    foreign = await resolved(database, await build.session(database, other.owner))
    here = await resolved(database, tokens[0])
    listed = await sessions.list_for(database, made.owner.id)
    assert len(listed) == 4
    with pytest.raises(NotFound):
        await sessions.revoke_one(database, here, foreign.session_id)
    assert await sessions.resolve(database, tokens[1]) is not None
    await sessions.revoke_one(database, here, (await resolved(database, tokens[1])).session_id)
    await sessions.revoke(database, tokens[2])
    await sessions.revoke(database, tokens[2])
    await sessions.revoke_all(database, made.owner.id, except_session_id=here.session_id)
    assert [await sessions.resolve(database, token) is not None for token in tokens] == [True, False, False, False]
    entries = await audit.entries(database, made.organization.id, action="session.revoke")
    assert [entry.detail["sessions"] for entry in entries] == [1, 1, 1]


async def test_switching_to_a_place_of_ones_own(database: Database) -> None:
    """A session is in one workspace at a time; those of others do not exist for it."""
    here, there, foreign = [await build.organization(database) for _ in range(3)]
    person = await build.member(database, here, Role.ADMIN)
    operator = await build.actor(database, there, None)
    plan = DEFAULT_CATALOGUE["enterprise"]
    await memberships.add(database, operator, person.email, Role.USER, there.workspace.id, plan)
    token = await build.session(database, person)
    signed_in = await resolved(database, token)
    assert (signed_in.organization, signed_in.actor.role) == (here.organization, Role.ADMIN)
    await sessions.switch_workspace(database, signed_in, there.workspace.id)
    signed_in = await resolved(database, token)
    assert (signed_in.organization, signed_in.actor.role) == (there.organization, Role.USER)
    assert [place.workspace for place in signed_in.places] == [here.workspace, there.workspace]
    with pytest.raises(NotFound):
        await sessions.switch_workspace(database, signed_in, foreign.workspace.id)


async def test_signing_in_is_recorded_allowed_or_not(database: Database) -> None:
    """Who, when and how stands in the log of their organization; nobody's password does."""
    email = await somebody(database)
    person = await users.by_email(database, email)
    assert person is not None
    with pytest.raises(NotAuthenticated):
        await sign_in.with_password(database, email, OTHER_PASSWORD)
    signed_in = await resolved(database, await sign_in.with_password(database, email, build.PASSWORD, ip="192.0.2.7"))
    entries = await audit.entries(database, signed_in.organization.id, action="session.sign_in")
    assert [(e.actor_id, e.allowed, e.detail) for e in entries] == [
        (person.id, True, {"by": "password", "ip": "192.0.2.7"}),
        (person.id, False, {}),
        (person.id, True, {"by": "link", "ip": ""}),
    ]


async def test_a_disabled_person_is_out(database: Database) -> None:
    """Neither password nor link lets somebody in who was disabled."""
    email = await somebody(database)
    async with database.transaction() as tx:
        link = await sign_in.make_link(tx, email)
        await tx.execute(tables.users.update().values(disabled_at=clock.now()))
    with pytest.raises(NotAuthenticated):
        await sign_in.with_password(database, email, build.PASSWORD)
    with pytest.raises(Expired):
        await sign_in.redeem_link(database, link, OTHER_PASSWORD)


async def test_an_outdated_hash_is_renewed_at_sign_in(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the parameters are raised, each account follows at its next sign-in."""
    email = await somebody(database)
    monkeypatch.setattr(passwords, "hasher", PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    await sign_in.with_password(database, email, build.PASSWORD)
    async with database.read() as tx:
        kept = await tx.scalar(select(tables.users.c.password_hash).where(tables.users.c.email == email))
    assert not passwords.is_outdated(str(kept))
    await sign_in.with_password(database, email, build.PASSWORD)


async def test_whoever_has_no_workspace_is_told_so(database: Database) -> None:
    """Somebody known but nowhere gets a sentence, not an empty page."""
    async with database.transaction() as tx:
        person = await users.find_or_create(tx, "alone@example.com")
    with pytest.raises(Forbidden, match="Ask an admin"):
        await sessions.resolve(database, await build.session(database, person))


async def test_nobody_is_turned_away_because_a_visit_cannot_be_noted(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """When somebody was last seen is for show; without it the request goes on, and the log says so."""
    made = await build.organization(database)
    session = await build.session(database, made.owner)
    async with database.transaction() as tx:
        await tx.execute(tables.sessions.update().values(last_seen_at=clock.now() - timedelta(hours=1)))
        await tx.execute(text(f"CREATE {broken_update(database.dialect)}"))
    assert await sessions.resolve(database, session) is not None
    assert "session_not_noted" in "".join(capsys.readouterr())


def broken_update(dialect: str) -> str:
    """What makes every update of a session fail in the database."""
    if dialect == "sqlite":
        return "TRIGGER broken BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'broken'); END"
    return "RULE broken AS ON UPDATE TO sessions DO INSTEAD SELECT 1 / (random() * 0)::int"
