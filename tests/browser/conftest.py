"""The whole product as a process of its own, a simulated provider, and a Chromium for each person."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ownkey.access import Actor, Role
from ownkey.accounts import links, memberships, organizations, sign_in
from ownkey.db.engine import Database, database_url
from ownkey.demo.simulated_provider import PLATFORM_KEYS, SimulatedProvider
from ownkey.plans import Catalogue, Plan, read_catalogue
from tests.fixtures.browser import CHROMIUM_OPTIONS

PASSWORD = "violet lamps over quiet harbours"
STARTS_WITHIN = 30.0
# Enough for a few short answers, so that a story reaches the end of it.
MONTHLY_TOKENS = 3_000
_PLANS = f"""
[plans.free]
name = "Free"
monthly_tokens = {MONTHLY_TOKENS}
workspaces = 1
included_members = 10

[plans.large]
name = "Large"
monthly_tokens = 50_000_000
workspaces = 10
included_members = 10
api_access = true
monthly_requests_per_token = 1_000_000
month_price_cents = 14_900
year_price_cents = 149_000
"""
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Installation:
    """A running product: its address, its data, and its plans."""

    url: str
    data_dir: Path
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class People:
    """An organization with one person per role; ``email[role]`` signs in with ``PASSWORD``."""

    organization_id: str
    workspace_id: str
    email: dict[str, str]


@pytest.fixture(scope="session")
def provider() -> Iterator[SimulatedProvider]:
    """The AI provider behind it."""
    with SimulatedProvider(pause=0.001) as provider:
        yield provider


@pytest.fixture(scope="session")
def installation(provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """``ownkey serve`` on a free port, with a platform key for OpenAI."""
    folder = tmp_path_factory.mktemp("installation")
    plans = folder / "plans.toml"
    plans.write_text(_PLANS)
    url = f"http://127.0.0.1:{_free_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OWNKEY_DATA_DIR": str(folder / "data"),
        "OWNKEY_PUBLIC_URL": url,
        "OWNKEY_PLANS_FILE": str(plans),
        "OWNKEY_APP_NAME": "Acme AI",
        "OWNKEY_METRICS_ADDRESS": "",
        "OWNKEY_SQLITE_SYNCHRONOUS": "NORMAL",
        "OWNKEY_PLATFORM_KEY_OPENAI": PLATFORM_KEYS["openai"],
        "OWNKEY_BASE_URL_OPENAI": provider.base_url("openai"),
        "OWNKEY_BASE_URL_ANTHROPIC": provider.base_url("anthropic"),
    }
    log = folder / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "ownkey", "serve", "--port", url.rsplit(":", 1)[1]]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
    try:
        _wait_until_ready(url, process, log)
        yield Installation(url, folder / "data", read_catalogue(plans))
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def plan() -> str:
    """The plan of the test's organization; parametrize it for another."""
    return "free"


@pytest.fixture
def acme(installation: Installation, plan: str) -> People:
    """A new organization in the running product."""
    # In a thread: Playwright keeps an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_make(installation, plan))).result()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the tests of a module; what they do stays in contexts of their own.

    Not for the whole session: as long as it is there its event loop runs in this thread, and no other test's can.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, installation: Installation) -> Iterator[OpenPage]:
    """A new browser window, of nobody; takes the options of a Playwright context.

    The test fails if a page wrote an error to its console, or asked another host for anything.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(base_url=installation.url, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on("console", lambda told: wrong.append(f"{page.url}: {told.text}") if _is_wrong(told) else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((installation.url, "data:")) else wrong.append(asked.url),
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def signed_in(open_page: OpenPage, acme: People) -> Callable[..., Page]:
    """A browser window of the person with a role, on the assistant."""

    def signed_in(role: str, **options: object) -> Page:
        page = open_page(**options)
        page.goto("/sign-in")
        page.get_by_label("Email").fill(acme.email[role])
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/assistant")
        return page

    return signed_in


def _is_wrong(told: object) -> bool:
    # A refusal that a test provokes is told on the console, too; it is the test's business.
    kind, text = getattr(told, "type", ""), getattr(told, "text", "")
    return kind == "error" and "Failed to load resource" not in text


async def _make(installation: Installation, plan: str) -> People:
    db = Database(database_url(installation.data_dir, None))
    try:
        return await _make_in(db, installation.catalogue, installation.catalogue[plan])
    finally:
        await db.close()


async def _make_in(db: Database, catalogue: Catalogue, plan: Plan) -> People:
    number = next(_numbers)
    email = {role.word: f"{role.word}{number}@acme.test" for role in Role}
    made = await organizations.create(db, Actor.operator(), catalogue, "Acme", email["owner"], plan.code)
    operator = Actor.operator(made.organization.id, made.workspace.id)
    for role in (Role.USER, Role.DEVELOPER, Role.ADMIN):
        await memberships.add(db, operator, email[role.word], role, made.workspace.id, plan)
    for word, address in email.items():
        async with db.transaction() as tx:
            link = await links.make_link(tx, address)
        await sign_in.redeem_link(db, link, PASSWORD, name=f"{word.capitalize()} Name")
    return People(made.organization.id, made.workspace.id, email)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz/ready", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(f"the product did not start:\n{log.read_text()}", pytrace=False)
