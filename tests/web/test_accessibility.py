"""In a real browser: no page has a fault that axe finds or overflows a phone; everything works by keyboard."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Literal

import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe
from fastapi import FastAPI
from playwright.async_api import Browser, ConsoleMessage, Error, Page, async_playwright

from ownkey.access import Role
from ownkey.accounts import invitations, links, workspaces
from ownkey.node import Node
from ownkey.web.urls import PAGES
from tests.fixtures.browser import CHROMIUM_OPTIONS
from tests.web.conftest import PASSWORD, Acme

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

# The assistant needs the gateway, which is not here; a file is no page.
CLOSED = [
    page.path
    for page in PAGES
    if page.method == "GET"
    and "{" not in page.path
    and page.path not in ("/", "/settings", "/assistant", "/settings/audit.csv")
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
async def address(web_app: FastAPI) -> AsyncIterator[str]:
    """The pages on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(web_app, lifespan="off", ws="none", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """This machine's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser
        await browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
async def test_every_page(
    browser: Browser, address: str, acme: Acme, node: Node, width: int, scheme: Literal["dark", "light"]
) -> None:
    """At 360 and 1280 pixels, in dark and light, with its menus open, no page has a fault that axe finds."""
    faults: list[str] = []
    for token, paths in ((acme.session_tokens["owner"], [*CLOSED, "/nothing"]), ("", await _open_paths(node, acme))):
        context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        if token:
            await context.add_cookies([{"name": "session", "value": token, "url": address}])
        page = await context.new_page()
        page.on("pageerror", partial(_note, faults))
        page.on("console", partial(_note_refusal, faults))
        for path in paths:
            await page.goto(address + path)
            faults += [f"{path}: {fault}" for fault in await _faults(page)]
        await context.close()
    assert faults == []


def _note(faults: list[str], error: Error) -> None:
    faults.append(f"script: {error}")


def _note_refusal(faults: list[str], message: ConsoleMessage) -> None:
    if "Content Security Policy" in message.text:
        faults.append(message.text)


async def _open_paths(node: Node, acme: Acme) -> list[str]:
    _, invitation = await invitations.create(
        node.db, acme.actor("admin"), "new@acme.test", Role.USER, acme.workspace.id
    )
    async with node.db.transaction() as tx:
        link = await links.make_link(tx, "user@acme.test")
    return ["/sign-in", f"/sign-in/{link}", f"/invitations/{invitation}", "/invitations/unknown", "/help"]


async def _faults(page: Page) -> list[str]:
    await page.evaluate("for (const menu of document.querySelectorAll('details[data-menu]')) menu.open = true")
    found = await Axe().run(page, options=RULES)
    faults = [f"{fault['id']}: {fault['nodes'][0]['html'][:150]}" for fault in found.response["violations"]]
    if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        faults.append("wider than the window")
    return faults


async def test_by_keyboard(browser: Browser, address: str, acme: Acme, node: Node) -> None:
    """Signing in, switching the workspace and signing out work with the keyboard alone, by what is written there."""
    await workspaces.create(node.db, acme.actor("owner"), node.catalogue["professional"], "Research")
    page = await browser.new_page()
    await page.goto(f"{address}/settings/workspace")
    await page.get_by_label("Email").fill("owner@acme.test")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{address}/settings/workspace")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"

    switcher = page.get_by_label("Workspace: General, Acme")
    await switcher.focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Research", exact=False).first.focus()
    await page.keyboard.press("Escape")
    assert await switcher.evaluate("summary => summary === document.activeElement && !summary.parentElement.open")
    await page.keyboard.press("Enter")
    await page.locator("details[open]").get_by_role("button", name="Research").press("Enter")
    await page.get_by_text("You are in Research now.").wait_for()
    await page.get_by_label("Your menu").press("Enter")
    await page.get_by_role("button", name="Sign out").press("Enter")
    await page.wait_for_url(f"{address}/sign-in")


async def test_without_scripts(browser: Browser, address: str, acme: Acme) -> None:
    """Forms and menus work without our scripts; buttons that need one are not shown."""
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{address}/sign-in?next=/settings/account")
    assert await page.get_by_role("button").all_inner_texts() == ["Sign in"]
    await page.get_by_label("Email").fill("owner@acme.test")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Name").fill("Olivia")
    await page.get_by_role("button", name="Save").click()
    assert await page.get_by_role("status").inner_text() == "Your name is saved."
    await context.close()
