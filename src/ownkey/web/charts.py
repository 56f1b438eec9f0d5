"""Geometry of the usage chart: plain numbers for an SVG that the template draws, without script or inline style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ownkey import clock
from ownkey.metering.usage_events import DayUsage

HEIGHT = 160
SLOT = 20
_BAR = 14
_EVERY = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: a column of allowance tokens with a column of own-key tokens on top. Units are the SVG's."""

    day: date
    x: float
    width: float
    allowance_y: float
    allowance_height: float
    own_key_y: float
    own_key_height: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All days of a month, used or not, and the number of tokens that the top line stands for."""

    bars: Sequence[Bar]
    width: int
    height: int
    top: int


def by_day(period: str, days: Sequence[DayUsage]) -> Chart:
    """Lay out a month. A call that ran over the month's end counts on a day outside it, and gets no bar."""
    used = {day.day: day for day in days}
    top = round_up(max((day.allowance_tokens + day.own_key_tokens for day in days), default=0))
    first, end = clock.period_start(period).date(), clock.period_end(period).date()
    bars = []
    for index in range((end - first).days):
        day = first + timedelta(days=index)
        usage = used.get(day, DayUsage(day, 0, 0))
        allowance = _height(usage.allowance_tokens, top)
        own_key = _height(usage.own_key_tokens, top)
        bars.append(
            Bar(
                day=day,
                x=index * SLOT + (SLOT - _BAR) / 2,
                width=_BAR,
                allowance_y=round(HEIGHT - allowance, 1),
                allowance_height=allowance,
                own_key_y=round(HEIGHT - allowance - own_key, 1),
                own_key_height=own_key,
                label=str(day.day) if day.day == 1 or day.day % _EVERY == 0 else "",
            )
        )
    return Chart(bars, width=len(bars) * SLOT, height=HEIGHT, top=top)


def round_up(tokens: int) -> int:
    """The next number with one digit and zeros, at least 100: a scale that reads well."""
    if tokens <= 100:
        return 100
    step = int(10 ** (len(str(tokens)) - 1))
    return -(-tokens // step) * step


def _height(tokens: int, top: int) -> float:
    return round(HEIGHT * tokens / top, 1)
