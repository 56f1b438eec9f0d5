"""Settings in a real browser: what works without a script, and what a script adds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def plan() -> str:
    """One with API access."""
    return "large"


def test_keys_and_members_without_script(signed_in: Callable[..., Page]) -> None:
    """Without a script the dialogs are pages, and a role is changed with a button."""
    page = signed_in("owner", java_script_enabled=False)
    page.goto("/settings/integrations")
    openai = page.get_by_role("region", name="OpenAI", exact=True)
    openai.get_by_role("button", name="Add API Key").click()
    openai.get_by_label("API Key").fill("sk-demo-0123456789-0123456789")
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Active", exact=True)).to_be_visible()
    openai.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("heading", name="Remove the OpenAI key?")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(openai.get_by_role("button", name="Add API Key")).to_be_visible()
    page.goto("/settings/members")
    page.get_by_label("General: role of User Name").select_option("developer")
    page.locator("form", has=page.get_by_label("General: role of User Name")).get_by_role("button").click()
    expect(page.get_by_text("User Name is now Developer in General.")).to_be_visible()


def test_roles(signed_in: Callable[..., Page]) -> None:
    """A role chosen is in effect at once and confirmed; with the keyboard it waits for Enter or a button."""
    page = signed_in("admin")
    page.goto("/settings/members")
    role = page.get_by_label("General: role of User Name")
    role.select_option("admin")
    expect(page.get_by_text("User Name is now Admin in General.")).to_be_visible()
    expect(role).to_have_value("admin")
    change = page.get_by_role("button", name="Change role")
    expect(change).to_be_hidden()
    role.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(role).to_have_value("user")
    page.keyboard.press("Tab")
    expect(change).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("User Name is now User in General.")).to_be_visible()
    role.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_text("User Name is now Developer in General.")).to_be_visible()
    role.focus()
    page.keyboard.press("ArrowDown")
    expect(change).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(change).to_be_hidden()


def test_token(signed_in: Callable[..., Page]) -> None:
    """A token is generated, copied to the clipboard with one button, and gone from the page after it."""
    page = signed_in("owner")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/settings/developer")
    page.get_by_role("button", name="Generate Token").click()
    page.get_by_label("Name").fill("Nightly report")
    page.get_by_role("button", name="Generate Token").click()
    token = page.get_by_label("API token").input_value()
    assert token.startswith("ownkey_")
    page.get_by_role("button", name="Copy and close").click()
    expect(page.get_by_label("API token")).to_have_count(0)
    assert page.evaluate("navigator.clipboard.readText()") == token
    assert token not in page.content()
    page.get_by_role("button", name="Revoke Nightly report").click()
    page.get_by_role("dialog", name="Revoke Nightly report?").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("No tokens yet")).to_be_visible()


@pytest.mark.parametrize("stops", ["with Escape", "with the browser's button"])
def test_a_form_whose_sending_was_stopped(signed_in: Callable[..., Page], stops: str) -> None:
    """A form is sent once, however often its button is pressed; when that was stopped it can be sent again."""
    page = signed_in("user")
    page.clock.install()
    page.goto("/settings/account")
    sent: list[str] = []

    def stop(route: Route) -> None:
        sent.append(route.request.method)
        route.fulfill(status=204)  # the browser stays where it is, as when it was stopped

    page.route("**/settings/account", stop)
    save = page.get_by_role("button", name="Save")
    save.click()
    save.click()
    expect(save).to_have_attribute("aria-busy", "true")
    assert sent == ["POST"]
    if stops == "with Escape":
        page.keyboard.press("Escape")
    else:
        page.clock.fast_forward(10_000)
    expect(save).not_to_have_attribute("aria-busy", "true")
    page.unroute("**/settings/account")
    save.click()
    expect(page.get_by_text("Your name is saved.")).to_be_visible()
