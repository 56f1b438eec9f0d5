"""Assistant → All conversations: every earlier one can be found, and deleted after a question."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ownkey.accounts import conversations
from ownkey.node import Node
from tests.web.conftest import Acme, Browser

pytestmark = pytest.mark.anyio

PATH = "/assistant/conversations"


async def test_every_one_is_listed(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """However many there are, each is on one of the pages, newest first, and nobody else's is."""
    browser, user = client_for("user"), acme.actor("user")
    assert "No conversations" in (await browser.page(PATH)).text
    made = [await conversations.start(node.db, user, f"Question {number}") for number in range(101)]
    await conversations.start(node.db, acme.actor("owner"), "Of the owner")
    wanted, listed = PATH, []
    while wanted:
        page = await browser.page(wanted)
        listed += [link for link in page.links if link.startswith("/assistant/cnv_") and not link.endswith("/delete")]
        wanted = next((link for link in page.links if "before=" in link), "")
    assert listed == [f"/assistant/{each.id}" for each in reversed(made)]
    assert PATH in (await browser.page("/assistant")).links


async def test_deleting_asks_first(client_for: Callable[[str], Browser], node: Node, acme: Acme) -> None:
    """The question names the conversation, and is asked only of whose it is."""
    made = await conversations.start(node.db, acme.actor("user"), "What about tea?")
    question, browser = f"/assistant/{made.id}/delete", client_for("user")
    assert (await browser.page("/assistant")).form(question).method == "get"
    assert "What about tea? and everything in it is deleted" in (await browser.page(question)).text
    assert (await client_for("owner").get(question)).status_code == 404
    assert "deleted" in await browser.notice(await browser.send(question, on=question))
    assert "No conversations" in (await browser.page(PATH)).text
