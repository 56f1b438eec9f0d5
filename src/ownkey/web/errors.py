"""Show an error: a page to a person, a problem document (RFC 9457) to a program."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Match, Route

from ownkey.accounts.sessions import SignedIn
from ownkey.errors import Conflict, Expired, Forbidden, Internal, InvalidRequest, NotFound, OwnkeyError, RequestTooLarge
from ownkey.web import session
from ownkey.web.rendering import render
from ownkey.web.session import ConfirmationRequired, SignInRequired

_TITLES = {
    400: "This request cannot be used",
    401: "Sign in first",
    403: "This is not open to you",
    404: "There is nothing here",
    405: "This page does not take that",
    409: "That does not fit",
    410: "This link is used up",
    413: "That is too large",
    429: "Too many requests",
    503: "Not available for the moment",
}
_BY_STATUS: dict[int, type[OwnkeyError]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: RequestTooLarge,
}


def install(app: Starlette) -> None:
    """Make the application answer every error through this module."""
    app.add_exception_handler(OwnkeyError, show)
    app.add_exception_handler(HTTPException, show)
    app.add_exception_handler(RequestValidationError, show)


async def show(request: Request, error: Exception) -> Response:
    """The reply to an error, in the form the caller asked for."""
    status, told = _told(request, error)
    if wants_json(request):
        return problem(request, told, status)
    if isinstance(told, SignInRequired | ConfirmationRequired):
        return RedirectResponse(told.location, status_code=303, headers=told.headers)
    response = render(
        request,
        "error.html",
        signed_in=await _signed_in(request, status),
        status=status,
        title=_TITLES.get(status, "That did not work"),
        message=told.message,
        request_id=getattr(request.state, "request_id", ""),
        retry=session.way_back(request) if status >= 500 else "",
    )
    response.headers.update(told.headers)
    return response


async def _signed_in(request: Request, status: int) -> SignedIn | None:
    """Who is signed in; nobody has asked yet if there is no such page. After a failure of ours only if it is known."""
    if status >= 500:
        return getattr(request.state, "signed_in", None)
    try:
        return await session.current(request)
    except OwnkeyError:
        return None


def wants_json(request: Request) -> bool:
    """Whether the caller is a program: it talks to the management API, sends JSON, or takes JSON and not HTML."""
    accept = request.headers.get("accept", "")
    sends_json = "json" in request.headers.get("content-type", "")
    return request.url.path.startswith("/api/") or (("json" in accept or sends_json) and "text/html" not in accept)


def problem(request: Request, error: OwnkeyError, status: int) -> Response:
    """An error as ``application/problem+json``; ``code`` is the stable name a program should look at."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "request_id": getattr(request.state, "request_id", ""),
    }
    return JSONResponse(
        {**error.detail, **body}, status_code=status, headers=error.headers, media_type="application/problem+json"
    )


def _told(request: Request, error: Exception) -> tuple[int, OwnkeyError]:
    """The status and the error of ours that stands for what was raised."""
    if isinstance(error, OwnkeyError):
        return error.status, error
    if isinstance(error, RequestValidationError):
        return 400, InvalidRequest(_what_is_wrong(error))
    if isinstance(error, HTTPException) and error.status_code == 405:
        return 405, _not_that_way(request)
    if isinstance(error, HTTPException):
        kind = _BY_STATUS.get(error.status_code, InvalidRequest if error.status_code < 500 else Internal)
        return error.status_code, kind(headers=error.headers)
    return 500, Internal()


def _what_is_wrong(error: RequestValidationError) -> str:
    first = error.errors()[0]
    place, *inside = first["loc"]
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']}, at character {inside[0]}."
    if place == "body" and not inside:
        return "Send a JSON object, with Content-Type: application/json."
    return f"{'.'.join(map(str, inside))}: {first['msg']}."


def _not_that_way(request: Request) -> InvalidRequest:
    # Of several routes that share a path Starlette would name the methods of the first.
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is Match.PARTIAL]
    possible = {method for route in routes if isinstance(route, Route) for method in route.methods or ()} or {"GET"}
    allow = ", ".join(sorted(possible | ({"HEAD"} if "GET" in possible else set())))
    return InvalidRequest(f"{request.method} is not possible here; these are: {allow}.", headers={"allow": allow})
