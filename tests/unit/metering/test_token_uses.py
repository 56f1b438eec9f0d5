"""That every request of a token is written once, though most of them wait in memory for a while."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from ownkey.metering.token_uses import Made, TokenUses

PERIOD = "2026-11"


def _made(now_ms: int, exact: bool, tokens: Mapping[str, int]) -> dict[str, Made]:
    made = {}
    for token, requests in tokens.items():
        made[token] = Made("org_1", PERIOD, now_ms, exact)
        made[token].requests = requests
    return made


def _batch(
    uses: TokenUses, now_ms: int, tokens: Mapping[str, int] | None = None, exact: bool = False
) -> list[tuple[str, int, int]]:
    """What a batch with these requests writes, and commits: token, requests, time of the last."""
    rows = uses.to_write(_made(now_ms, exact, tokens or {}), now_ms)
    uses.written()
    return [(row[0], row[3], row[4]) for row in rows]


def test_a_token_is_written_about_once_a_minute() -> None:
    """However often a token calls, the batches of the next three quarters of a minute do not write it."""
    uses = TokenUses()
    _batch(uses, 1_000_000, {"a": 1})
    assert _batch(uses, 1_000_001, {"a": 1}) == [("a", 1, 1_000_000)]
    written = [row for later in range(0, 50_000, 10) for row in _batch(uses, 1_000_002 + later, {"a": 1})]
    assert len(written) == 1
    assert written[0][0] == "a"
    assert 4_000 < written[0][1] <= 5_000


def test_a_clock_that_is_set_back_keeps_nothing() -> None:
    """The batch after that writes what was gathered before it, and so does the last one of all."""
    for last in (False, True):
        uses = TokenUses()
        _batch(uses, 1_000_000, {"a": 1})
        _batch(uses, 1_000_001, {"a": 1})
        if last:
            uses.leave_nothing()
        assert _batch(uses, 500_000) == [("a", 1, 1_000_001)]
        assert not uses


def test_what_a_limit_counts_is_written_at_once_with_all_that_was_kept() -> None:
    """A plan that limits requests counts those made before it, and after that every one in its own transaction."""
    uses = TokenUses()
    _batch(uses, 1_000_000, {"a": 1})
    _batch(uses, 1_000_001, {"a": 3, "b": 1})
    _batch(uses, 1_000_002, {"a": 4})
    assert uses.kept("a", PERIOD) == 7
    assert _batch(uses, 1_000_003, {"a": 2}, exact=True) == [("a", 9, 1_000_003)]
    assert uses.kept("a", PERIOD) == 0
    assert _batch(uses, 1_000_004, {"a": 1}, exact=True) == [("a", 1, 1_000_004)]
    assert _batch(uses, 2_000_000) == [("b", 1, 1_000_001)]
    assert not uses


def test_a_change_of_facts_has_everything_written_soon() -> None:
    """Other nodes cannot know what is in memory here, so after a change it is there for seconds only."""
    uses = TokenUses()
    _batch(uses, 1_000_000, {"a": 1})
    _batch(uses, 1_000_001, {"a": 1})
    uses.hurry()
    assert _batch(uses, 1_004_000) == []
    assert _batch(uses, 1_005_001) == [("a", 1, 1_000_001)]


def test_many_tokens_are_written_in_order_some_at_a_time() -> None:
    """One batch never writes more than 256 of them, neighbours together; the last batches write all there is."""
    uses = TokenUses()
    tokens = [f"tok_{number:05}" for number in range(3_000)]
    shuffled = random.Random(1).sample(tokens, len(tokens))  # noqa: S311
    _batch(uses, 0, dict.fromkeys(shuffled, 1))
    batches = [[row[0] for row in _batch(uses, 50_000)] for _ in range(12)]
    assert [token for batch in batches for token in batch] == tokens
    assert max(map(len, batches)) == 256
    _batch(uses, 50_001, dict.fromkeys(shuffled, 1))
    uses.leave_nothing()
    assert len(_batch(uses, 50_002)) == 3_000
    assert not uses


def test_nothing_is_lost_or_doubled_whatever_comes_in_which_order() -> None:
    """Over random batches, some of which fail, what is written in the end is what was made in those that did not."""
    for seed in range(50):
        dice, uses, now_ms = random.Random(seed), TokenUses(), 0  # noqa: S311
        made: Counter[str] = Counter()
        written: Counter[str] = Counter()
        for _ in range(200):
            now_ms += dice.choice([1, 1, 1, 30_000])
            exact = set(dice.sample("abcdefgh", 2))
            tokens = {token: dice.randint(1, 3) for token in dice.sample("abcdefgh", dice.randint(0, 4))}
            batch = {token: _made(now_ms, token in exact, {token: n})[token] for token, n in tokens.items()}
            rows = uses.to_write(batch, now_ms)
            if dice.random() < 0.1:
                uses.hurry()
            if dice.random() < 0.8:
                uses.written()
                made.update(tokens)
                written.update({row[0]: row[3] for row in rows})
                for token in "abcdefgh":
                    assert made[token] == written[token] + uses.kept(token, PERIOD)
        uses.leave_nothing()
        while uses:
            written.update({row[0]: row[3] for row in uses.to_write({}, now_ms)})
            uses.written()
        assert made == written
