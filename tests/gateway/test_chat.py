"""The assistant's chat goes through the same exchange as every other call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ownkey.access import Actor, Role
from ownkey.errors import OwnkeyError, ProviderFailed, ProviderKeyRejected
from ownkey.gateway import chat as chats
from ownkey.gateway.chat import open_chat
from ownkey.gateway.dialects.dialect import Message
from tests import build
from tests.fakes.provider import FakeProvider
from tests.gateway.service import PLATFORM_KEY, Customer

QUESTION = [Message("system", "Be brief."), Message("user", "Hello")]


def person(customer: Customer) -> Actor:
    """The organization's owner, signed in."""
    actor = build.acting(customer.created.owner, customer.created, Role.OWNER)
    return replace(actor, workspace_id=customer.created.workspace.id)


def ask(customer: Customer, pieces: int | None = None) -> tuple[str, str, str]:
    """Ask the assistant's question; read the whole answer, or so many pieces: provider, payer and text."""

    async def work() -> tuple[str, str, str]:
        chat = await open_chat(customer.service.application.relay, person(customer), QUESTION)
        text = ""
        number = 0
        async for piece in chat.text:
            text += piece
            number += 1
            if number == pieces:
                break
        await chat.text.aclose()
        return chat.provider.slug, chat.billed_to, text

    return customer.service.do(work)


@pytest.mark.parametrize("own", [None, "openai", "anthropic", "gemini"])
def test_the_assistant_answers_in_every_dialect(customer: Customer, provider: FakeProvider, own: str | None) -> None:
    """With no configuration on the platform's key; else on the provider the organization has a key for."""
    if own:
        customer.connect(own, "sk-own-key-0123456789-abcdefghijklmnop")
    provider.script(tokens=30, pause=0.001)
    slug, billed_to, text = ask(customer)
    assert slug == (own or "openai")
    assert billed_to == ("own_key" if own else "allowance")
    assert len(text) >= 100
    assert (provider.last.key == PLATFORM_KEY) == (own is None)
    (event,) = customer.settled(1)
    assert (event.output_tokens, event.estimated) == (30, False)
    assert event.member == customer.created.owner.email
    assert customer.allowance().used == (0 if own else event.input_tokens + 30)


@pytest.mark.parametrize(
    ("event", "cut_off"),
    [
        (b'{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}', True),
        (b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}', False),
        (b'{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null}}', True),
        (b'{"candidates": [{"finishReason": "MAX_TOKENS"}]}', True),
        (b'{"choices":[{"delta":{"content":"\\"finish_reason\\":\\"length\\""},"finish_reason":null}]}', False),
    ],
)
def test_an_answer_says_that_it_reached_its_limit(event: bytes, cut_off: bool) -> None:
    """Each format says so in its own words; an answer that quotes them does not."""
    assert (chats._CUT_OFF.search(event) is not None) is cut_off


def test_closing_the_answer_stops_the_provider(customer: Customer, provider: FakeProvider) -> None:
    """A reader that goes away early has the provider stopped and is charged for what came."""
    provider.script(tokens=10_000, pause=0.005)
    ask(customer, pieces=5)
    provider.wait(lambda p: p.last.closed_at is not None, timeout=1.0)
    (event,) = customer.settled(1)
    assert (event.outcome, event.estimated) == ("cancelled", True)
    assert event.output_tokens >= 5


def test_refusals_are_raised(customer: Customer, provider: FakeProvider) -> None:
    """What keeps the assistant from answering is one of our errors, before anything is shown."""
    customer.connect("openai", "sk-own-key-0123456789-abcdefghijklmnop")
    provider.accept({PLATFORM_KEY})
    with pytest.raises(ProviderKeyRejected):
        ask(customer)
    provider.clear()
    for status in (500, 307):
        provider.next(status=status)
        with pytest.raises(OwnkeyError):
            ask(customer)


def test_a_broken_answer_is_said(customer: Customer, provider: FakeProvider) -> None:
    """An answer that breaks off in the middle raises, so that nobody takes it for whole."""
    provider.script(tokens=30, cut=10, pause=0.002)
    with pytest.raises(ProviderFailed):
        ask(customer)
    (event,) = customer.settled(1)
    assert event.outcome == "failed"
