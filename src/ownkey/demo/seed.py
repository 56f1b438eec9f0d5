"""The demo's organization: Acme on Free, one person per role, and an API token."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ownkey.access import Actor, Role
from ownkey.accounts import api_tokens, memberships, organizations, sessions, sign_in, subscriptions
from ownkey.db.engine import Database
from ownkey.errors import InvalidRequest, NotAuthenticated
from ownkey.plans import DEFAULT_CATALOGUE, Catalogue

ORGANIZATION = "Acme"
# Enough for a dozen answers, little enough to be spent in a minute or two.
MONTHLY_TOKENS = 20_000
CATALOGUE: Catalogue = {
    **DEFAULT_CATALOGUE,
    "free": DEFAULT_CATALOGUE["free"].model_copy(
        update={"monthly_tokens": MONTHLY_TOKENS, "included_members": 5, "api_access": True}
    ),
}
_WORDS = (
    *("amber", "anchor", "barley", "beacon", "bramble", "candle", "canoe", "cedar", "cobalt", "copper", "coral"),
    *("falcon", "garnet", "ginger", "harbor", "hazel", "indigo", "juniper", "kettle", "lantern", "linen", "maple"),
    *("marble", "meadow", "nutmeg", "ocean", "orchid", "pebble", "pepper", "quartz", "raven", "saffron", "silver"),
    *("spruce", "thistle", "timber", "tulip", "velvet", "violet", "walnut", "willow", "winter", "yarrow", "zephyr"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in to the demo."""

    role: Role
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the demo prints of its organization."""

    people: Sequence[Person]
    api_token: str


async def seed(db: Database, catalogue: Catalogue) -> Seeded:
    """Fill an empty database, through the same functions as everyone: nothing in it is made up."""
    owner, *others = [Person(role, f"{role.word}@acme.test", _password()) for role in sorted(Role, reverse=True)]
    made = await organizations.create(db, Actor.operator(), catalogue, ORGANIZATION, owner.email)
    operator = Actor.operator(made.organization.id, made.workspace.id)
    plan = await subscriptions.plan_of(db, operator, catalogue)
    token = ""
    await _choose_password(db, owner, made.sign_in_token)
    for person in others:
        added = await memberships.add(db, operator, person.email, person.role, made.workspace.id, plan)
        actor = await _choose_password(db, person, added.sign_in_token)
        if person.role is Role.DEVELOPER:
            _, token = await api_tokens.create(db, actor, "Demo", ["gateway", "usage.read"])
    return Seeded([owner, *others], token)


async def _choose_password(db: Database, person: Person, link: str | None) -> Actor:
    """Do what the person would do with the link they were given."""
    if link is None:
        raise InvalidRequest(f"{person.email} has a password already.")
    session = await sign_in.redeem_link(db, link, person.password, name=f"{person.role.label} of {ORGANIZATION}")
    signed_in = await sessions.resolve(db, session)
    await sessions.revoke(db, session)
    if signed_in is None:
        raise NotAuthenticated
    return signed_in.actor


def _password() -> str:
    """Random, and easy to type: three words and a number, about 25 bits. For a demo on one's own machine only."""
    return "-".join([secrets.choice(_WORDS) for _ in range(3)] + [str(secrets.randbelow(900) + 100)])
