"""Usage: the token counts of one call; and ``charge()``: what they cost the allowance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

BilledTo = Literal["allowance", "own_key"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call, on one footing whatever the provider's own style of counting.

    ``input_tokens`` is the whole input, the cached and cache-write tokens beside it included;
    ``output_tokens`` the whole output, ``reasoning_tokens`` included. ``estimated`` means the provider
    gave no figure (or broke off) and we counted what passed.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


NOTHING_USED = Usage()


def charge(usage: Usage, billed_to: BilledTo, weights: Mapping[str, float] | None = None) -> int:
    """Tokens that a call takes from the allowance; zero when the organization's own key served it.

    One token is one token whatever the model: input plus output. A plan may weigh kinds
    (``input``, ``cached_input``, ``cache_write``, ``output``), default 1; the sum is rounded up.
    """
    if billed_to == "own_key":
        return 0
    if not weights:
        return usage.input_tokens + usage.output_tokens
    plain_input = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    thousandths = (
        plain_input * round(1000 * weights.get("input", 1))
        + usage.cached_input_tokens * round(1000 * weights.get("cached_input", 1))
        + usage.cache_write_tokens * round(1000 * weights.get("cache_write", 1))
        + usage.output_tokens * round(1000 * weights.get("output", 1))
    )
    return -(-thousandths // 1000)
