"""Accepting an invitation: as the person who is signed in, with one's password, or as a new person who chooses one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import invitations, passwords, sessions, sign_in, users
from ownkey.accounts.sessions import SignedIn
from ownkey.errors import Conflict, Forbidden, InvalidRequest, NotAuthenticated, TooManyAttempts
from ownkey.web import forms, session
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render


async def show(request: Request) -> Response:
    """``GET /invitations/{token}``: what is offered, by whom, and the way to accept that fits who looks."""
    return await _page(request, None)


async def submit(request: Request) -> Response:
    """``POST /invitations/{token}``: accept, and go into the workspace."""
    form = await forms.read(request, anywhere=True)
    name = form.own_name()
    if not form.ok:
        return await _page(request, form)
    try:
        token = await _accept(request, form, name)
    except (InvalidRequest, NotAuthenticated, TooManyAttempts) as error:
        form.fail("" if await _signed_in(request) else "password", error.message)
        return await _page(request, form, 429 if isinstance(error, TooManyAttempts) else 422)
    except Conflict as error:
        form.fail("", error.message)
        return await _page(request, form, error.status)
    response = redirect(request, session.HOME)
    await session.start(request, response, token)
    return response


async def _accept(request: Request, form: Form, name: str) -> str:
    """Accept as the person who is signed in, as one who gives their password now, or as a new one who chooses it."""
    node, client, link = session.node_of(request), session.client_of(request), request.path_params["token"]
    signed_in, password = await _signed_in(request), form.get("password", "")
    if signed_in:
        person_id, session_id = signed_in.user.id, signed_in.session_id
        return await invitations.accept(node.db, link, user_id=person_id, session_id=session_id, **client)
    offer = await invitations.look(node.db, link)
    if not offer.has_account:
        known = (node.settings.app_name,)
        return await invitations.accept(node.db, link, password=password, name=name, context=known, **client)
    email = offer.invitation.email
    # The password is proved as at sign-in, with the same limit; the session that begins is replaced at once.
    proof = await sign_in.with_password(node.db, email, password, **client)
    person = await users.by_email(node.db, email)
    try:
        return await invitations.accept(node.db, link, user_id=person.id if person else "", **client)
    finally:
        await sessions.revoke(node.db, proof)


async def _signed_in(request: Request) -> SignedIn | None:
    try:
        return await session.current(request)
    except Forbidden:
        # Known, but in no workspace: the invitation is how that changes. They give their password on this page.
        return None


async def _page(request: Request, form: Form | None, status: int = 422) -> Response:
    node, signed_in = session.node_of(request), await _signed_in(request)
    offer = await invitations.look(node.db, request.path_params["token"])
    return render(
        request,
        "invitation.html",
        signed_in=signed_in,
        form=form,
        status=status if form else 200,
        offer=offer,
        invitation=offer.invitation,
        is_theirs=signed_in is not None and signed_in.user.email == offer.invitation.email,
        shortest=passwords.SHORTEST,
    )
