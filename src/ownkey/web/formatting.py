"""How pages write numbers, money and times."""

from __future__ import annotations

from datetime import UTC, date, datetime

from markupsafe import Markup

from ownkey import clock

_UNITS = ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K"))
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}


def number(value: int) -> str:
    """``1234567`` as ``1,234,567``."""
    return f"{value:,}"


def compact(value: int) -> str:
    """``1234567`` as ``1.2M``: for labels where every digit would be noise. Rounds down, so it never overstates."""
    for size, unit in _UNITS:
        if value >= size:
            tenths = value * 10 // size
            return f"{tenths // 10}{unit}" if tenths % 10 == 0 or tenths >= 1000 else f"{tenths / 10:.1f}{unit}"
    return str(value)


def money(cents: int, currency: str) -> str:
    """``2900`` as ``$29`` and ``2950`` as ``$29.50``; a currency without a sign here stands before the amount."""
    amount = f"{cents // 100:,}" if cents % 100 == 0 else f"{cents / 100:,.2f}"
    sign = _SIGNS.get(currency)
    return f"{sign}{amount}" if sign else f"{currency} {amount}"


def micros(amount: int, unpriced: int = 0) -> str:
    """``1234567`` millionths of a dollar as ``$1.23``, a small amount as ``$0.0012``; never a known cost as nothing.

    ``unpriced`` is how many requests beside it have no known price; if that is all there is, there is no amount.
    """
    if amount >= 999_950:
        cents = (amount + 5_000) // 10_000
        told = f"${cents // 100:,}.{cents % 100:02d}"
    elif amount >= 100 or amount == 0:
        told = f"${amount / 1_000_000:.4f}" if amount else "$0.00"
    else:
        told = "under $0.0001"
    if not unpriced:
        return told
    return f"{told} and {plural(unpriced, 'request')} of unknown price" if amount else "Unknown price"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 member``, ``2 members``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def day(moment: datetime | date) -> str:
    """``7 Nov 2026``; a moment is told by its day in UTC."""
    if isinstance(moment, datetime):
        moment = moment.astimezone(UTC).date()
    return f"{moment.day} {moment:%b %Y}"


def month(period: str) -> str:
    """``2026-11`` as ``November 2026``."""
    return f"{clock.period_start(period):%B %Y}"


def when(moment: datetime | None, never: str = "Never", *, zone: bool = True) -> Markup:
    """A ``<time>`` element such as ``7 Nov 2026, 14:03 UTC``, or the word for no time at all."""
    if moment is None:
        return Markup('<span class="muted">{}</span>').format(never)
    told = f"{day(moment)}, {moment.astimezone(UTC):%H:%M}{' UTC' if zone else ''}"
    return Markup('<time datetime="{}">{}</time>').format(clock.rfc3339(moment), told)


def ago(moment: datetime | None, never: str = "Never") -> Markup:
    """A ``<time>`` element such as ``3 hours ago``, whose tool tip is the exact time."""
    if moment is None:
        return when(None, never)
    seconds = max(0, int((clock.now() - moment).total_seconds()))
    told = "just now" if seconds < 60 else _ago(seconds)
    exact = f"{day(moment)}, {moment.astimezone(UTC):%H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(clock.rfc3339(moment), exact, told)


def _ago(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{plural(seconds // size, unit)} ago"
    return "just now"
