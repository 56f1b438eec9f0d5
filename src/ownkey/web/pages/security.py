"""Settings → Security: your password, and where you are signed in."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import passwords, sessions
from ownkey.accounts import sign_in as accounts
from ownkey.errors import InvalidRequest, TooManyAttempts
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render

_URL = "/settings/security"
# Order matters: Edge and Opera also call themselves Chrome, and Chrome calls itself Safari.
_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone|iPad", "iOS"),
    ("Windows", "Windows"),
    ("Mac OS X|Macintosh", "macOS"),
    ("Linux|X11", "Linux"),
)


async def show(request: Request) -> Response:
    """``GET /settings/security``."""
    return await _page(request, None)


async def change_password(request: Request) -> Response:
    """``POST /settings/security/password``; ends every other session."""
    form = await forms.read(request, anywhere=True)
    node, signed_in = session.node_of(request), await session.require(request)
    new, known = form.get("new", ""), (node.settings.app_name,)
    try:
        # First the new one by itself, so that each field is told its own error.
        passwords.check(new, context=(signed_in.user.email, signed_in.user.name, *known))
    except InvalidRequest as error:
        form.fail("new", error.message)
        return await _page(request, form, 422)
    try:
        await accounts.change_password(node.db, signed_in, form.get("current", ""), new, known)
    except (InvalidRequest, TooManyAttempts) as error:
        form.fail("current", error.message)
        return await _page(request, form, 429 if isinstance(error, TooManyAttempts) else 422)
    return redirect(request, _URL, notice="Your password is changed. You are signed out everywhere else.")


async def sign_out_others(request: Request) -> Response:
    """``POST /settings/security/sessions``: end one session (field ``session``), or all but this one."""
    form = await forms.read(request, anywhere=True)
    signed_in = await session.require(request)
    db, one = session.node_of(request).db, form.get("session", "")
    if one:
        await sessions.revoke_one(db, signed_in, one)
        return redirect(request, _URL, notice="That browser is signed out.")
    await sessions.revoke_all(db, signed_in.user.id, except_session_id=signed_in.session_id)
    return redirect(request, _URL, notice="You are signed out everywhere else.")


def device(user_agent: str | None) -> str:
    """What a browser calls itself, in words: ``Firefox on Linux``."""
    told = user_agent or ""
    browser = next((name for mark, name in _BROWSERS if mark in told), "")
    system = next((name for marks, name in _SYSTEMS if re.search(marks, told)), "")
    return " on ".join(part for part in (browser, system) if part) or "Unknown browser"


async def _page(request: Request, form: Form | None, status: int = 200) -> Response:
    signed_in = await session.require(request)
    return render(
        request,
        "security.html",
        signed_in=signed_in,
        form=form,
        status=status,
        shortest=passwords.SHORTEST,
        device=device,
        sessions=await sessions.list_for(session.node_of(request).db, signed_in.user.id),
    )
