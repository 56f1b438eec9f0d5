"""API token: a credential we issue to a program, for one workspace, with scopes. We keep its hash.

A token made by a person can do no more than that person can at the moment of use: it rests while they are below
developer in its workspace, and has their role otherwise. One made by the operator acts as an admin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, func, insert, select, update

from ownkey import audit, clock, credentials
from ownkey.access import Action, Actor, Role
from ownkey.accounts.names import clean_name
from ownkey.accounts.places import require, role_of
from ownkey.changes import perform
from ownkey.credentials import new_api_token, token_hash
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import api_token_months, api_tokens, organizations, subscriptions, users, workspaces
from ownkey.errors import Forbidden, InvalidRequest, NotAuthenticated, NotFound
from ownkey.ids import new_id
from ownkey.plans import Catalogue, plan_or_nothing

SCOPES: Mapping[str, str] = {
    "gateway": "Call AI providers through the gateway.",
    "usage.read": "Read the allowance and the usage events.",
    "members.read": "List members and open invitations.",
    "members.manage": "Invite and remove members and change their roles.",
    "provider_keys.read": "List provider keys: their preview and health, never the key.",
    "provider_keys.manage": "Connect, replace and remove provider keys.",
    "audit.read": "Read the audit log.",
    "api_tokens.manage": "List, rename and revoke API tokens.",
    "organization.manage": "Rename the organization and workspaces, and add workspaces.",
    "billing.manage": "Read and change the plan.",
}
# Who may give a scope to a token: whoever may do by themselves what it allows.
_LOWEST_ROLE: Mapping[str, Role] = {
    "gateway": Role.DEVELOPER,
    "usage.read": Role.DEVELOPER,
    "members.read": Role.ADMIN,
    "members.manage": Role.ADMIN,
    "provider_keys.read": Role.DEVELOPER,
    "provider_keys.manage": Role.ADMIN,
    "audit.read": Role.ADMIN,
    "api_tokens.manage": Role.DEVELOPER,
    "organization.manage": Role.ADMIN,
    "billing.manage": Role.OWNER,
}
_OPERATORS_TOKEN = Role.ADMIN


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as its workspace sees it. ``created_by`` is a name to show; ``hint`` the token's first characters."""

    id: str
    organization_id: str
    workspace_id: str
    name: str
    hint: str
    scopes: frozenset[str]
    created_by: str
    created_at: datetime
    last_used_at: datetime | None
    requests_this_month: int
    revoked_at: datetime | None


def scopes_for(role: Role) -> Mapping[str, str]:
    """The scopes that somebody with this role may give, each with its sentence."""
    return {name: sentence for name, sentence in SCOPES.items() if role >= _LOWEST_ROLE[name]}


def require_scope(actor: Actor, scope: str) -> None:
    """Raise ``Forbidden`` for an API token that lacks a scope; people and the operator need none."""
    if actor.kind == "api_token" and scope not in actor.scopes:
        raise Forbidden(f"This API token lacks the scope {scope}. Create one that has it under Settings → Developer.")


async def create(db: Database, actor: Actor, name: str, scopes: Collection[str]) -> tuple[ApiToken, str]:
    """Make a token for the actor's active workspace. Returns it and its text, which is shown now and never again.

    Raises ``InvalidRequest`` without a name or scope and for an unknown scope, ``Forbidden`` for a scope that the
    actor's own role does not reach.
    """
    name = clean_name(name, "token name")
    await _require_grantable(db, actor, scopes)
    text, token_id = new_api_token(), new_id("tok")
    detail = {"name": name, "scopes": sorted(scopes), "workspace": actor.workspace_id}
    async with perform(db, actor, Action.API_TOKEN_CREATE, token_id, detail) as tx:
        await tx.execute(
            insert(api_tokens).values(
                id=token_id,
                organization_id=actor.organization_id,
                workspace_id=actor.workspace_id,
                name=name,
                hint=credentials.hint(text),
                token_hash=token_hash(text),
                scopes=" ".join(sorted(scopes)),
                created_by=actor.user_id,
                created_at=clock.now(),
            )
        )
        row = (await tx.execute(_query().where(api_tokens.c.id == token_id))).one()
    return _api_token_of(row), text


async def list_tokens(db: Database, actor: Actor) -> Sequence[ApiToken]:
    """The active workspace's tokens that are not revoked, newest first. Raises ``Forbidden`` below developer."""
    await require(db, actor, Action.API_TOKEN_READ, actor.workspace_id)
    query = _query().where(
        api_tokens.c.organization_id == actor.organization_id,
        api_tokens.c.workspace_id == actor.workspace_id,
        api_tokens.c.revoked_at.is_(None),
    )
    async with db.read() as tx:
        return [_api_token_of(row) for row in await tx.execute(query.order_by(api_tokens.c.id.desc()))]


async def rename(db: Database, actor: Actor, token_id: str, name: str) -> None:
    """Change a token's name. Raises ``NotFound`` for one that is revoked or in another workspace."""
    name = clean_name(name, "token name")
    async with perform(db, actor, Action.API_TOKEN_RENAME, token_id, {"name": name}) as tx:
        await _update(tx, actor, token_id, name=name)


async def revoke(db: Database, actor: Actor, token_id: str) -> None:
    """End a token: no request that starts after this uses it. Raises ``NotFound``.

    An operator who acts on the whole installation may name a token of any organization.
    """
    if actor.kind == "operator" and not actor.organization_id:
        actor = await _operator_at(db, actor, token_id)
    async with perform(db, actor, Action.API_TOKEN_REVOKE, token_id) as tx:
        await _update(tx, actor, token_id, revoked_at=clock.now())


async def actor_for(db: Database, token: str, catalogue: Catalogue) -> Actor:
    """Who a token acts as in the management API, as things stand now.

    Raises ``NotAuthenticated`` for an unknown, revoked or resting token, ``Forbidden`` when the organization's plan
    has no API access.
    """
    query = (
        select(api_tokens, subscriptions.c.plan)
        .join(organizations, organizations.c.id == api_tokens.c.organization_id)
        .join(workspaces, workspaces.c.id == api_tokens.c.workspace_id)
        .join(subscriptions, subscriptions.c.organization_id == api_tokens.c.organization_id)
        .where(
            api_tokens.c.token_hash == token_hash(token),
            api_tokens.c.revoked_at.is_(None),
            organizations.c.suspended_at.is_(None),
            workspaces.c.archived_at.is_(None),
        )
    )
    async with db.read() as tx:
        row = (await tx.execute(query)).one_or_none()
        if row is None:
            raise NotAuthenticated
        role: Role | None = _OPERATORS_TOKEN
        if row.created_by is not None:
            role = await role_of(tx, row.created_by, row.organization_id, row.workspace_id)
    if role is None or role < Role.DEVELOPER:
        raise NotAuthenticated("Whoever made this API token may not use one any more. Ask an admin for a new one.")
    if not plan_or_nothing(catalogue, row.plan).api_access:
        raise Forbidden("Your plan does not include API access. The owner can change it under Settings → Billing.")
    return Actor(
        kind="api_token",
        id=row.id,
        label=row.name,
        organization_id=row.organization_id,
        workspace_id=row.workspace_id,
        role=role,
        user_id=row.created_by,
        scopes=frozenset(row.scopes.split()),
    )


async def _require_grantable(db: Database, actor: Actor, scopes: Collection[str]) -> None:
    if not scopes:
        raise InvalidRequest("Choose at least one scope.")
    for scope in scopes:
        if scope not in SCOPES:
            raise InvalidRequest(f"There is no scope {scope!r}. Choose among: {', '.join(SCOPES)}.")
    await require(db, actor, Action.API_TOKEN_CREATE, actor.workspace_id)
    role = _OPERATORS_TOKEN if actor.kind == "operator" else actor.role
    beyond = [scope for scope in scopes if role is None or role < _LOWEST_ROLE[scope]]
    if beyond or actor.kind == "api_token":
        await audit.record_refusal(db, actor, Action.API_TOKEN_CREATE, actor.workspace_id)
        if actor.kind == "operator":
            what = f"A token made by the operator acts as an admin, which is too little for {', '.join(beyond)}"
            raise Forbidden(f"{what}: let the owner make it.")
        raise Forbidden("A token cannot have more rights than whoever makes it, and is made by a person.")


async def _operator_at(db: Database, actor: Actor, token_id: str) -> Actor:
    place = select(api_tokens.c.organization_id, api_tokens.c.workspace_id).where(api_tokens.c.id == token_id)
    async with db.read() as tx:
        row = (await tx.execute(place)).one_or_none()
    if row is None:
        raise NotFound
    return replace(actor, organization_id=row.organization_id, workspace_id=row.workspace_id)


async def _update(tx: Transaction, actor: Actor, token_id: str, **values: Any) -> None:
    here: ColumnElement[bool] = and_(
        api_tokens.c.id == token_id,
        api_tokens.c.organization_id == actor.organization_id,
        api_tokens.c.revoked_at.is_(None),
    )
    if actor.workspace_id or actor.kind != "operator":
        here = and_(here, api_tokens.c.workspace_id == actor.workspace_id)
    changed = await tx.execute(update(api_tokens).where(here).values(**values))
    if changed.rowcount != 1:
        raise NotFound


def _query() -> Select[Any]:
    month = clock.period_of(clock.now())
    last_used = (
        select(func.max(api_token_months.c.last_used_at))
        .where(api_token_months.c.api_token_id == api_tokens.c.id)
        .correlate(api_tokens)
        .scalar_subquery()
    )
    this_month = (api_token_months.c.api_token_id == api_tokens.c.id) & (api_token_months.c.period == month)
    return (
        select(
            api_tokens,
            users.c.name.label("creator_name"),
            users.c.email.label("creator_email"),
            last_used.label("last_used_at"),
            func.coalesce(api_token_months.c.requests, 0).label("requests"),
        )
        .outerjoin(users, users.c.id == api_tokens.c.created_by)
        .outerjoin(api_token_months, this_month)
    )


def _api_token_of(row: Row[Any]) -> ApiToken:
    return ApiToken(
        id=row.id,
        organization_id=row.organization_id,
        workspace_id=row.workspace_id,
        name=row.name,
        hint=row.hint,
        scopes=frozenset(row.scopes.split()),
        created_by=row.creator_name or row.creator_email or "Operator",
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        requests_this_month=row.requests,
        revoked_at=row.revoked_at,
    )
