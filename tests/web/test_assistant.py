"""The assistant: answers through the metered path, keeps one's own history, and says what to do when it cannot."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from fastapi import FastAPI
from sqlalchemy import URL, insert

from ownkey import clock
from ownkey.accounts import conversations
from ownkey.app import Application, open_application
from ownkey.credentials import Secret
from ownkey.db.tables import allowances
from ownkey.gateway.dialects.dialect import Message
from ownkey.metering import usage_events
from ownkey.node import Node
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.settings import read_settings
from ownkey.vault import provider_keys
from ownkey.web.pages import assistant
from tests.fakes.provider import FakeProvider
from tests.web.conftest import Acme, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

SEND = "/assistant/messages"
PLATFORM_KEY = "sk-proj-the-operators-own-key"
OWN_KEY = "sk-proj-7hQ2mZx9LrT4vB8nYc3KdW6sPfJ1aE5uG0"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The provider behind the assistant."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def application(
    sqlite_url: URL, tmp_path: Path, public_url: str, provider: FakeProvider
) -> AsyncIterator[Application]:
    """The whole application, with a platform key for OpenAI."""
    settings = read_settings(
        data_dir=tmp_path,
        public_url=public_url,
        platform_keys={"openai": Secret(PLATFORM_KEY)},
        base_urls={"openai": provider.url, "anthropic": provider.url},
        sqlite_synchronous="NORMAL",
    )
    async with await open_application(settings) as application:
        yield application


@pytest.fixture
def node(application: Application) -> Node:
    """The application's node."""
    return application.node


@pytest.fixture
def web_app(application: Application) -> FastAPI:
    """The application's pages."""
    return application.asgi


async def ask(browser: Browser, text: str, conversation: str = "") -> list[dict[str, Any]]:
    """Ask as the script does; the events of the answer."""
    reply = await browser.client.post(
        SEND,
        data={"csrf": await browser.csrf(), "message": text, "conversation": conversation},
        headers={"origin": browser.origin, "accept": "text/event-stream, application/problem+json"},
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [json.loads(event.removeprefix("data: ")) for event in reply.text.split("\n\n") if event]


async def refused(browser: Browser, text: str = "Hello") -> tuple[int, dict[str, Any]]:
    """Ask as the script does, and be refused: status and problem document."""
    reply = await browser.client.post(
        SEND,
        data={"csrf": await browser.csrf(), "message": text, "conversation": ""},
        headers={"origin": browser.origin, "accept": "text/event-stream, application/problem+json"},
    )
    return reply.status_code, reply.json()


async def use_up(node: Node, acme: Acme, left: int = 0) -> None:
    """Leave nothing of the month's allowance, or so many tokens."""
    granted = node.catalogue["professional"].monthly_tokens
    async with node.db.transaction() as tx:
        await tx.execute(
            insert(allowances).values(
                organization_id=acme.organization.id,
                period=clock.period_of(clock.now()),
                granted_tokens=granted,
                used_tokens=granted - left,
                reserved_tokens=0,
                excess_tokens=0,
            )
        )


async def connect_key(node: Node, acme: Acme, key: str = OWN_KEY) -> None:
    """Connect Acme's own OpenAI key."""
    provider = registry.PROVIDERS["openai"]
    await provider_keys.save(node.db, node.keyring, acme.actor("admin"), provider, Secret(key), Health.ACTIVE)


async def test_streamed_answer(
    provider: FakeProvider, node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """An answer comes piece by piece, then whole as clean HTML; it is metered, and billed to the allowance."""
    provider.script(text="**Hello** there, <b>friend</b>.")
    user = client_for("user")
    events = await ask(user, "Say hello")
    assert events[0]["kind"] == "begin"
    assert events[0]["served_by"] == "OpenAI gpt-5-mini, billed to the allowance"
    assert "".join(event["text"] for event in events if event["kind"] == "text") == "**Hello** there, <b>friend</b>."
    assert len([event for event in events if event["kind"] == "text"]) > 1
    assert events[-1]["kind"] == "end"
    assert "<strong>Hello</strong> there, &lt;b&gt;friend&lt;/b&gt;." in events[-1]["html"]
    assert "tokens left this month" in events[-1]["status"]
    totals = await usage_events.totals(node.db, acme.actor("user"), clock.period_of(clock.now()))
    assert (totals.events, totals.allowance_tokens) == (1, sum(provider.totals()))
    assert provider.last.key == PLATFORM_KEY


async def test_a_long_conversation_comes_in_pages(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A page shows the end of a long conversation, and leads to what came before; one can write on the last only."""
    actor, user = acme.actor("user"), client_for("user")
    conversation = await conversations.start(node.db, actor, "Message 0.")
    for number in range(1, 100):
        role: conversations.Speaker = "assistant" if number % 2 else "user"
        await conversations.say(node.db, actor, conversation.id, role, f"Message {number}.")
    path, seen = f"/assistant/{conversation.id}", list[list[int]]()
    while path:
        page = await user.page(path)
        seen.append(
            [int(number) for number in re.findall(r"Message (\d+)\.", page.text.partition("Earlier messages")[2])]
        )
        assert (SEND in [form.action for form in page.forms]) is (len(seen) == 1)
        path = next((link for link in page.links if "?before=" in link), "")
    assert seen[:2] == [list(range(60, 100)), list(range(20, 60))]
    assert len(seen) == 3

    for number in range(3):  # each as long as a page may be
        await conversations.say(node.db, actor, conversation.id, "assistant", f"Long {number}." + " word" * 20_000)
    assert re.findall(r"Long \d", (await user.page(f"/assistant/{conversation.id}")).text) == ["Long 2"]


async def test_conversation_goes_on(provider: FakeProvider, client_for: Callable[[str], Browser]) -> None:
    """What was said before is sent along, kept, and shown when the conversation is opened."""
    provider.script(text="It is Paris.")
    user = client_for("user")
    begin = (await ask(user, "Capital of France?"))[0]
    await ask(user, "And its river?", begin["conversation"])
    sent = json.loads(provider.last.body)["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert sent[2]["content"] == "It is Paris."
    page = await user.page(f"/assistant/{begin['conversation']}")
    for text in ("Capital of France?", "And its river?", "It is Paris."):
        assert text in page.text
    assert "Capital of France?" in (await user.page("/assistant")).text


async def test_an_answer_that_reaches_a_limit(
    provider: FakeProvider, node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """The reader is told that it was cut short: by how little is left, or by the model's own limit."""
    await use_up(node, acme, left=1_000)
    provider.script(tokens=9_000)
    user = client_for("user")
    remark = (await ask(user, "Tell me everything"))[-1]["remark"]
    room = re.fullmatch(r"Shortened: there was room for (\d+) tokens only\.", remark)
    assert room
    assert 0 < int(room[1]) < 1_000
    anthropic = registry.PROVIDERS["anthropic"]
    await provider_keys.save(node.db, node.keyring, acme.actor("admin"), anthropic, Secret(OWN_KEY), Health.ACTIVE)
    remark = (await ask(user, "Tell me everything"))[-1]["remark"]
    assert remark == "Shortened: it is as long as the model may write."


async def test_an_answer_without_text(provider: FakeProvider, client_for: Callable[[str], Browser]) -> None:
    """An answer in which nothing is said is no empty box without a word, with a script and without."""
    provider.script(text="")
    user = client_for("user")
    assert (await ask(user, "Hello"))[-1]["remark"] == "No text came back."
    reply = await user.send(SEND, {"message": "Hello", "conversation": ""})
    assert "billed to the allowance. No text came back." in await user.notice(reply)


async def test_without_script(provider: FakeProvider, client_for: Callable[[str], Browser]) -> None:
    """A plain form gives the answer too, on the conversation's own page."""
    provider.script(text="Good *morning*.")
    user = client_for("user")
    reply = await user.send(SEND, {"message": "Hello", "conversation": ""})
    assert reply.status_code == 303
    page = await user.page(reply.headers["location"])
    assert "Good <em>morning</em>." in page.html
    assert "Answered by OpenAI gpt-5-mini, billed to the allowance." in page.text


async def test_own_key(provider: FakeProvider, node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """With an own key the answer says who pays, runs on that key, and takes nothing from the allowance."""
    await connect_key(node, acme)
    await use_up(node, acme)
    events = await ask(client_for("user"), "Hello")
    assert events[0]["served_by"].endswith("billed to your organization's key")
    assert "own key for OpenAI is connected" in events[-1]["status"]
    assert provider.last.key == OWN_KEY
    totals = await usage_events.totals(node.db, acme.actor("user"), clock.period_of(clock.now()))
    assert (totals.allowance_tokens, totals.own_key_tokens) == (0, sum(provider.totals()))


@pytest.mark.parametrize(
    ("role", "way_out"),
    [
        ("user", "Ask Admin Name, Owner Name to connect a provider key"),
        ("admin", "Connect your own provider key"),
        ("owner", "choose a larger plan"),
    ],
)
async def test_allowance_used_up(
    role: str,
    way_out: str,
    provider: FakeProvider,
    node: Node,
    acme: Acme,
    client_for: Callable[[str], Browser],
) -> None:
    """A spent allowance is said before and after asking, with the reset and the way out; nothing is kept."""
    await use_up(node, acme)
    browser = client_for(role)
    page = await browser.page("/assistant")
    assert "The allowance of this month is used up" in page.text
    assert way_out in page.text
    status, problem = await refused(browser)
    assert (status, problem["code"]) == (429, "allowance_exhausted")
    assert clock.rfc3339(clock.period_end(clock.period_of(clock.now()))) in problem["html"]
    assert way_out in Page(problem["html"]).text
    assert provider.requests == []
    assert await conversations.list_conversations(node.db, acme.actor(role)) == []


async def test_refusal_without_script(node: Node, acme: Acme, client_for: Callable[[str], Browser]) -> None:
    """A plain form that is refused keeps what was written, and nobody is signed out."""
    await use_up(node, acme)
    user = client_for("user")
    reply = await user.send(SEND, {"message": "My long question", "conversation": ""})
    assert reply.status_code == 429
    assert "My long question</textarea>" in reply.text
    assert "has used its AI tokens of this month" in reply.text
    assert (await user.get("/assistant")).status_code == 200


@pytest.mark.parametrize(
    ("role", "way_out"), [("user", "Ask Admin Name, Owner Name to update or remove it."), ("admin", "Update or remove")]
)
async def test_key_rejected(
    role: str,
    way_out: str,
    provider: FakeProvider,
    node: Node,
    acme: Acme,
    client_for: Callable[[str], Browser],
) -> None:
    """A refused own key is named as the organization's, the allowance stays untouched, nobody is signed out."""
    await connect_key(node, acme)
    provider.accept([PLATFORM_KEY])
    browser = client_for(role)
    status, problem = await refused(browser)
    assert (status, problem["code"]) == (403, "provider_key_rejected")
    text = Page(problem["html"]).text
    assert "OpenAI refused your organization's API key" in text
    assert way_out in text
    assert OWN_KEY not in problem["html"]
    assert [request.key for request in provider.requests] == [OWN_KEY]
    assert (await browser.get("/assistant")).status_code == 200


async def test_answer_that_breaks_off(
    provider: FakeProvider, node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """When the provider breaks off, what was said is shown and kept, with the reason."""
    provider.script(tokens=20, cut=5)
    events = await ask(client_for("user"), "Go on")
    assert events[-1]["kind"] == "error"
    assert 'role="alert"' in events[-1]["refusal"]
    said = "".join(event["text"] for event in events if event["kind"] == "text")
    assert said
    _, messages = await conversations.read(node.db, acme.actor("user"), events[0]["conversation"])
    assert [(message.role, message.content) for message in messages] == [("user", "Go on"), ("assistant", said)]


@pytest.mark.parametrize("pieces", [0, 1, 5])
async def test_a_reader_who_leaves(
    pieces: int, provider: FakeProvider, node: Node, web_app: FastAPI, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """Whenever the reader goes, while the provider thinks, as it begins or in the middle, it is told to stop."""
    provider.script(tokens=200, delay=0.3, pause=0.05)
    browser = client_for("user")
    form = urlencode({"csrf": await browser.csrf(), "message": "Hello", "conversation": ""}).encode()
    fields = {
        "host": urlsplit(browser.origin).netloc,
        "origin": browser.origin,
        "accept": "text/event-stream",
        "cookie": f"session={browser.session_token}",
        "content-type": "application/x-www-form-urlencoded",
    }
    received, sent, gone = list[int](), list[Any](), asyncio.Event()

    async def receive() -> dict[str, Any]:
        received.append(1)
        if len(received) == 1:
            return {"type": "http.request", "body": form, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if pieces and len(sent) == 1 + pieces:
            gone.set()
        await asyncio.sleep(0)

    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": urlsplit(browser.origin).scheme,
    }
    scope |= {"path": SEND, "raw_path": SEND.encode(), "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"asgi": {"version": "3.0", "spec_version": "2.3"}, "client": ("127.0.0.1", 1), "server": ("here", 80)}
    asking = asyncio.create_task(web_app(scope, receive, send))
    if not pieces:
        await provider.wait_async(lambda provider: len(provider.requests) == 1)
        gone.set()
    await asking
    while not (events := await usage_events.events(node.db, acme.actor("owner"))):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert events[0].outcome == "cancelled"
    assert events[0].output_tokens < 100
    kept = await conversations.list_conversations(node.db, acme.actor("user"))
    assert len(kept) == (1 if pieces else 0)  # before it began the page says that nothing was kept


@pytest.mark.parametrize("text", ["", "   \n", "x" * (assistant.LONGEST_MESSAGE + 1)])
async def test_unusable_message(text: str, provider: FakeProvider, client_for: Callable[[str], Browser]) -> None:
    """An empty or far too long message goes nowhere."""
    status, problem = await refused(client_for("user"), text)
    assert (status, problem["code"]) == (400, "invalid_request")
    assert provider.requests == []


async def test_conversations_are_ones_own(
    provider: FakeProvider, node: Node, acme: Acme, client_for: Callable[[str], Browser]
) -> None:
    """Nobody opens, continues or deletes another person's conversation, not even the owner."""
    user = client_for("user")
    conversation = (await ask(user, "My secret plan"))[0]["conversation"]
    asked = len(provider.requests)
    for role in ("admin", "owner", "outsider"):
        other = client_for(role)
        assert (await other.get(f"/assistant/{conversation}")).status_code == 404
        assert (await other.send(f"/assistant/{conversation}/delete")).status_code == 404
        assert (await other.send(SEND, {"message": "Go on", "conversation": conversation})).status_code == 404
        assert "My secret plan" not in (await other.page("/assistant")).text
    assert len(provider.requests) == asked
    assert "deleted" in await user.notice(await user.send(f"/assistant/{conversation}/delete"))
    assert (await user.get(f"/assistant/{conversation}")).status_code == 404


def test_history_is_bounded() -> None:
    """Only the end of a long conversation is sent along, whole messages that begin with the person's."""
    history = [Message("user" if n % 2 == 0 else "assistant", str(n) * 5_000) for n in range(10)]
    kept = assistant._recent(history)
    assert [message.content[0] for message in kept] == ["6", "7", "8", "9"]
    assert assistant._recent([Message("user", "x" * 30_000)]) == []
