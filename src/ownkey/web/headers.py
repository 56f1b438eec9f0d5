"""What every reply of the pages and the management API carries, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ownkey.errors import Internal
from ownkey.ids import new_id
from ownkey.web import session

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)

SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Not no-referrer: browsers would then send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_STRICT_TRANSPORT = "max-age=31536000"

log = structlog.get_logger()


class ReplyHeaders:
    """ASGI middleware: security headers, ``no-store`` and a request id on every reply, and a page for what broke."""

    def __init__(self, app: ASGIApp, on_failure: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self._app = app
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # As GET: the server leaves the body out, and no route needs to name both.
            scope = {**scope, "method": "GET"}
        request = Request(scope, receive)
        request_id = request.state.request_id = getattr(request.state, "request_id", None) or new_id("req")
        secure = session.node_of(request).settings.secure
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("x-request-id", request_id)
                if secure:
                    headers.setdefault("strict-transport-security", _STRICT_TRANSPORT)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request failed", request_id=request_id, method=request.method, path=request.url.path)
            if started:
                raise
            response = await self._on_failure(request, Internal())
            await response(scope, receive, send_with_headers)
