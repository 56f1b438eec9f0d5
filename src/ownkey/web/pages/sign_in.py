"""Coming and going: sign in with a password or a one-time link, confirm the password, sign out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import passwords, users
from ownkey.accounts import sign_in as accounts
from ownkey.errors import Forbidden, InvalidRequest, NotAuthenticated, TooManyAttempts
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render


async def first(request: Request) -> Response:
    """``GET /``: to the assistant, or to the sign-in page."""
    return redirect(request, session.HOME if await session.current(request) else "/sign-in")


async def show(request: Request) -> Response:
    """``GET /sign-in?next=/…``; whoever is signed in already goes on."""
    try:
        signed_in = await session.current(request)
    except Forbidden:
        # Known, but in no workspace: the only way on is to be somebody else.
        signed_in = None
    next_path = session.local_path(request.query_params.get("next"))
    return redirect(request, next_path) if signed_in else _sign_in_page(request, None, next_path)


async def submit(request: Request) -> Response:
    """``POST /sign-in``: e-mail and password."""
    form = await forms.read(request, anywhere=True)
    next_path = session.local_path(form.get("next"))
    email, password = form.text("email", "your e-mail address", longest=254), form.get("password", "")
    if not password:
        form.fail("password", "Enter your password.")
    if not form.ok:
        return _sign_in_page(request, form, next_path, 422)
    db = session.node_of(request).db
    try:
        token = await accounts.with_password(db, email, password, **session.client_of(request))
    except InvalidRequest as error:
        form.fail("email", error.message)
        return _sign_in_page(request, form, next_path, 422)
    except (NotAuthenticated, TooManyAttempts) as error:
        form.fail("", error.message)
        response = _sign_in_page(request, form, next_path, error.status)
        response.headers.update(error.headers)
        return response
    return await _welcome(request, token, next_path)


async def show_link(request: Request) -> Response:
    """``GET /sign-in/{token}``: who the link is for, and a password to choose. Looking does not use the link up."""
    return await _link_page(request, None)


async def submit_link(request: Request) -> Response:
    """``POST /sign-in/{token}``: choose the password and sign in; the link is used up."""
    form = await forms.read(request, anywhere=True)
    node, token = session.node_of(request), request.path_params["token"]
    name = form.own_name()
    if not form.ok:
        return await _link_page(request, form)
    try:
        started = await accounts.redeem_link(
            node.db,
            token,
            form.get("password", ""),
            name=name,
            context=(node.settings.app_name,),
            **session.client_of(request),
        )
    except InvalidRequest as error:
        form.fail("password", error.message)
        return await _link_page(request, form)
    return await _welcome(request, started, session.HOME)


async def sign_out(request: Request) -> Response:
    """``POST /sign-out``, and on to the sign-in page, or to ``next`` if the form has one."""
    form = await forms.read(request, anywhere=True)
    response = redirect(request, session.local_path(form["next"]) if "next" in form else "/sign-in")
    await session.end(request, response)
    return response


async def show_confirmation(request: Request) -> Response:
    """``GET /confirm-password?next=/…``: before a change of keys or roles, when the last time is a while ago."""
    return await _confirmation_page(request, None, session.local_path(request.query_params.get("next")))


async def submit_confirmation(request: Request) -> Response:
    """``POST /confirm-password``."""
    form = await forms.read(request, anywhere=True)
    signed_in = await session.require(request)
    next_path = session.local_path(form.get("next"))
    try:
        await accounts.confirm_password(session.node_of(request).db, signed_in, form.get("password", ""))
    except (InvalidRequest, TooManyAttempts) as error:
        form.fail("password", error.message)
        status = 429 if isinstance(error, TooManyAttempts) else 422
        return await _confirmation_page(request, form, next_path, status)
    return redirect(request, next_path, notice="Thank you. You can make your change now.")


async def _welcome(request: Request, token: str, next_path: str) -> Response:
    response = redirect(request, next_path)
    await session.start(request, response, token)
    return response


def _sign_in_page(request: Request, form: Form | None, next_path: str, status: int = 200) -> Response:
    return render(request, "sign_in.html", form=form, next_path=next_path, status=status)


async def _link_page(request: Request, form: Form | None) -> Response:
    node, token = session.node_of(request), request.path_params["token"]
    email = await accounts.link_email(node.db, token)
    person = await users.by_email(node.db, email)
    return render(
        request,
        "sign_in_link.html",
        form=form,
        email=email,
        name=person.name if person else "",
        shortest=passwords.SHORTEST,
        status=422 if form else 200,
    )


async def _confirmation_page(request: Request, form: Form | None, next_path: str, status: int = 200) -> Response:
    signed_in = await session.require(request)
    return render(request, "confirm_password.html", signed_in=signed_in, form=form, next_path=next_path, status=status)
