"""The price list: our whole numbers give what the library's own calculation gives, and nothing is guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.types import TieredPrices

from ownkey.metering.price_list import LISTED_AS, Rate
from ownkey.metering.price_list import rates as read_rates
from ownkey.providers.registry import PROVIDERS

rates = cache(read_rates)
NOON = datetime(2026, 11, 15, 12, 0, tzinfo=UTC)
# Input, cached, written, output.
CALLS = [(1000, 0, 0, 100), (10, 4, 3, 7), (200_000, 50_000, 0, 5), (200_001, 1, 1, 1), (900_000, 0, 900_000, 64_000)]


def models() -> Iterator[tuple[str, str]]:
    """Every model of every list, by our provider's name."""
    for provider in providers:
        ours = next((slug for slug, listed in LISTED_AS.items() if listed == provider.id), None)
        if ours is not None:
            yield from ((ours, model.id) for model in provider.models)


def cost(found: Rate, input_tokens: int, cached: int, written: int, output: int) -> Decimal:
    """Dollars, as the database computes them."""
    plain = input_tokens - cached - written
    total = (
        plain * found.input_price
        + cached * found.cached_input_price
        + written * found.cache_write_price
        + output * found.output_price
    )
    return Decimal(total) / 10**12


@pytest.mark.parametrize("hour", [2, 12])
def test_as_the_library_calculates(hour: int) -> None:
    """For every listed model of text, size of input and time of day the cost is the library's, to a millionth."""
    compared = 0
    at = NOON.replace(hour=hour)
    for provider, model in models():
        for tokens in CALLS:
            matching = [
                rate
                for rate in rates(provider, model, NOON)
                if rate.minute_from <= hour * 60 < rate.minute_until
                and rate.input_from <= tokens[0]
                and (rate.input_until is None or tokens[0] < rate.input_until)
            ]
            if not matching:
                continue
            [rate] = matching
            usage = {
                "input_tokens": tokens[0],
                "cache_read_tokens": tokens[1],
                "cache_write_tokens": tokens[2],
                "output_tokens": tokens[3],
            }
            listed = calc_price(Usage(**usage), model, provider_id=LISTED_AS[provider], genai_request_timestamp=at)
            compared += 1
            priced_output = listed.model_price.output_mtok is not None
            expected = listed.total_price if priced_output else listed.input_price
            assert abs(cost(rate, *tokens) - expected) < Decimal("0.000002"), (provider, model, tokens, rate)
    assert compared > 5_000


def test_rates_cover_every_call_once() -> None:
    """The rates of a model leave no minute and no size of input out, and none has two."""
    tiers = 0
    for provider, model in models():
        found = sorted(rates(provider, model, NOON))
        if not found:
            continue
        assert {rate.minute_from for rate in found} | {1440} == {rate.minute_until for rate in found} | {0}
        for start in {rate.minute_from for rate in found}:
            sizes = [(rate.input_from, rate.input_until) for rate in found if rate.minute_from == start]
            assert sizes[0][0] == 0
            assert sizes[-1][1] is None
            assert all(before[1] == after[0] for before, after in pairwise(sizes))
            tiers += len(sizes) - 1
    assert tiers > 50


def test_a_known_model() -> None:
    """A tier counts for the whole call; what has no price of its own costs what input does."""
    short, long = rates("gemini", "models/gemini-2.5-pro", NOON)
    assert (short.input_until, long.input_from) == (200_001, 200_001)
    assert (short.input_price, long.input_price) == (1_250_000, 2_500_000)
    assert short.cache_write_price == short.input_price
    [embedding] = rates("openai", "text-embedding-3-small", NOON)
    assert (embedding.input_price, embedding.output_price) == (20_000, 0)


@pytest.mark.parametrize("model", ["gpt-image-1", "whisper-1", "tts-1", "gpt-4o-audio-preview", "no-such-model", ""])
def test_what_tokens_do_not_tell_has_no_rate(model: str) -> None:
    """Seconds, pages, characters, pictures and sound: the price is unknown rather than guessed."""
    assert rates("openai", model, NOON) == []


def test_providers_are_ours_and_theirs() -> None:
    """Every name in the table is one of our providers, and one of the list's."""
    assert LISTED_AS.keys() <= PROVIDERS.keys()
    assert set(LISTED_AS.values()) <= {provider.id for provider in providers}


def test_prices_change_by_date_and_hour() -> None:
    """A price that begins on a date counts from that day on; one of certain hours, in them."""
    dated = [
        (provider, model) for provider, model in models() if rates(provider, model, NOON) != rates(
            provider, model, NOON - timedelta(days=600)
        )
    ]  # fmt: skip
    assert dated
    assert {rate.minute_from for rate in rates("deepseek", "deepseek-flash", NOON)} == {0, 60, 240, 360, 600}


def test_nothing_is_fetched() -> None:
    """The program opens no socket and asks for no address; what it does not know stays unknown."""
    program = (
        "import runpy, sys\n"
        "def forbid(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.gethostname':\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(forbid)\n"
        "runpy.run_module('ownkey.metering.price_list', run_name='__main__')\n"
    )
    asked = [["openai", "gpt-5-mini"], ["openai", "no-such-model"], ["ollama", "llama"]]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [(provider, model, len(found)) for provider, model, found in answer] == [
        ("openai", "gpt-5-mini", 1),
        ("openai", "no-such-model", 0),
    ]


def test_tiers_are_of_the_kind_we_know() -> None:
    """A tier of the list is a start and a price for all tokens; another kind would need another calculation."""
    found = [
        value
        for provider in providers
        for model in provider.models
        if not isinstance(model.prices, list)
        for value in vars(model.prices).values()
        if isinstance(value, TieredPrices)
    ]
    assert found
    assert all(set(vars(tier)) == {"start", "price"} for value in found for tier in value.tiers)
