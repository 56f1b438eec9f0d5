"""The simulated AI provider of ``make demo``: every dialect, no account, no network.

It speaks OpenAI (chat, responses, completions, embeddings, images, models), Anthropic (messages, count_tokens,
models) and Gemini (content, streams, token counts, embeddings, models), and plays OpenAI-compatible companies such
as Groq, OpenRouter, Mistral, DeepSeek and xAI on their own paths. Requests are told apart by path and key; under
``/as/<slug>`` there is no doubt, and that is what ``base_url()`` gives.

**Keys.** Any key with the right beginning is accepted: ``sk-demo-…`` (OpenAI), ``sk-ant-demo-…`` (Anthropic),
``AIzaDemo…`` or ``demo-…`` (Gemini), ``gsk_demo…`` (Groq), ``sk-or-demo-…`` (OpenRouter), ``demo-…`` (Mistral),
``sk-demo-…`` (DeepSeek), ``xai-demo-…`` (xAI). Others are refused as that provider refuses a bad key. A word inside
an accepted key asks for a state: ``nocredit`` (no money left), ``limited`` (403), ``slow`` (429, back in 5 seconds).

**Answers** depend on the question only and say that they are simulated. Asking for ``300 words`` gives about as many.
A tool is called when ``tool_choice`` forces one, or when the question holds a word of four or more letters of its
name; its arguments fit its schema. **Tokens** are counted by one rule, see ``ownkey.demo.simulated.model``; output
limits are respected. **Pace:** a stream sends about 30 tokens a second, a plain reply takes at most one second.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ownkey.demo.simulated import anthropic, gemini, openai, responses
from ownkey.demo.simulated.companies import COMPANIES, Company, company
from ownkey.demo.simulated.keys import PLATFORM_KEYS, anthropic_error, check, gemini_error, key_of, openai_error
from ownkey.demo.simulated.wire import Ask, Document, Json, Refusal, Reply, Stream

__all__ = ["HUMAN_PACE", "PLATFORM_KEYS", "SimulatedProvider", "application"]

HUMAN_PACE = 1 / 30
"""Seconds between two tokens of a stream."""
_LONGEST_WAIT = 1.0
_MOUNT = "/as/"
_OPENAI_POSTS = {
    "/chat/completions": openai.chat,
    "/completions": openai.completions,
    "/embeddings": openai.embeddings,
    "/images/generations": openai.images,
    "/responses": responses.create,
}
_ANTHROPIC_POSTS = {"/messages": anthropic.messages, "/messages/count_tokens": anthropic.count_tokens}


def application(pause: float = HUMAN_PACE) -> Starlette:
    """The provider as an ASGI application; ``pause`` is the time between two tokens in seconds, 0 for tests."""

    async def reply(request: Request) -> Response:
        try:
            answer = await _answer(request)
        except Refusal as refusal:
            return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
        headers = {"x-request-id": f"req_{secrets.token_hex(12)}"}
        if isinstance(answer, Stream):
            headers["cache-control"] = "no-cache"
            return StreamingResponse(_paced(answer, pause), media_type=answer.media_type, headers=headers)
        await asyncio.sleep(min(_LONGEST_WAIT, answer.tokens * pause))
        return JSONResponse(answer.content, headers=headers)

    return Starlette(routes=[Route("/{path:path}", reply, methods=["GET", "POST"])])


async def _paced(stream: Stream, pause: float) -> AsyncIterator[bytes]:
    for piece, tokens in stream.pieces:
        if tokens and pause:
            await asyncio.sleep(tokens * pause)
        yield piece


async def _answer(request: Request) -> Reply:
    """Find the company, check its key, read the body, and hand over to the endpoint."""
    key = key_of(request.headers, request.query_params)
    asked, path = _company_of(request.url.path, request.headers, key)
    check(asked, key)
    root = next((root for root in sorted(asked.roots, key=len, reverse=True) if path.startswith(f"{root}/")), None)
    if root is None:
        raise _no_such_path(asked, request.method, path)
    body = await _body(asked, request) if request.method == "POST" else {}
    ask = Ask(asked.slug, path[len(root) :], request.query_params, request.headers, body)
    try:
        return _endpoint(asked, ask, request.method, root)
    except (AttributeError, KeyError, TypeError) as error:  # a part of the body has another type than documented
        raise _unreadable(asked, "The request body does not have the documented shape.") from error


def _company_of(path: str, headers: Mapping[str, str], key: str) -> tuple[Company, str]:
    """The company a request is for and its path there: by mount, else by path, else by the kind of key."""
    if path.startswith(_MOUNT):
        slug, _, rest = path.removeprefix(_MOUNT).partition("/")
        return company(slug), f"/{rest}"
    if path.startswith("/v1beta/") or ":" in path or headers.get("x-goog-api-key"):
        return COMPANIES["gemini"], path
    if path.startswith("/v1/messages") or headers.get("anthropic-version") or headers.get("x-api-key"):
        return COMPANIES["anthropic"], path
    for row in COMPANIES.values():
        root = row.roots[0]
        if root and path.startswith(f"{root}/") and row.dialect == "openai" and key.startswith(row.key_prefixes):
            return row, path
    fixed = {"/openai/v1/": "groq", "/api/v1/": "openrouter", "/user/": "deepseek", "/chat/": "deepseek"}
    return COMPANIES[next((slug for start, slug in fixed.items() if path.startswith(start)), "openai")], path


async def _body(asked: Company, request: Request) -> Json:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        return body
    raise _unreadable(asked, "We could not parse the JSON body of your request: expected an object.")


def _unreadable(asked: Company, message: str) -> Refusal:
    if asked.dialect == "anthropic":
        return anthropic.invalid(message)
    return gemini.invalid(message) if asked.dialect == "gemini" else openai.invalid(message, None)


def _endpoint(asked: Company, ask: Ask, method: str, root: str) -> Reply:
    if asked.dialect == "gemini":
        return _gemini(asked, ask, method, root)
    named = unquote(ask.path.removeprefix("/models/")) if ask.path.startswith("/models/") else None
    listing = method == "GET" and (ask.path == "/models" or named is not None)
    if asked.dialect == "anthropic":
        if not ask.headers.get("anthropic-version"):
            raise anthropic.invalid("anthropic-version: header is required")
        if listing:
            return anthropic.models(asked, named)
        if method == "POST" and (endpoint := _ANTHROPIC_POSTS.get(ask.path)):
            return endpoint(_with_model(ask, anthropic.check_model(asked, ask.body)))
    elif listing:
        return openai.models(asked, named)
    elif method == "GET" and ask.path in openai.ACCOUNT:
        return Document(openai.ACCOUNT[ask.path])
    elif method == "POST" and (endpoint := _OPENAI_POSTS.get(ask.path)):
        return endpoint(_with_model(ask, openai.check_model(asked, ask.body)))
    raise _no_such_path(asked, method, root + ask.path)


def _gemini(asked: Company, ask: Ask, method: str, root: str) -> Reply:
    name, _, action = unquote(ask.path.removeprefix("/models/")).rpartition(":")
    if method == "GET" and ask.path == "/models":
        return gemini.models(asked, None)
    if method == "GET" and ask.path.startswith("/models/"):
        return gemini.models(asked, unquote(ask.path.removeprefix("/models/")))
    if method == "POST" and ask.path.startswith("/models/") and action in gemini.METHODS:
        model = gemini.check_model(asked, name, action, root.strip("/"))
        return gemini.METHODS[action](_with_model(ask, model))
    raise _no_such_path(asked, method, root + ask.path)


def _with_model(ask: Ask, model: str) -> Ask:
    return Ask(ask.company, ask.path, ask.query, ask.headers, ask.body, model)


def _no_such_path(asked: Company, method: str, path: str) -> Refusal:
    if asked.dialect == "anthropic":
        return anthropic_error(404, "not_found_error", "Not found")
    if asked.dialect == "gemini":
        return gemini_error(404, "NOT_FOUND", "Requested entity was not found.")
    return openai_error(404, f"Invalid URL ({method} {path})", "invalid_request_error", None)


class SimulatedProvider:
    """The provider on a port of its own, served from a thread of its own.

    >>> with SimulatedProvider(pause=0) as provider:
    ...     settings = {"OWNKEY_BASE_URL_OPENAI": provider.base_url("openai")}
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, pause: float = HUMAN_PACE) -> None:
        self._host, self._port, self._pause = host, port, pause
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Begin to serve; return the address. Raises ``OSError`` if the port is taken."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
            listener.listen(512)  # so that whoever connects before the thread runs waits instead of being refused
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            application(self._pause),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="simulated-provider", daemon=True
        )
        self._thread.start()
        return self.address

    def stop(self) -> None:
        """Stop serving; replies in flight are broken off after a second."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    @property
    def address(self) -> str:
        """Where it listens: ``http://127.0.0.1:<port>``."""
        return f"http://{self._host}:{self._port}"

    def base_url(self, slug: str) -> str:
        """What stands for a company's ``https://host`` here, for ``OWNKEY_BASE_URL_<PROVIDER>``."""
        return f"{self.address}{_MOUNT}{slug}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
