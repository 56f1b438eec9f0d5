"""What every request and reply of the management API has in common."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from ownkey.accounts.names import LONGEST_NAME

Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
Email = Annotated[str, StringConstraints(min_length=3, max_length=254)]
RoleWord = Literal["user", "developer", "admin"]
Item = TypeVar("Item")
Period = Annotated[str | None, Query(description="A month (UTC), as `2026-11`; without it, this one.")]


class Given(BaseModel):
    """The body of a request. A member we do not know is refused: it would look as if it had been obeyed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shown(BaseModel):
    """A thing as replies show it."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Page(Shown, Generic[Item]):
    """A list. ``next`` is the value to ask on from, as the parameter of the route says; null at the end."""

    items: list[Item]
    next: int | None = None


class Problem(Shown):
    """An error, as RFC 9457 has it; ``code`` is the stable name a program should look at."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
