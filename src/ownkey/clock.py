"""The time, and the calendar month (UTC) that an allowance belongs to.

Admissions take the month from the database's clock (see ``metering/writer.py``); this module is for
everything that only shows a time or computes with one it was given.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from ownkey.errors import InvalidRequest

_PERIOD = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def now() -> datetime:
    """The current time, in UTC and aware of it, in whole milliseconds: as fine as the database keeps it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def period_of(moment: datetime) -> str:
    """The calendar month of a moment, as ``2026-11``."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def parse_period(text: str) -> str:
    """Return ``text`` if it names a month as ``2026-11``; raise ``InvalidRequest`` otherwise."""
    # The calendar begins with the year 1, and the month after has to be in it, too.
    if not _PERIOD.fullmatch(text) or not "0001-01" <= text < "9999-12":
        raise InvalidRequest(f"{text!r} is not a month. Write it as YYYY-MM, for example 2026-11.")
    return text


def parse_begun_period(text: str) -> str:
    """``parse_period``, for what is shown of a month: raises ``InvalidRequest`` also for one that is still to come."""
    period, this_period = parse_period(text), period_of(now())
    if period > this_period:
        raise InvalidRequest(f"{period} has not begun yet. Choose a month up to {this_period}.")
    return period


def period_start(period: str) -> datetime:
    """The first moment of a month."""
    year, month = period.split("-")
    return datetime(int(year), int(month), 1, tzinfo=UTC)


def period_end(period: str) -> datetime:
    """The first moment of the next month, which is when the allowance resets."""
    start = period_start(period)
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def parse_day(text: str) -> date:
    """Return the day that ``text`` names as ``2026-11-30``; raise ``InvalidRequest`` otherwise."""
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        day = date.max
    # The last day of the calendar has no end, and other scripts have digits of their own.
    if day == date.max or not text.strip().isascii():
        raise InvalidRequest(f"{text!r} is no date. Write it as YYYY-MM-DD, for example 2027-01-31.")
    return day


def day_start(day: date) -> datetime:
    """The first moment of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def rfc3339(moment: datetime) -> str:
    """A moment as ``2026-12-01T00:00:00Z``."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
