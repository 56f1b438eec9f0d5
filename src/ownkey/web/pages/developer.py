"""Settings → Developer: the workspace's API tokens, and the lines to put into a program."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.access import Role
from ownkey.accounts import api_tokens, subscriptions
from ownkey.accounts.api_tokens import ApiToken
from ownkey.accounts.sessions import SignedIn
from ownkey.errors import Forbidden, InvalidRequest, NotFound
from ownkey.web import forms, session, snippets
from ownkey.web.forms import Form
from ownkey.web.rendering import redirect, render

PATH = "/settings/developer"


async def show(request: Request) -> Response:
    """``GET /settings/developer``: developers and up."""
    return await _page(request, await session.require(request))


async def open_form(request: Request) -> Response:
    """``GET /settings/developer/tokens/new``: the page with the form for a new token."""
    return await _page(request, await session.require(request), generating=True)


async def generate(request: Request) -> Response:
    """``POST /settings/developer/tokens``: make a token and show it, this once."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    node = session.node_of(request)
    if not (await subscriptions.plan_of(node.db, signed_in.actor, node.catalogue)).api_access:
        raise Forbidden("Your plan does not include API access. The owner can change it under Settings → Billing.")
    name = form.text("name", "a name", longest=100)
    scopes = form.many("scope")
    if not scopes:
        form.fail("scope", "Choose at least one scope.")
    if not form.ok:
        return await _page(request, signed_in, generating=True, form=form)
    try:
        made, text = await api_tokens.create(node.db, signed_in.actor, name, scopes)
    except InvalidRequest as error:
        form.fail("", error.message)
        return await _page(request, signed_in, generating=True, form=form)
    # Not a redirect: the token is kept nowhere, so it can be shown only in the reply to its making.
    return await _page(request, signed_in, made=made, text=text)


async def open_rename(request: Request) -> Response:
    """``GET /settings/developer/tokens/{token}/rename``: the page with that token's name in a field."""
    signed_in = await session.require(request)
    return await _page(request, signed_in, renaming=await _token(request, signed_in))


async def rename(request: Request) -> Response:
    """``POST /settings/developer/tokens/{token}/rename``."""
    form = await forms.read(request)
    signed_in = await session.require(request)
    name = form.text("name", "a name", longest=100)
    if form.ok:
        try:
            await api_tokens.rename(session.node_of(request).db, signed_in.actor, request.path_params["token"], name)
        except InvalidRequest as error:
            form.fail("name", error.message)
    if not form.ok:
        return await _page(request, signed_in, renaming=await _token(request, signed_in), form=form)
    return redirect(request, PATH, "The token is renamed.")


async def confirm_revocation(request: Request) -> Response:
    """``GET /settings/developer/tokens/{token}/revoke``: the question, for a browser without the dialog."""
    signed_in = await session.require(request)
    return render(request, "developer_revoke.html", signed_in=signed_in, token=await _token(request, signed_in))


async def revoke(request: Request) -> Response:
    """``POST /settings/developer/tokens/{token}/revoke``: from now on the token is refused."""
    await forms.read(request)
    signed_in = await session.require(request)
    token = await _token(request, signed_in)
    await api_tokens.revoke(session.node_of(request).db, signed_in.actor, token.id)
    return redirect(request, PATH, f"{token.name} is revoked. Requests with it are refused from now on.")


async def _token(request: Request, signed_in: SignedIn) -> ApiToken:
    tokens = await api_tokens.list_tokens(session.node_of(request).db, signed_in.actor)
    for token in tokens:
        if token.id == request.path_params["token"]:
            return token
    raise NotFound


async def _page(
    request: Request,
    signed_in: SignedIn,
    *,
    generating: bool = False,
    renaming: ApiToken | None = None,
    form: Form | None = None,
    made: ApiToken | None = None,
    text: str = "",
) -> Response:
    node, actor = session.node_of(request), signed_in.actor
    return render(
        request,
        "developer.html",
        signed_in=signed_in,
        status=422 if form else 200,
        plan=await subscriptions.plan_of(node.db, actor, node.catalogue),
        is_owner=actor.role is Role.OWNER,
        tokens=await api_tokens.list_tokens(node.db, actor),
        scopes=api_tokens.scopes_for(actor.role or Role.USER),
        chosen=form.many("scope") if form else ["gateway"],
        snippets=snippets.for_programs(node.settings.public_url),
        base_urls=snippets.base_urls(node.settings.public_url, node.providers),
        generating=generating,
        renaming=renaming,
        form=form,
        made=made,
        text=text,
    )
