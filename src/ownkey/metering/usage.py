"""Usage: the token counts of one call; and ``charge()``: what they cost the allowance."""

from __future__ import annotations

from typing import Literal

import msgspec

from ownkey.token_weights import TokenWeights, rounded_up

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

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )


NOTHING_USED = Usage()


def charge(usage: Usage, billed_to: BilledTo, weights: TokenWeights | None = None) -> int:
    """Tokens that a call takes from the allowance; zero when the organization's own key served it.

    One token is one token whatever the model: input plus output. A plan may weigh kinds and models; the sum is
    rounded up. Of the cached and cache-write tokens as many count as there is input: Cohere reports those of all that
    the model read, and bills less input than that.
    """
    if billed_to == "own_key":
        return 0
    if weights is None:
        return usage.input_tokens + usage.output_tokens
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    return rounded_up(
        (usage.input_tokens - cached - written) * weights.input
        + cached * weights.cached_input
        + written * weights.cache_write
        + usage.output_tokens * weights.output
    )
