"""The plan catalogue: what each plan is called, costs and includes; the operator's file, or the default."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ownkey.errors import InvalidRequest
from ownkey.token_weights import KINDS, PlanWeights, TokenWeights, WeightsByModel

Count = Annotated[int, Field(ge=0, le=10**15)]


class Plan(BaseModel):
    """A plan and its entitlements. ``None`` means unlimited; prices are in hundredths of the currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = ""
    name: str
    monthly_tokens: Count
    workspaces: Count | None = None
    included_members: Count | None = None
    api_access: bool = False
    monthly_requests_per_token: Count | None = None
    month_price_cents: Count = 0
    year_price_cents: Count = 0
    seat_price_cents: Count = 0
    currency: str = "USD"
    weights: PlanWeights = Field(default_factory=dict)

    @field_validator("weights")
    @classmethod
    def _kinds_only(cls, table: PlanWeights) -> PlanWeights:
        for name, weight in table.items():
            if name in KINDS and isinstance(weight, Mapping):
                raise ValueError(f"{name!r} is a kind of token and takes a number")
            for kind in weight if isinstance(weight, Mapping) else (name,):
                if kind not in KINDS:
                    raise ValueError(f"{kind!r} is no kind of token; those are {', '.join(KINDS)}")
        return table

    @cached_property
    def _by_model(self) -> WeightsByModel:
        return WeightsByModel(self.weights)

    def weights_for(self, model: str) -> TokenWeights | None:
        """What tokens of this model count on this plan; None: each is one."""
        return self._by_model.of(model) if self.weights else None


Catalogue = Mapping[str, Plan]

DEFAULT_CATALOGUE: Catalogue = {
    plan.code: plan
    for plan in (
        Plan(code="free", name="Free", monthly_tokens=100_000, workspaces=1, included_members=1),
        Plan(
            code="starter",
            name="Starter",
            monthly_tokens=2_000_000,
            workspaces=3,
            included_members=5,
            api_access=True,
            monthly_requests_per_token=100_000,
            month_price_cents=2_900,
            year_price_cents=29_000,
            seat_price_cents=500,
        ),
        Plan(
            code="professional",
            name="Professional",
            monthly_tokens=20_000_000,
            workspaces=20,
            included_members=25,
            api_access=True,
            monthly_requests_per_token=1_000_000,
            month_price_cents=14_900,
            year_price_cents=149_000,
            seat_price_cents=500,
        ),
        Plan(
            code="enterprise",
            name="Enterprise",
            monthly_tokens=200_000_000,
            included_members=100,
            api_access=True,
            month_price_cents=99_900,
            year_price_cents=999_000,
            seat_price_cents=400,
        ),
    )
}


def read_catalogue(file: Path | None) -> Catalogue:
    """The plans in the operator's TOML file (``[plans.<code>]`` tables, cheapest first), or the default.

    Raises ``InvalidRequest`` naming the plan and field that is wrong.
    """
    if file is None:
        return DEFAULT_CATALOGUE
    try:
        tables = tomllib.loads(file.read_text())["plans"]
        return {code: Plan(**{**table, "code": code}) for code, table in tables.items()}
    except OSError as error:
        raise InvalidRequest(f"The plans file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InvalidRequest(f"The plans file {file} needs a [plans.<code>] table for each plan: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"The plans file {file} is wrong at {field}: {first['msg']}.") from error


def plan_of(catalogue: Catalogue, code: str) -> Plan:
    """The plan with this code. Raises ``InvalidRequest`` listing the ones there are."""
    plan = catalogue.get(code)
    if plan is None:
        raise InvalidRequest(f"There is no plan {code!r}. Choose one of: {', '.join(catalogue)}.")
    return plan
