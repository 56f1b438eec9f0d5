"""API tokens of the token's own workspace. A person makes them, under Settings → Developer: no token makes another."""

from __future__ import annotations

from datetime import datetime

from ownkey.accounts import api_tokens
from ownkey.api.authentication import Caller, Here
from ownkey.api.organization import Naming
from ownkey.api.shapes import Page, Shown


class ApiToken(Shown):
    """A token as its list shows it; ``hint`` is its beginning."""

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_by: str
    created_at: datetime
    last_used_at: datetime | None
    requests_this_month: int


async def list_tokens(node: Here, actor: Caller) -> Page[ApiToken]:
    """List the workspace's tokens, newest first."""
    found = await api_tokens.list_tokens(node.db, actor)
    return Page(items=[_shown(token) for token in found])


async def rename(node: Here, actor: Caller, token_id: str, given: Naming) -> None:
    """Rename a token."""
    await api_tokens.rename(node.db, actor, token_id, given.name)


async def revoke(node: Here, actor: Caller, token_id: str) -> None:
    """Revoke a token, at once and for good."""
    await api_tokens.revoke(node.db, actor, token_id)


def _shown(token: api_tokens.ApiToken) -> ApiToken:
    return ApiToken(
        id=token.id,
        name=token.name,
        hint=token.hint,
        scopes=sorted(token.scopes),
        created_by=token.created_by,
        created_at=token.created_at,
        last_used_at=token.last_used_at,
        requests_this_month=token.requests_this_month,
    )
