"""What a provider has said so far about the tokens of one call."""

from __future__ import annotations

import msgspec

from ownkey.metering.usage import NOTHING_USED, Usage


class Reported(msgspec.Struct, frozen=True):
    """Token counts as a provider reported them, on one footing; None: nothing said about it.

    ``cache_outside`` says that cached and cache-write tokens are not part of ``input_tokens`` (Anthropic).
    ``final`` says that the provider will not report a higher figure: the reply was complete at that point;
    ``provisional`` that the output is only what it began with, whatever comes after (Anthropic's first event).
    ``beside`` is what the provider did within the call and bills, but leaves out of the other figures.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_outside: bool = False
    final: bool = False
    provisional: bool = False
    beside: Usage = NOTHING_USED

    def whole_input(self) -> int | None:
        """All input tokens, cached ones included; None if the provider said nothing."""
        if self.input_tokens is None or not self.cache_outside:
            return self.input_tokens
        return self.input_tokens + (self.cached_input_tokens or 0) + (self.cache_write_tokens or 0)

    def usage(self) -> Usage:
        """The usage as reported; what was not reported is zero."""
        return self.beside.plus(
            Usage(
                self.whole_input() or 0,
                self.output_tokens or 0,
                self.cached_input_tokens or 0,
                self.cache_write_tokens or 0,
                self.reasoning_tokens or 0,
            )
        )

    def updated_by(self, later: Reported) -> Reported:
        """Both reports merged by field: what the later one says wins, what it leaves out stays."""
        return Reported(
            self.input_tokens if later.input_tokens is None else later.input_tokens,
            self.output_tokens if later.output_tokens is None else later.output_tokens,
            self.cached_input_tokens if later.cached_input_tokens is None else later.cached_input_tokens,
            self.cache_write_tokens if later.cache_write_tokens is None else later.cache_write_tokens,
            self.reasoning_tokens if later.reasoning_tokens is None else later.reasoning_tokens,
            later.cache_outside,
            later.final,
            later.provisional,
            later.beside if later.beside.total_tokens else self.beside,
        )
