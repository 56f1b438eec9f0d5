"""The session cookie: who is asking, and whether a form was really sent by one of our own pages."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import TypedDict
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from ownkey import audit
from ownkey.access import Action
from ownkey.accounts import sessions
from ownkey.accounts.sessions import SignedIn
from ownkey.credentials import new_link_token
from ownkey.errors import Conflict, Forbidden, NotAuthenticated
from ownkey.node import Node

HOME = "/assistant"
COOKIE_LIFETIME = timedelta(days=30)

# One slash, then no second one and no backslash: browsers read both as the start of another host's name.
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\s\x00-\x1f\x7f]*")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SignInRequired(NotAuthenticated):
    """Nobody is signed in; a browser is sent to the sign-in page and comes back to ``next_path``."""

    sentence = "Sign in first."

    def __init__(self, next_path: str = HOME) -> None:
        super().__init__()
        self.location = "/sign-in" if next_path == HOME else f"/sign-in?next={quote(next_path)}"


class ConfirmationRequired(Forbidden):
    """The password was given too long ago for this change; a browser is sent to give it again."""

    sentence = "Confirm your password first, then try again."

    def __init__(self, next_path: str = HOME) -> None:
        super().__init__()
        self.location = f"/confirm-password?next={quote(next_path)}"


class Client(TypedDict):
    """Where a request came from, as a list of sessions shows it."""

    ip: str | None
    user_agent: str | None


def client_of(request: Request) -> Client:
    """Where a request came from."""
    return Client(ip=request.client.host if request.client else None, user_agent=request.headers.get("user-agent"))


def node_of(request: Request) -> Node:
    """The node that serves this request."""
    node: Node = request.app.state.node
    return node


def cookie_name(request: Request, name: str) -> str:
    """The cookie's name; over TLS the browser itself then binds it to this host, to TLS and to the whole site."""
    return f"__Host-{name}" if node_of(request).settings.secure else name


def read_cookie(request: Request, name: str) -> str:
    """The cookie's value, or an empty text."""
    return request.cookies.get(cookie_name(request, name), "")


def set_cookie(request: Request, response: Response, name: str, value: str, lifetime: timedelta) -> None:
    """Keep a value in the browser, out of reach of scripts and of requests that other sites start."""
    response.set_cookie(
        cookie_name(request, name),
        value,
        max_age=int(lifetime.total_seconds()),
        path="/",
        secure=node_of(request).settings.secure,
        httponly=True,
        samesite="lax",
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Make the browser forget a value."""
    response.delete_cookie(
        cookie_name(request, name),
        path="/",
        secure=node_of(request).settings.secure,
        httponly=True,
        samesite="lax",
    )


async def current(request: Request) -> SignedIn | None:
    """Who is signed in, or None. Asked once a request. Raises ``Forbidden`` for a person without any workspace."""
    if not hasattr(request.state, "signed_in"):
        token = read_cookie(request, "session")
        request.state.signed_in = await sessions.resolve(node_of(request).db, token) if token else None
    signed_in: SignedIn | None = request.state.signed_in
    return signed_in


async def require(request: Request) -> SignedIn:
    """Who is signed in. Raises ``SignInRequired``."""
    signed_in = await current(request)
    if signed_in is None:
        raise SignInRequired(way_back(request))
    return signed_in


async def authorize(request: Request, action: Action) -> SignedIn:
    """Who is signed in, if their role allows the action; otherwise the attempt is recorded and ``Forbidden`` raised."""
    signed_in = await require(request)
    if not signed_in.actor.may(action):
        await audit.record_refusal(node_of(request).db, signed_in.actor, action, request.url.path)
        raise Forbidden(
            f"Your role in this workspace is {_role(signed_in)}, which does not include this page. "
            "Ask an admin of your workspace."
        )
    return signed_in


def require_recent(request: Request, signed_in: SignedIn) -> None:
    """Raise ``ConfirmationRequired`` unless the password was given within the last ten minutes."""
    if not signed_in.is_recent:
        raise ConfirmationRequired(way_back(request))


async def start(request: Request, response: Response, token: str) -> None:
    """Hand a fresh session to the browser; the one it may have brought ends, here and on the server."""
    before = read_cookie(request, "session")
    if before:
        await sessions.revoke(node_of(request).db, before)
    set_cookie(request, response, "session", token, COOKIE_LIFETIME)
    delete_cookie(request, response, "visitor")


async def end(request: Request, response: Response) -> None:
    """Sign out, here and on the server."""
    token = read_cookie(request, "session")
    if token:
        await sessions.revoke(node_of(request).db, token)
    delete_cookie(request, response, "session")


def local_path(text: str | None) -> str:
    """``text`` if it is a path of ours, else the first page: a link may not send people to another host."""
    return text if text and len(text) <= 2000 and _LOCAL_PATH.fullmatch(text) else HOME


def browser_key(request: Request) -> bytes:
    """A secret only this browser has: its session token, or one made for a visitor who has none yet.

    A new one waits in ``request.state.visitor`` until ``render`` or ``redirect`` sets its cookie.
    """
    token = read_cookie(request, "session") or read_cookie(request, "visitor")
    if not token:
        if not hasattr(request.state, "visitor"):
            request.state.visitor = new_link_token()
        token = request.state.visitor
    return token.encode()


def csrf_token(request: Request, workspace_id: str) -> str:
    """What our forms carry in the field ``csrf``. Another site can make the browser send its cookie, but not this.

    It also says in which workspace the page was opened (none: nobody is signed in).
    """
    signed = b"ownkey/csrf/v2" + workspace_id.encode()
    return f"{workspace_id}.{hmac.new(browser_key(request), signed, hashlib.sha256).hexdigest()}"


def check_csrf(request: Request, sent: str) -> str:
    """The workspace in which a form was opened; raises ``Forbidden`` unless it carries this browser's token."""
    workspace_id = sent.partition(".")[0]
    if not hmac.compare_digest(csrf_token(request, workspace_id).encode(), sent.encode()):
        raise Forbidden("This form is out of date. Go back, reload the page and send it again.")
    return workspace_id


async def check_place(request: Request, workspace_id: str) -> None:
    """Raise ``Conflict`` if the person is now elsewhere than where the form was opened: it would act there."""
    signed_in = await current(request)
    if signed_in is not None and workspace_id not in ("", signed_in.workspace.id):
        raise Conflict(
            f"You are in {signed_in.workspace.name} of {signed_in.organization.name} now, and this page was opened in "
            "another workspace. Nothing was changed. Go back, reload the page, or switch to the other workspace first."
        )


def check_origin(request: Request) -> None:
    """Raise ``Forbidden`` for a change that a page of another site, or no page at all, has asked for."""
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    ours = {
        urlsplit(node_of(request).settings.public_url).netloc,
        request.headers.get("host", ""),
    }
    if site is not None and site != "same-origin":
        raise Forbidden("This request came from another site.")
    # An origin is a scheme and a host only, so that any other text is none of ours.
    if origin and origin.partition("://")[2] not in ours - {""}:
        raise Forbidden("This request came from another site.")
    if not origin and site is None:
        raise Forbidden("This request does not say which page it came from. Send the form from its own page.")


def way_back(request: Request) -> str:
    """Where to return to, as after signing in: the page asked for, or the page whose form was sent."""
    if request.method in _SAFE_METHODS:
        query = f"?{request.url.query}" if request.url.query else ""
        return local_path(request.url.path + query)
    try:
        path = local_path(urlsplit(request.headers.get("referer", "")).path)
    except ValueError:
        return HOME
    # A form that came back with an error stands where it was sent to, which may be no page; its page is above that.
    if path == request.url.path:
        while path.count("/") > 1 and not _opens(request, path):
            path = path.rpartition("/")[0]
    return path


def _opens(request: Request, path: str) -> bool:
    asked = {**request.scope, "method": "GET", "path": path}
    return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)


def _role(signed_in: SignedIn) -> str:
    return signed_in.actor.role.label if signed_in.actor.role else "unknown"
