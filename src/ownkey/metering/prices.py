"""Price: what a model's tokens cost, kept when it is first used; and the cost of calls at those prices.

A call's price is the row of its provider and model that counted when it started, and rows are never changed. So a price
that changes later, or a newer price list, changes no cost that was shown before. Nothing of this is on the way of a
call: rows are written by a periodic job within seconds of the first call of a model, and count for that call, too.
Costs are whole millionths of a dollar.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, exists, func, insert, or_, select, text, update

from ownkey import clock
from ownkey.db.engine import Database, Transaction
from ownkey.db.tables import usage_events
from ownkey.db.usage_tables import model_prices
from ownkey.metering.new_rows import NewRows

CURRENCY = "USD"
_MOST_AT_ONCE = 200
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_EVERY_DAY_AND_SIZE = (0, 1440, 0, None)
_RATE_COLUMNS = (
    "minute_from", "minute_until", "input_from", "input_until",
    "input_price", "cached_input_price", "cache_write_price", "output_price",
)  # fmt: skip
_UNKNOWN = [(*_EVERY_DAY_AND_SIZE, None, None, None, None)]
_event, _price = usage_events.c, model_prices.c

Pair = tuple[str, str]
# As ``price_list.Rate``, whose module only the program that reads the list may load.
RateRow = Sequence[int | None]


def _quotient(value: Any, divisor: int) -> ColumnElement[int]:
    """A division of whole numbers, which both databases round down."""
    return cast(value, BigInteger).op("/")(divisor)


def _least(value: ColumnElement[int], most: ColumnElement[int]) -> ColumnElement[int]:
    return case((value > most, most), else_=value)


_started_minute: ColumnElement[int] = _quotient(_event.started_at, 60_000).op("%")(1440)
# Which price counts for an event: at most one does.
APPLIES = and_(
    _price.provider == _event.provider,
    _price.model == _event.model,
    _event.started_at >= _price.valid_from,
    or_(_price.valid_until.is_(None), _event.started_at < _price.valid_until),
    _price.minute_from <= _started_minute,
    _started_minute < _price.minute_until,
    _price.input_from <= _event.input_tokens,
    or_(_price.input_until.is_(None), _event.input_tokens < _price.input_until),
)
# Of the cached and cache-write tokens as many cost as there is input, as they are charged (usage.py).
_cached = _least(_event.cached_input_tokens, _event.input_tokens)
_written = _least(_event.cache_write_tokens, _event.input_tokens - _cached)
# Of an event joined on APPLIES: whether it costs what nobody knows; and its cost in millionths of a dollar, rounded, or
# null when it is not known.
UNPRICED = and_(_price.input_price.is_(None), _event.input_tokens + _event.output_tokens != 0)
COST: ColumnElement[int | None] = case(
    (_event.input_tokens + _event.output_tokens == 0, 0),
    else_=_quotient(
        (_event.input_tokens - _cached - _written) * _price.input_price
        + _cached * _price.cached_input_price
        + _written * _price.cache_write_price
        + _event.output_tokens * _price.output_price
        + 500_000,
        1_000_000,
    ),
)


async def without_price(db: Database, new: NewRows, ignored: Collection[str] = ()) -> Sequence[Pair]:
    """Providers and models of the events that were added, which no row has; without the ``ignored`` providers."""
    async with db.read() as tx:
        newest = await tx.scalar(select(func.coalesce(func.max(_event.id), 0))) or 0
        found: list[Pair] = []
        if new.after is not None:
            used = (
                select(_event.provider, _event.model)
                .where(_event.id > new.after, _event.id <= new.upto, _event.input_tokens + _event.output_tokens > 0)
                .where(_event.provider.not_in(list(ignored)))
                .distinct()
                .subquery()
            )
            known = exists().where(_price.provider == used.c.provider, _price.model == used.c.model)
            query = select(used.c.provider, used.c.model).where(~known).limit(_MOST_AT_ONCE)
            found = [(row[0], row[1]) for row in await tx.execute(query)]
    if len(found) < _MOST_AT_ONCE:
        new.seen(newest)
    return found


async def to_compare(db: Database, version: str) -> Sequence[Pair]:
    """Models whose price may have changed: the known ones, and with another version of the list the others, too."""
    query = (
        select(_price.provider, _price.model)
        .where(_price.valid_until.is_(None), or_(_price.input_price.is_not(None), _price.source != version))
        .distinct()
    )
    async with db.read() as tx:
        return [(row[0], row[1]) for row in await tx.execute(query)]


async def save(db: Database, version: str, listed: Mapping[Pair, Sequence[RateRow]]) -> None:
    """Keep what the price list of this version says of some models; no rates: that it does not know them.

    A model's first price counts for all of its calls so far; one that differs, for those that start from now on. A
    known price does not become unknown, and a node with an older list does not undo what one with a newer has written.
    """
    async with db.transaction() as tx:
        if db.dialect == "postgresql":  # two nodes must not both add the first price
            await tx.execute(text("SELECT pg_advisory_xact_lock(7310581)"))
        for pair, rates in listed.items():
            await _save(tx, version, pair, [tuple(rate) for rate in rates])


async def _save(tx: Transaction, version: str, pair: Pair, rates: Sequence[tuple[int | None, ...]]) -> None:
    current = (_price.provider == pair[0], _price.model == pair[1], _price.valid_until.is_(None))
    rows = (await tx.execute(select(model_prices).where(*current))).all()
    before = {tuple(row._mapping[name] for name in _RATE_COLUMNS) for row in rows}
    since = _BEGINNING
    if rows:
        if any(_ordered(version) < _ordered(row.source) for row in rows):
            return
        if not rates or before == set(rates):
            await tx.execute(update(model_prices).where(*current).values(source=version))
            return
        since = clock.now()
        await tx.execute(update(model_prices).where(*current).values(valid_until=since))
    common = {"provider": pair[0], "model": pair[1], "valid_from": since, "source": version}
    values = [common | dict(zip(_RATE_COLUMNS, rate, strict=True)) for rate in rates or _UNKNOWN]
    await tx.execute(insert(model_prices), values)


def _ordered(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
