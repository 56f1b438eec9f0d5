"""Every page, one line each: how it is asked for, who answers, and what the asker must be allowed to do."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ownkey.access import Action
from ownkey.web import errors, session
from ownkey.web.headers import ReplyHeaders
from ownkey.web.pages import (
    account,
    assistant,
    audit,
    billing,
    caps,
    conversations,
    developer,
    help,
    integrations,
    invitation,
    members,
    organization,
    security,
    sign_in,
    usage,
    workspace,
)
from ownkey.web.rendering import STATIC, version

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page or a form. ``needs`` None: open to anyone. ``recent``: needs a password given in the last ten minutes."""

    method: str
    path: str
    handler: Handler
    needs: Action | None
    recent: bool = False


PAGES: tuple[Page, ...] = (
    # Coming and going
    Page("GET", "/", sign_in.first, None),
    Page("GET", "/sign-in", sign_in.show, None),
    Page("POST", "/sign-in", sign_in.submit, None),
    Page("GET", "/sign-in/{token}", sign_in.show_link, None),
    Page("POST", "/sign-in/{token}", sign_in.submit_link, None),
    Page("POST", "/sign-out", sign_in.sign_out, None),
    Page("GET", "/confirm-password", sign_in.show_confirmation, Action.PASSWORD_CHANGE),
    Page("POST", "/confirm-password", sign_in.submit_confirmation, Action.PASSWORD_CHANGE),
    Page("GET", "/invitations/{token}", invitation.show, None),
    Page("POST", "/invitations/{token}", invitation.submit, None),
    # The assistant, and help
    Page("GET", "/assistant", assistant.show, Action.ASSISTANT_USE),
    Page("POST", "/assistant/messages", assistant.send, Action.ASSISTANT_USE),
    Page("GET", "/assistant/conversations", conversations.show, Action.ASSISTANT_USE),
    Page("GET", "/assistant/{conversation}/delete", conversations.confirm_removal, Action.ASSISTANT_USE),
    Page("GET", "/assistant/{conversation}", assistant.open_conversation, Action.ASSISTANT_USE),
    Page("POST", "/assistant/{conversation}/delete", assistant.remove, Action.ASSISTANT_USE),
    Page("GET", "/help", help.index, None),
    Page("GET", "/help/{article}", help.show, None),
    # Settings: you
    Page("GET", "/settings", account.first, Action.ACCOUNT_UPDATE),
    Page("GET", "/settings/account", account.show, Action.ACCOUNT_UPDATE),
    Page("POST", "/settings/account", account.submit, Action.ACCOUNT_UPDATE),
    Page("GET", "/settings/security", security.show, Action.PASSWORD_CHANGE),
    Page("POST", "/settings/security/password", security.change_password, Action.PASSWORD_CHANGE),
    Page("POST", "/settings/security/sessions", security.sign_out_others, Action.SESSION_REVOKE),
    # Settings: workspace
    Page("POST", "/workspace", workspace.switch, Action.WORKSPACE_READ),
    Page("GET", "/settings/workspace", workspace.show, Action.WORKSPACE_READ),
    Page("POST", "/settings/workspace", workspace.rename, Action.WORKSPACE_UPDATE),
    Page("POST", "/settings/workspace/cap", caps.save_workspace, Action.CAP_SET),
    Page("POST", "/settings/workspace/new", workspace.create, Action.WORKSPACE_CREATE),
    Page("GET", "/settings/members", members.show, Action.MEMBERSHIP_READ),
    Page("POST", "/settings/members/invitations", members.invite, Action.INVITATION_CREATE, recent=True),
    Page(
        "POST",
        "/settings/members/invitations/{invitation}/revoke",
        members.revoke_invitation,
        Action.INVITATION_REVOKE,
    ),
    Page("POST", "/settings/members/{user}/role", members.change_role, Action.MEMBERSHIP_CHANGE_ROLE, recent=True),
    Page("GET", "/settings/members/{user}/workspaces", members.open_add, Action.MEMBERSHIP_ADD, recent=True),
    Page("POST", "/settings/members/{user}/workspaces", members.add, Action.MEMBERSHIP_ADD, recent=True),
    Page("GET", "/settings/members/{user}/cap", caps.open_member, Action.CAP_SET),
    Page("POST", "/settings/members/{user}/cap", caps.save_member, Action.CAP_SET),
    Page("GET", "/settings/members/{user}/remove", members.confirm_removal, Action.MEMBERSHIP_REMOVE),
    Page("POST", "/settings/members/{user}/remove", members.remove, Action.MEMBERSHIP_REMOVE, recent=True),
    Page("GET", "/settings/integrations", integrations.show, Action.WORKSPACE_READ),
    Page("GET", "/settings/integrations/{provider}", integrations.open_form, Action.PROVIDER_KEY_ADD, recent=True),
    Page("POST", "/settings/integrations/{provider}", integrations.save, Action.PROVIDER_KEY_ADD, recent=True),
    Page("POST", "/settings/integrations/{provider}/check", integrations.check, Action.PROVIDER_KEY_CHECK),
    Page(
        "POST",
        "/settings/integrations/{provider}/fallback",
        integrations.set_fallback,
        Action.PROVIDER_KEY_SET_FALLBACK,
    ),
    Page("GET", "/settings/integrations/{provider}/remove", integrations.confirm_removal, Action.PROVIDER_KEY_REMOVE),
    Page(
        "POST",
        "/settings/integrations/{provider}/remove",
        integrations.remove,
        Action.PROVIDER_KEY_REMOVE,
        recent=True,
    ),
    Page("GET", "/settings/usage", usage.show, Action.USAGE_READ),
    Page("GET", "/settings/developer", developer.show, Action.API_TOKEN_READ),
    Page("GET", "/settings/developer/tokens/new", developer.open_form, Action.API_TOKEN_CREATE, recent=True),
    Page("POST", "/settings/developer/tokens", developer.generate, Action.API_TOKEN_CREATE, recent=True),
    Page("GET", "/settings/developer/tokens/{token}/rename", developer.open_rename, Action.API_TOKEN_RENAME),
    Page("POST", "/settings/developer/tokens/{token}/rename", developer.rename, Action.API_TOKEN_RENAME),
    Page("GET", "/settings/developer/tokens/{token}/revoke", developer.confirm_revocation, Action.API_TOKEN_REVOKE),
    Page("POST", "/settings/developer/tokens/{token}/revoke", developer.revoke, Action.API_TOKEN_REVOKE),
    # Settings: organization
    Page("GET", "/settings/organization", organization.show, Action.ORGANIZATION_UPDATE),
    Page("POST", "/settings/organization", organization.rename, Action.ORGANIZATION_UPDATE),
    Page("GET", "/settings/audit", audit.show, Action.AUDIT_READ),
    Page("GET", "/settings/audit.csv", audit.export, Action.AUDIT_READ),
    Page("GET", "/settings/billing", billing.show, Action.BILLING_READ),
    Page("POST", "/settings/billing", billing.change_plan, Action.SUBSCRIPTION_CHANGE, recent=True),
)


def mount(app: FastAPI) -> None:
    """Add the pages, their static files, and what surrounds every reply, to the application."""
    # With a slash at its end a path is another one. Starlette would send people on to the host that the request names.
    app.router.redirect_slashes = False
    for page in PAGES:
        app.add_route(page.path, guarded(page), methods=[page.method], include_in_schema=False)
    app.mount("/static", _Static(directory=STATIC))
    errors.install(app)
    app.add_middleware(ReplyHeaders, on_failure=errors.show)


def guarded(page: Page) -> Handler:
    """The page, behind the checks that its line names: nobody writes a page that forgets them."""

    async def answer(request: Request) -> Response:
        session.check_origin(request)
        if page.needs is not None:
            signed_in = await session.authorize(request, page.needs)
            if page.recent:
                session.require_recent(request, signed_in)
        return await page.handler(request)

    return answer


class _Static(StaticFiles):
    """Static files; one asked for by the address that changes with its content may be kept for a year."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        current = scope["query_string"].decode("latin-1") == version(Path(full_path))
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if current else "no-cache"
        return response
