"""Settings → Usage in a real browser, with what a running product finds out by itself: alerts and prices."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.test_accessibility import WINDOWS, check
from tests.browser.test_story import FIRST_KEY, ask, section

pytestmark = pytest.mark.browser

FOUND_WITHIN = 40.0


def appears_on_usage(page: Page, what: Locator) -> None:
    """Open the page again and again until it shows this."""
    page.goto("/settings/usage")
    deadline = time.monotonic() + FOUND_WITHIN
    while what.count() == 0 and time.monotonic() < deadline:
        page.wait_for_timeout(500)
        page.reload()
    expect(what).to_be_visible()


@pytest.mark.parametrize("window", ["wide", "phone-dark"])
def test_alerts_and_costs(window: str, signed_in: Callable[..., Page]) -> None:
    """Tokens that are used raise an alert, and a call on an own key has a cost; the page fits and is accessible."""
    page = signed_in("owner", **WINDOWS[window])
    page.goto("/settings/usage")
    expect(page.get_by_text("Not reached")).to_have_count(3)
    for _ in range(2):
        page.goto("/assistant")
        expect(ask(page, "Tell me about tea in 1000 words")).to_contain_text("billed to the allowance")
    reached = page.locator("dl", has_text="50 %").locator("time")
    appears_on_usage(page, reached)
    expect(page.get_by_text("so nobody gets a message")).to_be_visible()
    check(page)

    page.goto("/settings/integrations")
    openai = section(page, "OpenAI")
    openai.get_by_role("button", name="Add API Key").click()
    openai.get_by_label("API Key").fill(FIRST_KEY)
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Active", exact=True)).to_be_visible()
    page.goto("/assistant")
    expect(ask(page, "Tell me about tea in 1000 words")).to_contain_text("billed to your organization's key")
    cost = page.get_by_role("region", name="Tokens by provider").get_by_text("$0.0")
    appears_on_usage(page, cost)
    check(page)
