"""What tokens count against the allowance: one each, unless a plan weighs kinds of them, or models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

Kind = Literal["input", "cached_input", "cache_write", "output"]
Weight = Annotated[float, Field(ge=0, le=1000)]
PlanWeights = Mapping[str, Weight | Mapping[str, Weight]]
"""A plan's ``weights`` table: a kind and its weight, or a model (``*`` stands for anything) and its kinds'."""

KINDS: tuple[Kind, ...] = ("input", "cached_input", "cache_write", "output")
_MOST_REMEMBERED = 1_000


class TokenWeights(NamedTuple):
    """How many tokens of the allowance a thousand of each kind count."""

    input: int = 1000
    cached_input: int = 1000
    cache_write: int = 1000
    output: int = 1000

    @property
    def most_input(self) -> int:
        """What input can count at most, whatever of it turns out to be cached."""
        return max(self.input, self.cached_input, self.cache_write)


def rounded_up(thousandths: int) -> int:
    """Whole tokens: what a call counts is never less than it should be."""
    return -(-thousandths // 1000)


class WeightsByModel:
    """A plan's weights, looked up by a model's name as the caller wrote it."""

    def __init__(self, table: PlanWeights) -> None:
        self._general = {kind: weight for kind, weight in table.items() if not isinstance(weight, Mapping)}
        of_models = [(name, weights) for name, weights in table.items() if isinstance(weights, Mapping)]
        # A name without a star is before every pattern, a longer one before a shorter one.
        self._models = sorted(of_models, key=lambda one: ("*" in one[0], -len(one[0])))
        self._found: dict[str, TokenWeights | None] = {}

    def of(self, model: str) -> TokenWeights | None:
        """What this model's tokens count; None: each is one. What its own table leaves out is as for every model."""
        if model not in self._found:
            if len(self._found) >= _MOST_REMEMBERED:  # callers choose the names
                self._found.clear()
            self._found[model] = self._look_up(model)
        return self._found[model]

    def _look_up(self, model: str) -> TokenWeights | None:
        own: Mapping[str, float] = next((w for name, w in self._models if _pattern(name).fullmatch(model)), {})
        weights = {**self._general, **own}
        found = TokenWeights(*[round(1000 * weights.get(kind, 1)) for kind in KINDS])
        return None if found == TokenWeights() else found


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
