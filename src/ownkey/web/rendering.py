"""Turn a template into a reply, and a finished form into a redirect."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ownkey.accounts.sessions import SignedIn
from ownkey.web import formatting, navigation, notices, session

STATIC = Path(__file__).parent / "static"


def render(
    request: Request, template: str, *, signed_in: SignedIn | None = None, status: int = 200, **context: Any
) -> HTMLResponse:
    """The page a template makes.

    Every template also has ``request``, ``signed_in``, ``app_name``, ``public_url``, ``notice``, ``path``,
    ``settings_navigation``, ``form`` (None unless given), ``csrf_field()``, ``static()`` and ``icon()``.
    """
    settings = session.node_of(request).settings
    values: dict[str, Any] = {
        "form": None,
        "notice": notices.find(request),
        **context,
        "request": request,
        "signed_in": signed_in,
        "app_name": settings.app_name,
        "public_url": settings.public_url,
        "path": request.url.path,
        "settings_navigation": navigation.settings_for(signed_in.actor) if signed_in else [],
    }
    response = HTMLResponse(_environment().get_template(template).render(values), status_code=status)
    if session.read_cookie(request, "notice"):
        notices.clear(request, response)
    _keep_visitor(request, response)
    return response


def redirect(request: Request, url: str, notice: str | None = None, kind: notices.Kind = "success") -> Response:
    """Send the browser on to a path of ours (303, so that a reload repeats nothing), with a notice to show there."""
    response = RedirectResponse(url, status_code=303)
    if notice:
        notices.leave(request, response, notices.Notice(notice, kind))
    _keep_visitor(request, response)
    return response


def _keep_visitor(request: Request, response: Response) -> None:
    visitor = getattr(request.state, "visitor", None)
    if visitor:
        session.set_cookie(request, response, "visitor", visitor, session.COOKIE_LIFETIME)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ownkey.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"csrf_field": _csrf_field, "static": static, "icon": icon, "plural": formatting.plural}
    environment.filters |= {
        "number": formatting.number,
        "compact": formatting.compact,
        "money": formatting.money,
        "micros": formatting.micros,
        "day": formatting.day,
        "month": formatting.month,
        "when": formatting.when,
        "ago": formatting.ago,
    }
    return environment


@pass_context
def _csrf_field(context: Context) -> Markup:
    signed_in: SignedIn | None = context["signed_in"]
    token = session.csrf_token(context["request"], signed_in.workspace.id if signed_in else "")
    return Markup('<input type="hidden" name="csrf" value="{}">').format(token)


def static(name: str) -> str:
    """The address of a static file; it changes with the file, so browsers may keep what they have for ever."""
    return f"/static/{name}?{version(STATIC / name)}"


@cache
def version(file: Path) -> str:
    """What the address of a static file has as its query."""
    return f"v={hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


@cache
def icon(name: str) -> Markup:
    """A picture from ``static/icons`` as inline SVG; decoration only, so screen readers pass over it."""
    svg = (STATIC / "icons" / f"{name}.svg").read_text(encoding="utf-8").strip()
    # Our own files: nothing in them comes from a caller.
    return Markup(svg.replace("<svg ", '<svg class="icon" aria-hidden="true" focusable="false" ', 1))  # noqa: S704
