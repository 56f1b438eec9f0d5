"""What people and workspaces have used this month: kept in memory for the organizations that have caps.

A month is read once, then only what is new. On PostgreSQL a lower id can appear after a higher one, so events are read
again until every transaction that was open when they were first seen has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

# So that nobody else waits noticeably while they are read.
MOST_AT_ONCE = 20_000
_LAPSE_MS = 1_000


class Horizon(NamedTuple):
    """The oldest transaction that is still open, the next one there will be, and the newest event's id.

    All are zero where there is one writer: what can be seen is all there is.
    """

    oldest: int
    next: int
    newest: int


class UsedRow(NamedTuple):
    """What a person used in a workspace; ``settled``: by events no newer than those asked about as old.

    What late settlements have corrected of the month is a row of its own, never settled and without events.
    """

    user_id: str | None
    workspace_id: str
    settled: bool
    allowance: int
    own_key: int
    last_id: int
    events: int


class Reader(Protocol):
    """The part of a store that tallies need."""

    def used_since(self, organization_id: str, period: str, after: int, old: int) -> tuple[Horizon, Iterable[UsedRow]]:
        """Sums of the events after this id, at most ``MOST_AT_ONCE``, oldest first; up to ``old`` they are settled.

        Beside them the month's corrections, all of them.
        """


class Tally:
    """One organization's month: tokens of the allowance and on own keys, by the id of the person or workspace."""

    def __init__(self) -> None:
        self._through = 0
        self._settled: dict[str, tuple[int, int]] = {}
        self._mark = Horizon(0, 0, 0)
        self._mark_ms = 0

    def read(self, store: Reader, organization_id: str, period: str, now_ms: int) -> dict[str, tuple[int, int]] | None:
        """What has been used now; None while there is more than can be read at once: ask again."""
        horizon, rows = store.used_since(organization_id, period, self._through, self._mark.newest)
        mark = self._mark
        ended = mark.next <= horizon.oldest and (not mark.next or now_ms - self._mark_ms >= _LAPSE_MS)
        recent = dict[str, tuple[int, int]]()
        events = through = 0
        for row in rows:
            events += row.events
            if row.settled and ended:
                through = max(through, row.last_id)
                _add(self._settled, row)
            else:
                _add(recent, row)
        self._through = max(self._through, through)
        if events >= MOST_AT_ONCE:
            # A mark that nothing is older than any more would keep all that is newer waiting for ever.
            if horizon.next and (not mark.next or (ended and not through)):
                self._mark, self._mark_ms = horizon, now_ms
            return None
        if ended:
            self._mark, self._mark_ms = horizon, now_ms
        return {
            subject: _plus(self._settled.get(subject, (0, 0)), recent.get(subject, (0, 0)))
            for subject in self._settled.keys() | recent.keys()
        }


def _add(sums: dict[str, tuple[int, int]], row: UsedRow) -> None:
    for subject in (row.user_id, row.workspace_id):
        if subject is not None:
            sums[subject] = _plus(sums.get(subject, (0, 0)), (row.allowance, row.own_key))


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
