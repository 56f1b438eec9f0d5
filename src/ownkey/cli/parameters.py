"""Parameters that several commands take."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ownkey.clock import parse_period
from ownkey.db.engine import LARGEST_NUMBER
from ownkey.errors import InvalidRequest

Org = Annotated[str, Parameter(help="The organization's id or slug.")]
Workspace = Annotated[str | None, Parameter(help="The workspace's id or slug; without it, the first one.")]

# What the database can compare with.
FROM_ZERO, FROM_ONE = Number(gte=0, lte=LARGEST_NUMBER), Number(gte=1, lte=LARGEST_NUMBER)


def _is_month(kind: object, value: str | None) -> None:
    if value is not None:
        try:
            parse_period(value)
        except InvalidRequest as error:
            raise ValueError(error.message) from error


Month = Annotated[str | None, Parameter(validator=_is_month, help="A month (UTC), as `2026-11`.")]
