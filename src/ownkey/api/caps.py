"""Caps: the most tokens of a month that a member or a workspace may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ownkey.accounts import caps
from ownkey.accounts.caps import MOST_TOKENS, Scope
from ownkey.api.authentication import Caller, Here
from ownkey.api.shapes import Given, Page, Shown

Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class Cap(Shown):
    """A cap and what was used under it this month, in tokens; null: no cap of that kind."""

    scope: str
    subject_id: str
    allowance_tokens: int | None
    own_key_tokens: int | None
    allowance_used: int
    own_key_used: int


class NewCap(Given):
    """The most tokens a month; null: as many as there are. Both null: no cap."""

    allowance_tokens: Tokens | None
    own_key_tokens: Tokens | None


async def list_caps(node: Here, actor: Caller) -> Page[Cap]:
    """List the organization's caps, with what was used under each this month."""
    return Page(items=[Cap.model_validate(cap) for cap in await caps.list_caps(node.db, actor)])


async def save(node: Here, actor: Caller, scope: Scope, subject_id: str, given: NewCap) -> None:
    """Cap what a member or the token's workspace may use in a month; it counts from the next call."""
    await caps.set_cap(node.db, actor, scope, subject_id, given.allowance_tokens, given.own_key_tokens)


async def remove(node: Here, actor: Caller, scope: Scope, subject_id: str) -> None:
    """Lift a cap, at once."""
    await caps.set_cap(node.db, actor, scope, subject_id, None, None)
