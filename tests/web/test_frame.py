"""The frame around every page: title, one heading, landmarks, nothing inline, nothing from another host."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine

from ownkey import clock
from ownkey.web import formatting, navigation, rendering
from ownkey.web.urls import PAGES
from tests.web.conftest import Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

PLAIN = [page.path for page in PAGES if page.method == "GET" and "{" not in page.path and page.path != "/assistant"]


async def test_every_page_has_its_frame(client_for: Callable[[str], Browser]) -> None:
    """Every page has a title with the application's name, one h1, a header, a main, and a skip link."""
    browser = client_for("owner")
    for path in PLAIN:
        reply = await browser.client.get(path, follow_redirects=True)
        if not reply.headers["content-type"].startswith("text/html") or "/assistant" in str(reply.url):
            continue
        page = await browser.page(path)
        assert page.title.endswith("· Acme AI"), path
        assert len(page.h1) == 1, (path, page.h1)
        assert {"header", "main"} <= set(page.landmarks), path
        assert page.links[0] == "#content", path


async def test_nothing_inline_and_nothing_foreign(client_for: Callable[[str], Browser]) -> None:
    """No page has a script or style of its own, nor loads anything from another host."""
    for role, paths in (("owner", PLAIN), ("anonymous", ["/sign-in", "/invitations/x", "/nothing"])):
        for path in paths:
            reply = await client_for(role).client.get(path, follow_redirects=True)
            if not reply.headers["content-type"].startswith("text/html"):
                continue
            page = Page(reply.text)
            assert page.inline_code == [], path
            assert not [found for found in page.references if found and not found.startswith("/")], path
            assert not [found for found in page.references if found.startswith("//")], path


async def test_every_form_that_changes_something_has_the_token(client_for: Callable[[str], Browser]) -> None:
    """Every form sent by POST carries the CSRF token; no form sent by GET does, as it would stand in the address."""
    browser = client_for("owner")
    for path in PLAIN:
        reply = await browser.client.get(path, follow_redirects=True)
        for form in Page(reply.text).forms if "html" in reply.headers["content-type"] else []:
            assert ("csrf" in form.fields) is (form.method == "post"), (path, form)


def test_icons_are_there() -> None:
    """Every icon of the navigation is a file, drawn in the colour of the text around it."""
    for _, entries in navigation.SETTINGS:
        for entry in entries:
            assert "currentColor" in rendering.icon(entry.icon)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (999, "999"), (1_000, "1K"), (1_999, "1.9K"), (100_000, "100K"), (2_500_000, "2.5M"), (3 * 10**9, "3B")],
)
def test_compact_numbers_round_down(value: int, written: str) -> None:
    """A shortened number never says more than there is."""
    assert formatting.compact(value) == written


@pytest.mark.parametrize(
    ("cents", "currency", "written"),
    [(2900, "USD", "$29"), (2950, "EUR", "€29.50"), (99_900_000, "USD", "$999,000"), (500, "CHF", "CHF 5")],
)
def test_money(cents: int, currency: str, written: str) -> None:
    """Whole amounts have no decimals; a currency without a sign is named."""
    assert formatting.money(cents, currency) == written


def test_times() -> None:
    """Times are told in UTC, with the exact moment for programs; no time at all has a word."""
    moment = datetime(2026, 11, 7, 14, 3, tzinfo=UTC)
    assert formatting.when(moment) == '<time datetime="2026-11-07T14:03:00Z">7 Nov 2026, 14:03 UTC</time>'
    assert formatting.when(moment, zone=False).endswith("14:03</time>")
    assert "Never" in formatting.when(None)
    assert "<b>" not in formatting.when(None, "<b>")
    assert formatting.day(date(2026, 11, 7)) == formatting.day(moment) == "7 Nov 2026"
    assert formatting.month("2026-11") == "November 2026"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "just now"), (-5, "just now"), (61, "1 minute ago"), (7_300, "2 hours ago"), (3 * 86_400, "3 days ago")],
)
def test_how_long_ago(seconds: int, words: str) -> None:
    """A moment is told by how long ago it was; the exact time is its tool tip."""
    with time_machine.travel(datetime(2026, 11, 7, 14, 3, tzinfo=UTC), tick=False):
        told = formatting.ago(clock.now() - timedelta(seconds=seconds))
    assert words in told
    assert "title=" in told
    assert "Never" in formatting.ago(None)


def test_one_and_many() -> None:
    """Nouns agree with their number."""
    assert [formatting.plural(n, "member") for n in (0, 1, 1_000)] == ["0 members", "1 member", "1,000 members"]
    assert formatting.plural(2, "entry", "entries") == "2 entries"


async def test_a_notice_is_signed(client_for: Callable[[str], Browser]) -> None:
    """A notice that this browser's session did not sign is not shown; one that is broken does no harm."""
    browser = client_for("user")
    for forged in ("WyJkYW5nZXIiLCAiUGF5IG1lIl0=.00", "x", ".", "x.y"):
        browser.keep("notice", forged)
        page = await browser.page("/settings/account")
        assert "Pay me" not in page.text
        assert "notice" not in page.html.split("<main", 1)[1].split("<nav", 1)[0]
