"""How many requests API tokens made in a month, and when each was last used.

A plan that limits a token's requests needs the number in the transaction that admits the next one. Under any other
plan it is only looked at, so it is kept in memory and written about once a minute, and every few minutes where tens of
thousands of tokens call: written by every batch, it would be one page more for each token that calls.

What was kept is written with a token's first request under a plan that has a limit, so that the limit counts every
request of the month. Other nodes write theirs within seconds of the change. A node that is killed takes the requests
of its last minutes with it, and only those made while no limit counted them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Final

_SWEEP_MS: Final = 45_000
_HURRIED_MS: Final = 5_000
# And so much for each token that is kept: to write it costs a good part of what its calls cost.
_TOKEN_MS: Final = 3
# The most that one batch writes of what was kept, and how much is sorted at once. Sorted, because neighbours share
# pages: those of a hundred thousand tokens are written for a twentieth of the cost.
_AT_ONCE: Final = 256
_RUN: Final = 1000

TokenMonth = tuple[str, str]
Row = tuple[str, str, str, int, int]


class Made:
    """Requests of a token in a month; ``exact`` if its plan limits them, so that they must be written at once."""

    __slots__ = ("exact", "last_ms", "organization_id", "period", "requests")

    def __init__(self, organization_id: str, period: str, last_ms: int, exact: bool) -> None:
        self.organization_id = organization_id
        self.period = period
        self.last_ms = last_ms
        self.exact = exact
        self.requests = 0


class TokenUses:
    """What is kept in memory, over all batches of a writer: each asks ``to_write``, commits, and says ``written``."""

    def __init__(self) -> None:
        # What is gathered now, and its keys in runs, sorted but for the last; and what is being written, in order.
        self._gathered: dict[TokenMonth, Made] = {}
        self._runs: list[list[TokenMonth]] = [[]]
        self._leaving: dict[TokenMonth, Made] = {}
        self._order: Iterator[TokenMonth] = iter(())
        self._swept_ms = 0
        self._every_ms = _SWEEP_MS
        self._at_once = _AT_ONCE
        # Of the batch under way: its own requests, and the rows that it writes of what was kept.
        self._made: Mapping[str, Made] = {}
        self._slice: list[TokenMonth] = []

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self._gathered or self._leaving)

    def kept(self, token: str, period: str) -> int:
        """The requests of a token and month that are not in the database yet."""
        month = (token, period)
        return sum(kept[month].requests for kept in (self._gathered, self._leaving) if month in kept)

    def hurry(self) -> None:
        """Something has changed, perhaps a plan: write what is kept soon, so that other nodes can count it."""
        self._every_ms = min(self._every_ms, _HURRIED_MS)

    def leave_nothing(self) -> None:
        """Have everything written by the next batches: they are the last ones."""
        self._every_ms = 0
        self._at_once = len(self._gathered) + len(self._leaving)

    def to_write(self, made: Mapping[str, Made], now_ms: int) -> list[Row]:
        """The rows to add now: the batch's own that must be exact, and some of what was kept."""
        self._made = made
        # A clock that was set back must not keep them until it has caught up.
        if not self._leaving and self._gathered and not 0 <= now_ms - self._swept_ms < self._patience_ms():
            self._sweep(now_ms)
        rows: list[Row] = []
        for token, one in made.items():
            if one.exact:
                month = (token, one.period)
                rows.append(_row(month, one, self._leaving.get(month), self._gathered.get(month)))
        if self._leaving:
            if not self._slice:
                self._slice = list(islice(self._order, self._at_once))
            there = {row[:2] for row in rows}
            rows += [
                _row(month, self._leaving[month])
                for month in self._slice
                if month in self._leaving and month not in there
            ]
        return rows

    def written(self) -> None:
        """The batch that asked ``to_write`` has been committed."""
        for month in self._slice:
            self._leaving.pop(month, None)
        self._slice = []
        for token, one in self._made.items():
            month = (token, one.period)
            if one.exact:
                self._leaving.pop(month, None)
                self._gathered.pop(month, None)
            elif (before := self._gathered.get(month)) is not None:
                before.requests += one.requests
                before.last_ms = one.last_ms
            else:
                self._gathered[month] = one
                self._note(month)
        self._made = {}

    def _patience_ms(self) -> int:
        hurried = self._every_ms < _SWEEP_MS
        return self._every_ms if hurried else max(_SWEEP_MS, _TOKEN_MS * len(self._gathered))

    def _note(self, month: TokenMonth) -> None:
        run = self._runs[-1]
        run.append(month)
        if len(run) == _RUN:
            run.sort()
            self._runs.append([])

    def _sweep(self, now_ms: int) -> None:
        self._runs[-1].sort()
        self._leaving, self._gathered = self._gathered, {}
        self._order, self._runs = merge(*self._runs), [[]]
        self._swept_ms, self._every_ms = now_ms, _SWEEP_MS


def _row(month: TokenMonth, one: Made, *kept: Made | None) -> Row:
    """A token, its month and organization, the requests to add, and when the last of them was."""
    requests = one.requests + sum(before.requests for before in kept if before is not None)
    return *month, one.organization_id, requests, one.last_ms
