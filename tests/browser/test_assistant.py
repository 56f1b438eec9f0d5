"""The assistant in a real browser: keys, Stop, the history, and life without a script."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, Installation, People

pytestmark = pytest.mark.browser


@pytest.fixture
def plan() -> str:
    """Large enough to ask freely."""
    return "large"


def test_keys(signed_in: Callable[..., Page]) -> None:
    """Enter sends, Shift+Enter starts a line; the answer follows, and the box is ready for the next question."""
    page = signed_in("user")
    box = page.get_by_label("Message", exact=True)
    expect(box).to_be_focused()
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    expect(box).to_have_value("First line\nsecond line")
    page.keyboard.press("Enter")
    expect(page.get_by_text("billed to the allowance")).to_be_visible()
    expect(page.locator(".bubble-user")).to_have_text("You: First line\nsecond line")
    expect(box).to_be_focused()
    expect(box).to_have_value("")


def test_history(signed_in: Callable[..., Page]) -> None:
    """A conversation gets an address at once, is listed, opens again as it was, and can be deleted."""
    page = signed_in("user")
    page.get_by_label("Message", exact=True).fill("What about tea?")
    page.keyboard.press("Enter")
    expect(page.get_by_text("billed to the allowance")).to_be_visible()
    page.wait_for_url("**/assistant/cnv_*")
    answer = page.locator(".bubble-assistant").inner_text().splitlines()[0]
    page.goto("/assistant")
    page.get_by_role("link", name="What about tea?").click()
    expect(page.locator(".bubble-assistant")).to_contain_text(answer.removeprefix("Assistant: "))
    page.get_by_role("button", name="Delete What about tea?").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("The conversation is deleted.")).to_be_visible()
    expect(page.get_by_role("link", name="What about tea?")).to_have_count(0)


def test_stop(signed_in: Callable[..., Page]) -> None:
    """Stop ends the answer where it stands; what was written stays, counts, and is there after a reload."""
    page = signed_in("owner")
    page.get_by_label("Message", exact=True).fill("Tell me about tea in 4000 words")
    page.keyboard.press("Enter")
    answer = page.locator(".bubble-assistant")
    expect(answer).to_contain_text("simulated")
    # By keyboard: a click waits for a page that stands still, and under load this one moves until the answer ends.
    page.get_by_role("button", name="Stop").press("Enter")
    expect(answer).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    length = len(answer.inner_text())
    page.wait_for_url("**/assistant/cnv_*")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    time.sleep(0.5)
    assert len(answer.inner_text()) == length
    page.reload()
    expect(page.locator(".bubble-assistant")).to_contain_text("simulated")
    page.goto("/settings/usage")
    used = re.search(r"([\d,]+) of 50,000,000 tokens used", page.get_by_role("main").inner_text())
    assert used
    assert 0 < int(used[1].replace(",", "")) < 4_000  # the whole answer would have been over 5,000


def test_a_question_is_not_lost(signed_in: Callable[..., Page], acme: People) -> None:
    """Sent after the session has ended, a question stays in the box, and can be sent after signing in elsewhere."""
    page, text = signed_in("user"), "What I thought about for ten minutes.\nAnd more."
    box = page.get_by_label("Message", exact=True)
    page.context.clear_cookies()
    box.fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Sign in first.")
    expect(box).to_have_value(text)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open this page in a new tab").click()
    tab = opened.value
    tab.get_by_label("Email").fill(acme.email["user"])
    tab.get_by_label("Password", exact=True).fill(PASSWORD)
    tab.get_by_role("button", name="Sign in").click()
    tab.wait_for_url("**/assistant")
    page.bring_to_front()
    box.press("Enter")
    expect(page.get_by_text("billed to the allowance")).to_be_visible()
    expect(page.locator(".bubble-user")).to_have_text(f"You: {text}")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_without_script(signed_in: Callable[..., Page], installation: Installation) -> None:
    """Without a script a question is a plain form: the page comes back with the answer."""
    page = signed_in("user", java_script_enabled=False)
    page.get_by_label("Message", exact=True).fill("What about tea?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/assistant/cnv_*")
    assert page.url.startswith(installation.url)
    expect(page.locator(".bubble-assistant")).to_contain_text("simulated")
    expect(page.get_by_text("Answered by OpenAI gpt-5-mini, billed to the allowance.")).to_be_visible()
