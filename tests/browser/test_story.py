"""The main story, end to end in a real browser: on the allowance, beyond it, and back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import MONTHLY_TOKENS

pytestmark = pytest.mark.browser

MANAGED = "AI provider keys are managed by workspace admins."
FIRST_KEY = "sk-demo-acme-first-key"
SECOND_KEY = "sk-demo-acme-second-key"


def ask(page: Page, question: str) -> Locator:
    """Send a message and wait for the end of the answer or the refusal; the last bubble."""
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden(timeout=20_000)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    return page.locator(".bubble").last


def tokens_used(page: Page) -> int:
    """What Settings → Usage says is used of the allowance."""
    page.goto("/settings/usage")
    found = re.search(r"([\d,]+) of ([\d,]+) tokens used", page.get_by_role("main").inner_text())
    assert found
    assert int(found[2].replace(",", "")) == MONTHLY_TOKENS
    return int(found[1].replace(",", ""))


def section(page: Page, name: str) -> Locator:
    """A provider's region on Settings → Integrations."""
    return page.get_by_role("region", name=name, exact=True)


def test_story(signed_in: Callable[..., Page]) -> None:
    """The allowance serves until it is spent; an own key lifts the cap at once; removing it brings the cap back."""
    page = signed_in("owner")

    # On the plan's allowance, with nothing configured.
    answer = ask(page, "Tell me about tea in 100 words")
    expect(answer).to_contain_text("simulated")
    expect(answer).to_contain_text("billed to the allowance")
    used = tokens_used(page)
    assert 0 < used < MONTHLY_TOKENS

    # Until it is spent; the refusal says when it resets and what the owner can do.
    page.goto("/assistant")
    for _ in range(20):
        answer = ask(page, "Tell me about tea in 1000 words")
        if "has used its AI tokens" in answer.inner_text():
            break
    expect(answer).to_contain_text("resets on")
    expect(answer.get_by_role("link", name="Connect your own provider key")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Tell me about tea in 1000 words")

    # Connect a key.
    answer.get_by_role("link", name="Connect your own provider key").click()
    openai = section(page, "OpenAI")
    openai.get_by_role("button", name="Add API Key").click()
    openai.get_by_label("API Key").fill(FIRST_KEY)
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Active", exact=True)).to_be_visible()
    expect(openai.get_by_text("sk-demo-••••••••")).to_be_visible()
    assert FIRST_KEY not in page.content()

    # It answers again, and the allowance does not move.
    used = tokens_used(page)
    page.goto("/assistant")
    expect(ask(page, "Tell me about tea in 1000 words")).to_contain_text("billed to your organization's key")
    assert tokens_used(page) == used

    # A bad key is refused in the provider's words; a good one replaces the old.
    page.goto("/settings/integrations")
    fingerprint = openai.locator("dd").nth(1).inner_text()
    openai.get_by_role("button", name="Update API Key").click()
    openai.get_by_label("API Key").fill("sk-wrong-0123456789-0123456789")
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Nothing was saved.")).to_be_visible()
    expect(openai.get_by_label("API Key")).to_have_value("")
    openai.get_by_label("API Key").fill(SECOND_KEY)
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Active", exact=True)).to_be_visible()
    expect(openai.locator("dd").nth(1)).not_to_have_text(fingerprint)

    # Remove asks first, and can be left alone.
    openai.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog", name="Remove the OpenAI key?")
    expect(dialog).to_contain_text("falls back to your plan's allowance")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    openai.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(openai.get_by_role("button", name="Add API Key")).to_be_visible()
    expect(page.get_by_text("was removed and destroyed")).to_be_visible()

    # Back on the allowance, and on the little that is left of it.
    page.goto("/assistant")
    back = re.compile("billed to the allowance|has used its AI tokens")
    expect(ask(page, "Tell me about tea in 1000 words")).to_contain_text(back)
    assert used <= tokens_used(page) <= MONTHLY_TOKENS


@pytest.mark.parametrize("role", ["user", "developer"])
def test_others_read_and_do_not_change(role: str, signed_in: Callable[..., Page]) -> None:
    """A user and a developer see the page and who manages keys; a form sent past the page is 403."""
    page = signed_in(role)
    page.goto("/settings/integrations")
    expect(page.get_by_text(MANAGED)).to_be_visible()
    expect(section(page, "OpenAI")).to_be_visible()
    expect(page.get_by_role("button", name="Add API Key")).to_have_count(0)
    status = page.evaluate(
        """async (key) => {
            const csrf = document.querySelector("input[name=csrf]").value;
            const body = new URLSearchParams({ csrf, api_key: key });
            return (await fetch("/settings/integrations/openai", { method: "POST", body })).status;
        }""",
        FIRST_KEY,
    )
    assert status == 403
    page.reload()
    expect(section(page, "OpenAI").get_by_text("Active", exact=True)).to_have_count(0)


def test_a_refused_key_signs_nobody_out(signed_in: Callable[..., Page]) -> None:
    """When the provider refuses the organization's key, a member reads whose key it was and stays signed in."""
    admin, user = signed_in("admin"), signed_in("user")
    admin.goto("/settings/integrations")
    openai = section(admin, "OpenAI")
    openai.get_by_role("button", name="Add API Key").click()
    openai.get_by_label("API Key").fill("sk-wrong-0123456789-0123456789")
    openai.get_by_label("Save without checking").check()
    openai.get_by_role("button", name="Save").click()
    expect(openai.get_by_text("Unverified", exact=True)).to_be_visible()

    refusal = ask(user, "Hello")
    expect(refusal).to_contain_text("OpenAI refused your organization's API key")
    expect(refusal).to_contain_text("Ask Admin Name, Owner Name to update or remove it.")
    user.reload()
    expect(user.get_by_label("Message", exact=True)).to_be_visible()
    assert tokens_used(user) == 0

    admin.reload()
    expect(openai.get_by_text("Rejected", exact=True)).to_be_visible()
