"""Changes while streams run: each call keeps what it began with, and the next one has what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.books import PLATFORM_KEY, Books, judge
from tests.gateway.installation import Installation
from tests.gateway.traffic import Made, Streams, make

PAUSE, TOKENS = 0.1, 100
LOWER = 1_000


@pytest.mark.timeout(180)
def test_the_plan_changes_while_streams_run(tmp_path: Path) -> None:
    """Down below what is held: nothing is left, and no stream is cut; up: the next call is served; history stays."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        books = Books(here, 100_000, lower=LOWER, higher=200_000)
        with here.nodes(1) as (node,):

            def call() -> Made:
                calls.append(make(node.url, books.token, 100, "plain", 5))
                return calls[-1]

            calls: list[Made] = []
            streams = Streams([node.url], books.token, 0, [TOKENS // 2] * 20, PAUSE)
            streams.wait_until_all_run(provider)
            assert call().status == 200
            before = books.events()
            for plan, status in (("lower", 429), ("higher", 200), ("lower", 429)):
                books.subscribe(plan)
                assert call().status == status, plan
                assert (books.allowance(plan).remaining > 0) == (status == 200)
            assert {one.code for one in calls} == {"", "allowance_exhausted"}
            ended = streams.end()
            assert all(one.whole for one in ended)
            assert books.allowance("lower").used > LOWER
            assert call().status == 429
            books.subscribe("free")
            assert call().status == 200
            after = books.events()
            assert list(after[: len(before)]) == list(before)
        verdict = judge([*calls, *ended], provider, after)
        assert verdict.whole == len(ended) + 3
        assert books.allowance().used == verdict.whole_tokens
        books.balance()


@pytest.mark.timeout(180)
def test_the_key_changes_while_streams_run(tmp_path: Path) -> None:
    """Connected, replaced and removed under 50 streams: each is paid by whom it began with, and charged to nobody else.

    What they hold is held by them alone: the change frees nothing, and nothing is held when all have ended.
    """
    keys = ["sk-own-first-0123456789-abcdefghijkl", "sk-own-second-0123456789-abcdefghijk"]
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        books, all_streams, paid_with = Books(here, 10**6), list[Streams](), dict[int, str]()
        with here.nodes(1) as (node,):
            for phase, key in enumerate([PLATFORM_KEY, *keys, PLATFORM_KEY]):
                held = books.allowance().reserved
                if key in keys:
                    books.connect(key)
                elif phase:
                    books.disconnect()
                assert books.allowance().reserved == held
                number = 13 if phase < 2 else 12
                all_streams.append(Streams([node.url], books.token, 100 * phase, [TOKENS] * number, PAUSE))
                all_streams[-1].wait_until_all_run(provider)
                paid_with |= {100 * phase + stream: key for stream in range(number)}
                assert (books.allowance().reserved > held) == (key == PLATFORM_KEY)
            calls = [call for streams in all_streams for call in streams.end()]
            assert all(call.whole for call in calls)
            assert len(calls) == 50
        assert {one.model: one.key for one in provider.requests} == {f"gpt-{n}": key for n, key in paid_with.items()}
        verdict = judge(calls, provider, books.events())
        of_allowance = [one for one in provider.requests if one.key == PLATFORM_KEY]
        assert verdict.whole_tokens == sum(one.tokens_in + one.tokens_out for one in of_allowance)
        assert books.allowance().used == verdict.whole_tokens
        books.balance()
