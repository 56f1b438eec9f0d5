"""Every page, for every role that has it: no violation that axe finds, nothing wider than the window, keyboard too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.browser

SETTINGS = [
    *("account", "security", "workspace", "members", "integrations", "usage", "developer"),
    *("organization", "audit", "billing"),
]
OF_EVERYONE = [
    "/assistant",
    "/assistant/conversations",
    "/settings/account",
    "/settings/integrations",
    "/settings/usage",
]
OF_THE_OWNER = [
    *[f"/settings/{name}" for name in SETTINGS],
    "/settings/integrations/openai",
    "/settings/integrations/azure",
    "/settings/developer/tokens/new",
    "/confirm-password",
    "/nowhere",
]
OF_NOBODY = [
    "/sign-in",
    "/help",
    *[f"/help/{slug}" for slug in ("bring-your-own-key", "using-ai", "roles", "platforms")],
]

# 640 by 512 is what a window of 1280 by 1024 is at 200 % zoom.
WINDOWS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 1024}},
    "wide-dark": {"viewport": {"width": 1280, "height": 1024}, "color_scheme": "dark"},
    "zoomed": {"viewport": {"width": 640, "height": 512}},
    "phone": {"viewport": {"width": 360, "height": 740}},
    "phone-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
}


@pytest.fixture
def plan() -> str:
    """Large enough to have everything."""
    return "large"


# What axe finds depends on the layout and on the colours: of both, each kind is looked at once.
LOOKED_AT = ("wide", "phone-dark")


def fits(page: Page) -> None:
    """Nothing scrolls sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} is wider than the window"


def check(page: Page) -> None:
    """No violation, and nothing scrolls sideways."""
    fits(page)
    found = Axe().run(page).response["violations"]
    told = [f"{page.url} {one['id']}: {node['html']}" for one in found for node in one["nodes"]]
    assert told == []


@pytest.mark.parametrize("window", WINDOWS)
def test_pages_of_the_owner(window: str, signed_in: Callable[..., Page]) -> None:
    """The owner's pages, which are all there are."""
    page = signed_in("owner", **WINDOWS[window])
    for path in ["/assistant", *OF_THE_OWNER]:
        page.goto(path)
        (check if window in LOOKED_AT else fits)(page)


@pytest.mark.parametrize("role", ["user", "developer", "admin"])
def test_pages_of_the_others(role: str, signed_in: Callable[..., Page]) -> None:
    """Pages that look different without a right, and the page that says that one is missing."""
    page = signed_in(role, **WINDOWS["phone"])
    for path in [*OF_EVERYONE, "/settings/billing"]:
        page.goto(path)
        check(page)


@pytest.mark.parametrize("window", WINDOWS)
def test_pages_of_nobody(window: str, open_page: OpenPage) -> None:
    """What can be read without signing in."""
    page = open_page(**WINDOWS[window])
    for path in OF_NOBODY:
        page.goto(path)
        (check if window in LOOKED_AT else fits)(page)


@pytest.mark.parametrize("window", ["wide", "phone-dark"])
def test_states(window: str, signed_in: Callable[..., Page]) -> None:
    """What a page shows only at times: a key, a dialog, an error, a new token, an answer, numbers."""
    page = signed_in("owner", **WINDOWS[window])
    page.get_by_label("Message", exact=True).fill("Make a list")
    page.keyboard.press("Enter")
    expect(page.get_by_text("billed to the allowance")).to_be_visible()
    check(page)
    page.goto("/assistant/conversations")
    check(page)
    page.get_by_role("link", name="Delete Make a list").click()
    expect(page.get_by_role("heading", name="Delete this conversation?")).to_be_visible()
    check(page)
    page.goto("/settings/usage")
    page.get_by_text("Numbers by day").click()
    check(page)

    page.goto("/settings/integrations/openai")
    page.get_by_label("API Key").fill("sk-wrong-0123456789")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Nothing was saved.")).to_be_visible()
    check(page)
    page.get_by_label("API Key").fill("sk-demo-0123456789-0123456789")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Active", exact=True)).to_be_visible()
    check(page)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page)
    page.goto("/settings/integrations/openai/remove")
    check(page)

    page.goto("/settings/developer/tokens/new")
    page.get_by_label("Name").fill("Nightly report")
    page.get_by_role("button", name="Generate Token").click()
    expect(page.get_by_role("button", name="Copy and close")).to_be_visible()
    check(page)
    page.goto("/settings/developer")
    check(page)
    page.get_by_role("button", name="Rename Nightly report").click()
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    check(page)

    page.goto("/settings/members")
    page.get_by_label("Email").fill("new@example.com")
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.get_by_role("heading", name="Invitation link for new@example.com")).to_be_visible()
    check(page)


def test_by_keyboard_alone(signed_in: Callable[..., Page]) -> None:
    """A key is connected and removed without a pointer; the dialog takes the focus and gives it back."""
    page = signed_in("owner")
    page.goto("/settings/integrations")
    openai = page.get_by_role("region", name="OpenAI", exact=True)
    openai.get_by_role("button", name="Add API Key").focus()
    page.keyboard.press("Enter")
    expect(openai.get_by_label("API Key")).to_be_focused()
    page.keyboard.type("sk-demo-0123456789-0123456789")
    page.keyboard.press("Enter")
    expect(openai.get_by_text("Active", exact=True)).to_be_visible()
    remove = openai.get_by_role("button", name="Remove")
    remove.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(remove).to_be_focused()


def test_skip_link(signed_in: Callable[..., Page]) -> None:
    """The first thing the Tab key reaches leads past the navigation."""
    page = signed_in("user")
    page.goto("/settings/usage")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("window", ["wide", "phone-dark"])
def test_long_unbroken_names(window: str, signed_in: Callable[..., Page]) -> None:
    """Names and addresses without a space to break at stay inside the window, on every page that shows them."""
    page = signed_in("owner", **WINDOWS[window])
    for path in ("account", "organization", "workspace"):
        page.goto(f"/settings/{path}")
        page.get_by_role("textbox", name="name").first.fill("W" * 100)
        page.get_by_role("button", name="Save").first.click()
        expect(page.get_by_role("status").first).to_be_visible()
    page.goto("/settings/developer/tokens/new")
    page.get_by_label("Name").fill("T" * 100)
    page.get_by_role("button", name="Generate Token").click()
    fits(page)
    page.goto("/settings/members")
    page.get_by_label("Email").fill(f"{'e' * 64}@{'d' * 60}.{'d' * 60}.test")
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.get_by_role("heading", name="Invitation link for")).to_be_visible()
    fits(page)
    for path in OF_THE_OWNER:
        page.goto(path)
        fits(page)
