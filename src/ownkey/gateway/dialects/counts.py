"""Counts of tokens as providers write them, checked and completed."""

from __future__ import annotations

# More than any model can read or write: a count beyond it is a fault, and the reply is estimated instead.
MOST_TOKENS = 1_000_000_000


def count(value: object) -> int | None:
    """A reported number of tokens; None for what cannot be one (text, a negative or an absurd number)."""
    if value is None:
        return None
    if type(value) is int or type(value) is float:
        return int(value) if 0 <= value <= MOST_TOKENS else None
    return None


def reconciled(input_tokens: int | None, output_tokens: int | None, total: int | None) -> tuple[int | None, int | None]:
    """Input and output completed from a reported total.

    A total above the sum of its parts holds tokens that no part shows (hidden thinking at Gemini's and xAI's
    OpenAI-compatible endpoints): the difference is output.
    """
    if total is None:
        return input_tokens, output_tokens
    if input_tokens is None:
        return max(total - (output_tokens or 0), 0), output_tokens or 0
    if output_tokens is None or total > input_tokens + output_tokens:
        return input_tokens, max(total - input_tokens, 0)
    return input_tokens, output_tokens
