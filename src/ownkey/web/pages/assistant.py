"""The assistant: a chat through the same exchange as every other AI request, and one's earlier conversations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import CancelScope
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ownkey.accounts import conversations
from ownkey.accounts.conversations import Conversation
from ownkey.accounts.sessions import SignedIn
from ownkey.errors import AllowanceExhausted, InvalidRequest, OwnkeyError, ProviderKeyRejected, ProviderNotAvailable
from ownkey.gateway.chat import Chat, open_chat
from ownkey.gateway.dialects.dialect import Message
from ownkey.web import errors, forms, session, standing
from ownkey.web.forms import Form
from ownkey.web.markdown import all_to_html
from ownkey.web.rendering import redirect, render

PATH = "/assistant"
LONGEST_MESSAGE = 16_000
# What is sent along of the conversation so far: it is paid for again with every message.
_LONGEST_HISTORY = 24_000
# What one page shows of a conversation, in messages and in characters of them; a link leads to those before.
_MOST_SHOWN, _LONGEST_SHOWN = 40, 100_000
_SYSTEM = "You are a helpful assistant. Answer in Markdown, briefly and to the point."


@dataclass(frozen=True, slots=True)
class Line:
    """A message as the page shows it; what the assistant said is HTML."""

    role: str
    content: str


async def show(request: Request) -> Response:
    """``GET /assistant``: a new conversation."""
    return await _page(request, await session.require(request))


async def open_conversation(request: Request) -> Response:
    """``GET /assistant/{conversation}``: an earlier one of one's own, or what of it came ``before`` a message."""
    signed_in, before = await session.require(request), request.query_params.get("before", "")
    return await _page(request, signed_in, request.path_params["conversation"], before=before)


async def send(request: Request) -> Response:
    """``POST /assistant/messages``: ask. A script gets the answer as it is written; a plain form, the page after it.

    A question that is refused is not kept: it stays in the box, and costs nothing. Nor is one that was stopped before
    its answer began, whatever the provider has made of it by then.
    """
    form = await forms.read(request)
    signed_in, node = await session.require(request), session.node_of(request)
    question, conversation_id = _question(form), form.get("conversation", "")
    if not form.ok:
        return await _refused(request, signed_in, form, InvalidRequest(form.errors["message"]))
    try:
        history = await _history(request, signed_in, conversation_id) if conversation_id else []
        messages = [Message("system", _SYSTEM), *_recent(history), Message("user", question)]
        chat = await _opened(request, open_chat(request.app.state.relay, signed_in.actor, messages))
    except OwnkeyError as error:
        return await _refused(request, signed_in, form, error)
    if chat is None:
        return Response()
    try:
        if conversation_id:
            await conversations.say(node.db, signed_in.actor, conversation_id, "user", question)
        else:
            conversation_id = (await conversations.start(node.db, signed_in.actor, question)).id
    except BaseException:
        chat.stop()  # nobody is going to read the answer
        raise
    answer = _answer(request, signed_in, conversation_id, chat)
    if _wants_stream(request):
        begin = _event(
            "begin",
            conversation=conversation_id,
            title=conversations.title_of(question),
            served_by=_served_by(chat),
        )
        return _Events(_told(request, signed_in, chat, begin, answer), chat.stop)
    return await _whole(request, conversation_id, chat, answer)


async def _opened(request: Request, opening: Coroutine[None, None, Chat]) -> Chat | None:
    """The chat when it begins; None if the person has gone away meanwhile, and then the provider is told to stop."""
    beginning, leaving = asyncio.create_task(opening), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((beginning, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            return await beginning
        if beginning.done() and beginning.exception() is None:
            beginning.result().stop()
        return None
    finally:
        leaving.cancel()
        beginning.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def remove(request: Request) -> Response:
    """``POST /assistant/{conversation}/delete``."""
    await forms.read(request)
    signed_in = await session.require(request)
    await conversations.remove(session.node_of(request).db, signed_in.actor, request.path_params["conversation"])
    return redirect(request, PATH, "The conversation is deleted.")


async def _answer(request: Request, signed_in: SignedIn, conversation_id: str, chat: Chat) -> AsyncGenerator[str, None]:
    """The answer's text as it comes. However it ends, what was said is kept, and the provider is told to stop."""
    said: list[str] = []
    try:
        async for text in chat.text:
            said.append(text)
            yield text
    finally:
        with CancelScope(shield=True):
            await chat.text.aclose()
            if said:
                db = session.node_of(request).db
                text = "".join(said).replace("\x00", "")
                await conversations.say(db, signed_in.actor, conversation_id, "assistant", text, chat.request_id)


async def _told(
    request: Request, signed_in: SignedIn, chat: Chat, begin: bytes, answer: AsyncGenerator[str, None]
) -> AsyncGenerator[bytes, None]:
    """The answer as events for ``assistant.js``."""
    said: list[str] = []
    try:
        yield begin
        async for text in answer:
            said.append(text)
            yield _event("text", text=text)
        status = await _fragment(request, signed_in, "assistant_status.html")
        yield _event("end", html=await _html(said), status=status, remark=_remark(chat, said))
    except OwnkeyError as error:
        refusal = await _fragment(request, signed_in, "assistant_refusal.html", error=error)
        yield _event("error", html=await _html(said), refusal=refusal)
    finally:
        with CancelScope(shield=True):
            await answer.aclose()


async def _whole(request: Request, conversation_id: str, chat: Chat, answer: AsyncGenerator[str, None]) -> Response:
    try:
        said = [text async for text in answer]
    except OwnkeyError as error:
        return redirect(request, f"{PATH}/{conversation_id}", error.message, "danger")
    return redirect(
        request, f"{PATH}/{conversation_id}#latest", f"Answered by {_served_by(chat)}. {_remark(chat, said)}", "info"
    )


async def _refused(request: Request, signed_in: SignedIn, form: Form, error: OwnkeyError) -> Response:
    if errors.wants_json(request):
        error.detail["html"] = await _fragment(request, signed_in, "assistant_refusal.html", error=error)
        return errors.problem(request, error, error.status)
    return await _page(request, signed_in, form.get("conversation", ""), form=form, refusal=error)


async def _page(
    request: Request,
    signed_in: SignedIn,
    conversation_id: str = "",
    *,
    before: str = "",
    form: Form | None = None,
    refusal: OwnkeyError | None = None,
) -> Response:
    node = session.node_of(request)
    conversation: Conversation | None = None
    messages: Sequence[conversations.Message] = ()
    if conversation_id:
        conversation, messages = await conversations.read(node.db, signed_in.actor, conversation_id)
    shown, earlier = _shown(messages, before)
    return render(
        request,
        "assistant.html",
        signed_in=signed_in,
        status=refusal.status if refusal else 200,
        conversations=await conversations.list_conversations(node.db, signed_in.actor),
        conversation=conversation,
        lines=await _lines(shown),
        earlier=earlier,
        is_latest=not before,
        standing=await standing.of(node, signed_in),
        longest_message=LONGEST_MESSAGE,
        form=form,
        error=refusal,
        **_kind(refusal),
    )


async def _fragment(request: Request, signed_in: SignedIn, template: str, error: OwnkeyError | None = None) -> str:
    now = await standing.of(session.node_of(request), signed_in)
    response = render(request, template, signed_in=signed_in, standing=now, error=error, **_kind(error))
    return bytes(response.body).decode()


def _kind(error: OwnkeyError | None) -> Mapping[str, bool]:
    """What a refusal's way out depends on."""
    return {
        "needs_tokens": isinstance(error, AllowanceExhausted),
        "needs_key": isinstance(error, ProviderNotAvailable),
        "key_refused": isinstance(error, ProviderKeyRejected),
    }


def _question(form: Form) -> str:
    text = form.get("message", "").replace("\r\n", "\n").replace("\x00", "").strip()
    if not text:
        form.fail("message", "Write a message.")
    elif len(text) > LONGEST_MESSAGE:
        form.fail("message", f"Use at most {LONGEST_MESSAGE:,} characters.")
    return text


async def _history(request: Request, signed_in: SignedIn, conversation_id: str) -> Sequence[Message]:
    _, messages = await conversations.read(session.node_of(request).db, signed_in.actor, conversation_id)
    return [Message(message.role, message.content) for message in messages]


def _recent(history: Sequence[Message]) -> Sequence[Message]:
    """The end of a conversation, whole messages, beginning with one of the person's."""
    kept: list[Message] = []
    length = 0
    for message in reversed(history):
        length += len(message.content)
        if length > _LONGEST_HISTORY:
            break
        kept.insert(0, message)
    while kept and kept[0].role != "user":
        kept.pop(0)
    return kept


def _shown(messages: Sequence[conversations.Message], before: str) -> tuple[Sequence[conversations.Message], str]:
    """As many of the last messages before that one as a page shows; and its first, if there are others before it."""
    end = next((at for at, message in enumerate(messages) if message.id == before), len(messages))
    start, length = end, 0
    while start > 0 and end - start < _MOST_SHOWN and (start == end or length < _LONGEST_SHOWN):
        start -= 1
        length += len(messages[start].content)
    return messages[start:end], messages[start].id if start > 0 else ""


async def _lines(messages: Sequence[conversations.Message]) -> list[Line]:
    answers = [message.content for message in messages if message.role == "assistant"]
    html = iter(await all_to_html(answers, top_heading=3))
    return [Line(message.role, next(html) if message.role == "assistant" else message.content) for message in messages]


async def _html(said: Sequence[str]) -> str:
    return (await all_to_html(["".join(said)], top_heading=3))[0]


def _served_by(chat: Chat) -> str:
    payer = "your organization's key" if chat.billed_to == "own_key" else "the allowance"
    return f"{chat.provider.name} {chat.model}, billed to {payer}"


def _remark(chat: Chat, said: Sequence[str]) -> str:
    """What is to be said of an answer that is not what was asked for, because it is cut short or empty."""
    if not chat.is_cut_off():
        return "" if any(said) else "No text came back."
    limit = chat.output_limit
    why = f"there was room for {limit:,} tokens only." if limit else "it is as long as the model may write."
    return f"Shortened: {why}" if any(said) else f"No text came back: {why}"


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _event(kind: str, **told: Any) -> bytes:
    return f"data: {json.dumps({'kind': kind, **told})}\n\n".encode()


class _Events(StreamingResponse):
    """Server-sent events, whose source is closed at once when the reader goes away.

    ``stop`` ends what the source has not begun to read: closing a generator that never ran runs none of it.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], stop: Callable[[], None]) -> None:
        # A proxy in front should pass every piece on as it comes.
        super().__init__(events, headers={"x-accel-buffering": "no"})
        self._events = events
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._events.aclose()
                self._stop()
