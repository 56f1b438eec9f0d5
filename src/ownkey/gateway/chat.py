"""A streamed chat for the assistant page, through the same exchange as every other call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from ownkey.access import Actor
from ownkey.errors import Internal, OwnkeyError, ProviderFailed, ProviderNotAvailable
from ownkey.gateway import sse
from ownkey.gateway.call import read_call
from ownkey.gateway.dialects.dialect import Message
from ownkey.gateway.dialects.table import DIALECTS
from ownkey.gateway.exchange import Exchange
from ownkey.gateway.relay import Relay
from ownkey.ids import new_id
from ownkey.metering.reservations import Caller
from ownkey.providers.failures import message_of
from ownkey.providers.provider import Provider
from ownkey.vault import provider_keys

_JSON = (b"content-type", b"application/json")
# What a dialect wants in a header beside its credential (https://docs.anthropic.com/en/api/versioning).
_HEADERS = {"anthropic": [_JSON, (b"anthropic-version", b"2023-06-01")]}
_LIMIT = re.compile(rb"x-ownkey-output-limit: ([0-9]+)")
# How the formats say that an answer has reached its limit. No text of an answer looks so: its quotes are escaped.
_CUT_OFF = re.compile(rb'"(?:finish_reason|stop_reason|finishReason)" *: *"(?:length|max_tokens|MAX_TOKENS)"')


@dataclass(frozen=True, slots=True)
class Chat:
    """An answer that has begun: who gives it, who pays, its text as it comes, and how to end it before its end.

    ``output_limit`` is there if what is left has room for so many tokens only. Once the text has ended, ``is_cut_off``
    tells whether a limit, that one or the model's, has ended it.
    """

    request_id: str
    provider: Provider
    model: str
    billed_to: str
    output_limit: int | None
    text: AsyncGenerator[str, None]
    is_cut_off: Callable[[], bool]
    stop: Callable[[], None]


class _Page:
    """The exchange's client in place of a socket: pieces wait in a queue for the page."""

    def __init__(self) -> None:
        self.status = 0
        self.billed_to = ""
        self.output_limit: int | None = None
        self.cut_off = False
        self.exchange: Exchange
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.whole = False

    def attend(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        self.status = status
        self.billed_to = "own_key" if b"x-ownkey-billed-to: own_key" in headers else "allowance"
        limit = _LIMIT.search(headers)
        self.output_limit = int(limit[1]) if limit else None

    def write(self, pieces: list[bytes]) -> None:
        for data in pieces:
            self.queue.put_nowait(data)

    def flush(self) -> None: ...

    def end(self) -> None:
        self.whole = True
        self.queue.put_nowait(None)

    def abort(self) -> None:
        self.queue.put_nowait(None)


async def open_chat(relay: Relay, actor: Actor, messages: Sequence[Message]) -> Chat:
    """Ask the model chosen for the actor's organization; returns when the answer begins.

    An own key's provider is preferred to the platform's. Raises the refusal otherwise; after the beginning the text
    iterator raises ``ProviderFailed`` if the answer breaks off. Closing the iterator, or ``stop``, stops the provider.
    """
    provider = await _choose(relay, actor)
    dialect = DIALECTS[provider.dialect]
    path, body = dialect.chat(provider.assistant_model or "", messages, provider.api_roots[0])
    path, _, query = path.partition("?")
    headers = _HEADERS.get(provider.dialect, [_JSON])
    call = read_call(provider, "POST", path, query, headers, body)
    page = _Page()
    caller = Caller(user_id=actor.user_id or "", workspace_id=actor.workspace_id)
    page.exchange = Exchange(relay, page, caller, call, new_id("req"))
    page.exchange.start()
    try:
        first = await page.queue.get()
    except asyncio.CancelledError:
        page.exchange.client_gone()
        raise
    exchange = page.exchange  # the one that answered
    if page.status >= 300:
        raise exchange.refusal or _passed_on(provider, message_of(first or b""))
    text = _text(page, exchange, first)
    return Chat(
        exchange.request_id,
        provider,
        call.model,
        page.billed_to,
        page.output_limit,
        text,
        lambda: page.cut_off,
        exchange.client_gone,
    )


async def _text(page: _Page, exchange: Exchange, first: bytes | None) -> AsyncGenerator[str, None]:
    dialect = exchange.call.endpoint.dialect
    rest, piece = b"", first
    try:
        while piece is not None:
            # A carriage return at the border may be half of a line end.
            *events, rest = sse.with_line_feeds(rest + piece).split(b"\n\n")
            for event in events:
                data = sse.payload(event)
                if dialect.is_error(data):
                    raise ProviderFailed
                page.cut_off = page.cut_off or _CUT_OFF.search(data) is not None
                if text := dialect.text_of(data):
                    yield text
            piece = await page.queue.get()
        if not page.whole:
            raise ProviderFailed
    finally:
        exchange.client_gone()


async def _choose(relay: Relay, actor: Actor) -> Provider:
    own = {key.provider for key in await provider_keys.list_keys(relay.node.db, actor)}
    able = [provider for provider in relay.node.providers.values() if provider.assistant_model]
    for provider in able:
        if provider.slug in own:
            return provider
    for provider in able:
        if relay.router.has_platform_key(provider):
            return provider
    raise ProviderNotAvailable(
        f"No AI provider is set up yet; {relay.router.key_managers} can connect a key under Settings → Integrations."
    )


def _passed_on(provider: Provider, said: str) -> OwnkeyError:
    return ProviderFailed(f"{provider.name} answered: {said}") if said else Internal()
