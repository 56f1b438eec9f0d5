"""Changes while streams run: each call keeps what it began with, and the next one has what is new."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.fakes.provider import FakeProvider
from tests.gateway.books import PLATFORM_KEY, Books, judge
from tests.gateway.installation import Installation
from tests.gateway.traffic import Made, Streams, make

PAUSE, TOKENS = 0.1, 100
LOWER = 1_000


def install(folder: Path, provider: FakeProvider, database: URL) -> tuple[Installation, int]:
    """An installation and how many nodes it has: one on a file, four on PostgreSQL."""
    here = Installation(folder, provider)
    if database.get_backend_name() != "postgresql":
        return here, 1
    here.use(database)
    return here, 4


@pytest.mark.timeout(180)
def test_the_plan_changes_while_streams_run(database_url: URL, tmp_path: Path) -> None:
    """Down below what is held: nothing is left, and no stream is cut; up: the next call is served; history stays."""
    with FakeProvider() as provider:
        here, number = install(tmp_path, provider, database_url)
        books = Books(here, 100_000, lower=LOWER, higher=200_000)
        with here.nodes(number) as nodes:
            urls, calls = [node.url for node in nodes], list[Made]()

            def call_each() -> set[int]:
                made = [make(url, books.token, 100, "plain", 5) for url in urls]
                calls.extend(made)
                return {one.status for one in made}

            streams = Streams(urls, books.token, 0, [TOKENS // 2] * 20, PAUSE)
            streams.wait_until_all_run(provider)
            assert call_each() == {200}
            before = books.events()
            for plan, status in (("lower", 429), ("higher", 200), ("lower", 429)):
                books.subscribe(plan)
                assert call_each() == {status}, plan
                assert (books.allowance(plan).remaining > 0) == (status == 200)
            assert {one.code for one in calls} == {"", "allowance_exhausted"}
            ended = streams.end()
            assert all(one.whole for one in ended)
            assert books.allowance("lower").used > LOWER
            assert call_each() == {429}
            books.subscribe("free")
            assert call_each() == {200}
            after = books.events()
            assert list(after[: len(before)]) == list(before)
        verdict = judge([*calls, *ended], provider, after)
        assert verdict.whole == len(ended) + 3 * number
        assert books.allowance().used == verdict.whole_tokens
        books.balance()


@pytest.mark.timeout(180)
def test_the_key_changes_while_streams_run(database_url: URL, tmp_path: Path) -> None:
    """Connected, replaced and removed under 50 streams: each is paid by whom it began with, and charged to nobody else.

    What they hold is held by them alone: the change frees nothing, and nothing is held when all have ended.
    """
    keys = ["sk-own-first-0123456789-abcdefghijkl", "sk-own-second-0123456789-abcdefghijk"]
    with FakeProvider() as provider:
        here, nodes_wanted = install(tmp_path, provider, database_url)
        books, all_streams, paid_with = Books(here, 10**6), list[Streams](), dict[int, str]()
        with here.nodes(nodes_wanted) as nodes:
            urls = [node.url for node in nodes]
            for phase, key in enumerate([PLATFORM_KEY, *keys, PLATFORM_KEY]):
                held = books.allowance().reserved
                if key in keys:
                    books.connect(key)
                elif phase:
                    books.disconnect()
                assert books.allowance().reserved == held
                number = 13 if phase < 2 else 12
                all_streams.append(Streams(urls, books.token, 100 * phase, [TOKENS] * number, PAUSE))
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
