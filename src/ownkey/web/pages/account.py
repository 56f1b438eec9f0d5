"""Settings → Account: who you are and where you work."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import users
from ownkey.errors import InvalidRequest
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render


async def first(request: Request) -> Response:
    """``GET /settings``: to the first of its pages."""
    return redirect(request, "/settings/account")


async def show(request: Request) -> Response:
    """``GET /settings/account``."""
    return await _page(request, None)


async def submit(request: Request) -> Response:
    """``POST /settings/account``: change your own name."""
    form = await forms.read(request, anywhere=True)
    signed_in = await session.require(request)
    try:
        await users.rename(session.node_of(request).db, signed_in.actor, form.get("name", ""))
    except InvalidRequest as error:
        form.fail("name", error.message)
        return await _page(request, form)
    return redirect(request, "/settings/account", notice="Your name is saved.")


async def _page(request: Request, form: Form | None) -> Response:
    signed_in = await session.require(request)
    return render(request, "account.html", signed_in=signed_in, form=form, status=422 if form else 200)
