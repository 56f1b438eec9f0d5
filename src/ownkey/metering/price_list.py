"""What providers charge, from the list in the library ``genai-prices``; a program of its own.

The list is more than 20 MB in memory and asked seldom, so no worker loads it: it starts this program, which answers and
ends. It reaches no other machine: the library fetches a newer list only if its updater is started, which nobody does.

On standard input: a JSON list of ``[provider, model]``. On standard output one JSON object: for each of them that a
list exists for, in order, ``[provider, model, rates]``. No rates: the list does not know the model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from genai_prices import Usage, calc_price
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices, TimeOfDateConstraint

# Our providers by the names that the list has for them. Those it does not have, and servers of customers, have none.
LISTED_AS: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "vertex": "google",
    "azure": "azure",
    "bedrock": "aws",
    "mistral": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "xai": "x-ai",
    "openrouter": "openrouter",
    "together": "together",
    "fireworks": "fireworks",
    "perplexity": "perplexity",
    "cerebras": "cerebras",
    "moonshot": "moonshotai",
    "cohere": "cohere",
    "zai": "zai",
}
# A price of these makes no difference to the tokens of a text, or is for what an event does not tell apart.
_BESIDE = {
    "web_searches_kcount",
    "storage_searches_kcount",
    "cache_write_1h_mtok",
    "input_audio_mtok",
    "input_image_mtok",
    "input_video_mtok",
    "cache_audio_read_mtok",
    "cache_image_read_mtok",
    "cache_video_read_mtok",
}
_OF_TOKENS = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok")
# Models that mostly read or make sound or pictures, whose tokens cost more than those of text.
_NOT_TEXT = ("audio", "image", "-live", "realtime", "sonic", "speech", "transcribe", "tts", "video", "voice")
_MINUTES = 24 * 60


class Rate(NamedTuple):
    """Prices for calls in some minutes of the day (UTC) with so many input tokens; each range without its end.

    Prices are in millionths of a dollar per million tokens.
    """

    minute_from: int
    minute_until: int
    input_from: int
    input_until: int | None
    input_price: int
    cached_input_price: int
    cache_write_price: int
    output_price: int


def rates(provider: str, model: str, at: datetime) -> Sequence[Rate]:
    """What a model costs on a day: a rate for every time and size of input. Empty if the list does not say.

    Raises ``KeyError`` for a provider that has no list. A model whose price depends on more than numbers of tokens,
    such as seconds, pages or what the tokens stand for, has none here: we could only guess.
    """
    listed = LISTED_AS[provider]
    model = model.removeprefix("models/")
    if any(word in model.lower() for word in _NOT_TEXT):
        return []
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    found: list[Rate] = []
    try:
        edges = _minutes(calc_price(Usage(), model, provider_id=listed, genai_request_timestamp=midnight).model)
        for start, end in pairwise(edges):
            moment = midnight + timedelta(minutes=start)
            price = calc_price(Usage(), model, provider_id=listed, genai_request_timestamp=moment).model_price
            found += _sizes(start, end, price)
    except (LookupError, _NotInTokens):
        return []
    return found


class _NotInTokens(Exception):
    """The price of a model does not follow from the numbers that we have."""


def _minutes(model: ModelInfo) -> Sequence[int]:
    """The minutes of the day at which a model's price may change, with both ends of the day."""
    prices = model.prices if isinstance(model.prices, list) else []
    edges = {0, _MINUTES}
    for each in prices:
        if isinstance(each.constraint, TimeOfDateConstraint):
            for time in (each.constraint.start_time, each.constraint.end_time):
                offset = time.utcoffset() or timedelta()
                edges.add((time.hour * 60 + time.minute - int(offset.total_seconds()) // 60) % _MINUTES)
    return sorted(edges)


def _sizes(start: int, end: int, price: ModelPrice) -> Iterable[Rate]:
    given = {name for name, value in vars(price).items() if value is not None}
    if "input_mtok" not in given or given - _BESIDE - set(_OF_TOKENS):
        raise _NotInTokens
    values = [getattr(price, name) for name in _OF_TOKENS]
    starts = {tier.start + 1 for value in values if isinstance(value, TieredPrices) for tier in value.tiers}
    edges: list[int | None] = [0, *sorted(starts), None]
    for least, end_of_size in pairwise(edges):
        assert least is not None
        plain, cached, written, output = (_at(value, least) for value in values)
        # What has no price of its own costs what input does; a model without a price for output makes none.
        rest = plain or 0
        yield Rate(
            start,
            end,
            least,
            end_of_size,
            rest,
            rest if cached is None else cached,
            rest if written is None else written,
            output or 0,
        )


def _at(price: Decimal | TieredPrices | None, input_tokens: int) -> int | None:
    """A price for an input of this size, as a whole number. Above the start of a tier all tokens cost what it says."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
        price = reached[-1] if reached else price.base
    return None if price is None else int((price * 1_000_000).to_integral_value())


def main() -> None:
    """Answer what stands on standard input."""
    now = datetime.now(UTC)
    asked = json.load(sys.stdin)
    answer = [(provider, model, rates(provider, model, now)) for provider, model in asked if provider in LISTED_AS]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
