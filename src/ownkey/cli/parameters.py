"""Parameters that several commands take."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ownkey.clock import parse_begun_period
from ownkey.errors import InvalidRequest

Org = Annotated[str, Parameter(help="The organization's id or slug.")]
Workspace = Annotated[str | None, Parameter(help="The workspace's id or slug; without it, the first one.")]


def _is_month(kind: object, value: str | None) -> None:
    if value is not None:
        try:
            parse_begun_period(value)
        except InvalidRequest as error:
            raise ValueError(error.message) from error


Month = Annotated[str | None, Parameter(validator=_is_month, help="A month (UTC), as `2026-11`.")]
