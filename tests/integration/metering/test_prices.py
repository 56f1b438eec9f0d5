"""Prices: kept when a model is first used; later ones change no cost of before; what is unknown is not free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import insert, select

from ownkey import clock
from ownkey.access import Actor
from ownkey.db.engine import Database
from ownkey.db.tables import usage_events
from ownkey.db.usage_tables import model_prices
from ownkey.housekeeping.pricing import Pricing, ask_list
from ownkey.mail import Mailer
from ownkey.metering import prices
from ownkey.metering import usage_events as events
from ownkey.metering.new_rows import NewRows
from ownkey.node import Node
from ownkey.plans import DEFAULT_CATALOGUE
from ownkey.settings import read_settings
from tests import build

pytestmark = pytest.mark.anyio
ACTOR = Actor.operator("org_1")
NOON = clock.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
PERIOD = clock.period_of(clock.now())
PAIR = ("openai", "a-model")
# $2 for a million tokens in, $0.50 cached, $2.50 written to the cache, $8 out.
RATE = (0, 1440, 0, None, 2_000_000, 500_000, 2_500_000, 8_000_000)
_numbers = count(1)


async def call(
    db: Database,
    tokens: tuple[int, int, int, int] = (1_000, 400, 100, 50),
    *,
    at: datetime = NOON,
    billed_to: str = "own_key",
    pair: tuple[str, str] = PAIR,
    outcome: str = "finished",
) -> str:
    """Write an event of so many input, cached, written and output tokens, as a settlement would."""
    request_id = f"req_{next(_numbers)}"
    async with db.transaction() as tx:
        await tx.execute(
            insert(usage_events).values(
                request_id=request_id, organization_id="org_1", workspace_id="wsp_1", period=PERIOD,
                provider=pair[0], model=pair[1], dialect="openai", billed_to=billed_to,
                input_tokens=tokens[0], cached_input_tokens=tokens[1], cache_write_tokens=tokens[2],
                output_tokens=tokens[3], reasoning_tokens=0, charged_tokens=0, estimated=False,
                outcome=outcome, started_at=at, duration_ms=1,
                **({} if billed_to == "own_key" else {"position": 1, "used_after": 0}),
            )
        )  # fmt: skip
    return request_id


async def costs(db: Database) -> list[int | None]:
    """The cost of every event, in order."""
    return [event.cost_micros for event in await events.events(db, ACTOR)]


async def save(db: Database, *rates: Sequence[int | None], version: str = "1.0", pair: tuple[str, str] = PAIR) -> None:
    """Have the list say this of a model."""
    await prices.save(db, version, {pair: rates})


def make_node(db: Database, folder: Path) -> Node:
    """A node, for what a job needs of it."""
    settings = read_settings(data_dir=folder, public_url="http://ownkey.test")
    return Node(settings, db, build.keyring(), DEFAULT_CATALOGUE, Mailer(settings))


async def test_each_kind_of_token_has_its_price(database: Database) -> None:
    """500 plain at $2, 400 cached at $0.50, 100 written at $2.50 and 50 out at $8 a million are 1,850 millionths."""
    await call(database)
    assert await costs(database) == [None]
    await save(database, RATE)
    assert await costs(database) == [1_850]
    await call(database, (1, 0, 0, 0))
    await call(database, (0, 0, 0, 0), outcome="refused", pair=("openai", "nonsense"))
    # 2 millionths exactly; and what used nothing costs nothing, whatever its price.
    assert await costs(database) == [1_850, 2, 0]


async def test_no_more_is_cached_than_there_is_input(database: Database) -> None:
    """Who reports more cached, or more written, than input has the input at those prices: nothing is given back."""
    await save(database, RATE)
    for tokens in ((100, 400, 0, 50), (100, 60, 400, 50)):
        await call(database, tokens)
    assert await costs(database) == [100 * 0.5 + 400, 60 * 0.5 + 40 * 2.5 + 400]


async def test_rounding_and_large_numbers(database: Database) -> None:
    """Half a millionth is rounded up, for each request; the dearest and longest call does not overflow."""
    await save(database, (0, 1440, 0, None, 250_000, 250_000, 250_000, 600_000_000))
    for tokens in ((1, 0, 0, 0), (2, 0, 0, 0), (10_000_000, 0, 0, 10_000_000)):
        await call(database, tokens)
    assert await costs(database) == [0, 1, 6_002_500_000]
    totals = await events.totals(database, ACTOR, PERIOD)
    assert totals.own_key_cost_micros == 6_002_500_001


async def test_sums_count_what_is_unknown(database: Database) -> None:
    """Sums by billing, provider and member are those of the events; requests of unknown price are counted, not 0."""
    await save(database, RATE)
    await call(database)
    await call(database, billed_to="allowance")
    await call(database, pair=("ollama", "llama"))
    await call(database, pair=("ollama", "llama"), billed_to="allowance")
    totals = await events.totals(database, ACTOR, PERIOD)
    assert (totals.own_key_cost_micros, totals.own_key_unpriced_requests) == (1_850, 1)
    assert (totals.allowance_cost_micros, totals.allowance_unpriced_requests) == (1_850, 1)
    assert totals.events == 4
    by_provider = {row.provider: row for row in await events.by_provider(database, ACTOR, PERIOD)}
    assert (by_provider["openai"].own_key_cost_micros, by_provider["openai"].own_key_unpriced_requests) == (1_850, 0)
    assert (by_provider["ollama"].own_key_cost_micros, by_provider["ollama"].own_key_unpriced_requests) == (0, 1)
    [member] = await events.by_member(database, ACTOR, PERIOD)
    assert (member.own_key_cost_micros, member.own_key_unpriced_requests, member.requests) == (1_850, 1, 4)


async def test_a_new_price_changes_nothing_of_before(database: Database) -> None:
    """What was called before a price changed keeps its cost; what is called after it has the new one."""
    await save(database, RATE)
    await call(database)
    await call(database, at=clock.now())
    await save(database, (0, 1440, 0, None, 4_000_000, 1_000_000, 5_000_000, 16_000_000), version="1.1")
    assert await costs(database) == [1_850, 1_850]
    await call(database, at=clock.now() + timedelta(seconds=1))
    assert await costs(database) == [1_850, 1_850, 3_700]
    await save(database, (0, 1440, 0, None, 4_000_000, 1_000_000, 5_000_000, 16_000_000), version="1.2")
    await save(database, RATE, version="1.1")  # a node that was not upgraded yet
    await save(database, version="1.3")  # a list that dropped the model
    assert await costs(database) == [1_850, 1_850, 3_700]


async def test_a_price_depends_on_hour_and_size(database: Database) -> None:
    """Of several rates the one counts in whose minutes the call started, and that is for its input."""
    rates = [
        (0, 60, 0, None, 1_000_000, 1_000_000, 1_000_000, 0),
        (60, 1440, 0, 200_001, 2_000_000, 2_000_000, 2_000_000, 0),
        (60, 1440, 200_001, None, 4_000_000, 4_000_000, 4_000_000, 0),
    ]
    await save(database, *rates)
    midnight = NOON.replace(hour=0)
    for at, tokens in (
        (midnight, 300_000),
        (midnight + timedelta(minutes=59, seconds=59), 1),
        (midnight + timedelta(minutes=60), 1),
        (NOON, 200_000),
        (NOON, 200_001),
    ):
        await call(database, (tokens, 0, 0, 0), at=at)
    assert await costs(database) == [300_000, 1, 2, 400_000, 800_004]
    await save(database, *rates)
    async with database.read() as tx:
        assert len((await tx.execute(select(model_prices))).all()) == 3


async def test_an_unknown_price_may_become_known(database: Database) -> None:
    """From a list that knows the model on, calls have a price; those before it keep none."""
    await save(database)
    await call(database, at=clock.now())
    assert await prices.to_compare(database, "1.0") == []
    assert await prices.to_compare(database, "1.1") == [PAIR]
    await save(database, version="1.1")
    assert await prices.to_compare(database, "1.1") == []
    await save(database, RATE, version="1.2")
    await call(database, at=clock.now() + timedelta(seconds=1))
    assert await costs(database) == [None, 1_850]
    assert await prices.to_compare(database, "1.2") == [PAIR]


async def test_two_nodes_add_a_price_once(database: Database) -> None:
    """Nodes that note a model's first price at the same time leave one, also when their lists differ."""
    await call(database)
    tiers = [(0, 1440, 0, 9, 1, 1, 1, 1), (0, 1440, 9, None, 1, 1, 1, 1)]
    await asyncio.gather(*(save(database, *rates) for rates in ([RATE], tiers, [RATE], tiers)))
    assert len(await costs(database)) == 1


async def test_models_without_price_are_found_among_new_events(database: Database) -> None:
    """Each pair once, when its event is a round old; not those that have a price, cost nothing, or are ignored."""
    new = NewRows(back=100)
    await call(database)
    assert await prices.without_price(database, new) == []
    await call(database, pair=("openai", "another"))
    await call(database, (0, 0, 0, 0), pair=("openai", "free"))
    await call(database, pair=("ollama", "llama"))
    assert await prices.without_price(database, new) == [PAIR]
    await save(database, RATE)
    assert sorted(await prices.without_price(database, new, {"ollama"})) == [("openai", "another")]
    assert await prices.without_price(database, new) == []


async def test_the_job_prices_what_was_used(database: Database, tmp_path: Path) -> None:
    """From the real list: a model's first call has its price within two rounds; an own server's has none."""
    node, pricing = make_node(database, tmp_path), Pricing()
    await pricing.note_new(node)
    await call(database, (1_000_000, 0, 0, 0), pair=("openai", "gpt-5-mini"))
    await call(database, pair=("ollama", "llama"))
    await call(database, pair=("openai", "no-such-model"))
    for _ in range(2):
        await pricing.note_new(node)
    assert await costs(database) == [250_000, None, None]
    await pricing.compare(node)
    async with database.read() as tx:
        rows = (await tx.execute(select(model_prices).order_by(model_prices.c.model))).all()
    assert [(row.model, row.input_price, row.valid_until) for row in rows] == [
        ("gpt-5-mini", 250_000, None),
        ("no-such-model", None, None),
    ]
    assert rows[0].valid_from == datetime(1970, 1, 1, tzinfo=UTC)


async def test_the_program_does_not_get_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the list has none of our variables, which may be secrets: with this one Python would not start."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert len(await ask_list([("openai", "gpt-5-mini")])) == 1


def test_a_list_nobody_waits_for_leaves_no_process() -> None:
    """Stopped while the list is being read, the loop is not closed before the program is gone."""

    def children() -> set[str]:
        return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}

    async def leave() -> None:
        asking = asyncio.create_task(ask_list([("openai", "gpt-5-mini")]))
        async with asyncio.timeout(20):
            while not children() - before:  # noqa: ASYNC110 - nothing tells of a new process
                await asyncio.sleep(0.001)
        asking.cancel()

    before = children()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave())
    assert children() <= before
