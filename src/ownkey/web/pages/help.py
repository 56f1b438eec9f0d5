"""Help: four short articles, readable without signing in. What can be generated from a table of the code is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ownkey.access import LOWEST_ROLE, Action, Role
from ownkey.accounts.sessions import SignedIn
from ownkey.errors import Forbidden, NotFound
from ownkey.web import session
from ownkey.web.markdown import to_html
from ownkey.web.rendering import render

_FOLDER = Path(__file__).parent.parent / "help"
# Where an article wants the table that its template makes.
_TABLE = "<p>[[table]]</p>"


@dataclass(frozen=True, slots=True)
class Article:
    """A page of help: a Markdown file, and the template of the table in its middle, if it has one."""

    slug: str
    summary: str
    table: str | None = None

    @property
    def title(self) -> str:
        """The file's first line."""
        return _source(self.slug).partition("\n")[0].removeprefix("# ")


ARTICLES: Mapping[str, Article] = {
    article.slug: article
    for article in (
        Article("bring-your-own-key", "Connect, replace and remove your organization's own provider key."),
        Article("using-ai", "Tokens, the monthly allowance, and what happens when it is used up."),
        Article("roles", "What users, developers, admins and the owner can do.", "help_roles.html"),
        Article("platforms", "The AI providers a key can be connected for.", "help_platforms.html"),
    )
}

# What an action is called on the page; every one that a role can reach is here.
PERMISSIONS: Mapping[Action, str] = {
    Action.ASSISTANT_USE: "Use the assistant",
    Action.USAGE_READ: "See usage and the allowance",
    Action.WORKSPACE_READ: "See the workspace and its integrations",
    Action.ACCOUNT_UPDATE: "Change their own name",
    Action.PASSWORD_CHANGE: "Change their own password",
    Action.SESSION_SIGN_IN: "Sign in",
    Action.SESSION_REVOKE: "End their own sessions",
    Action.API_TOKEN_READ: "See API tokens",
    Action.API_TOKEN_CREATE: "Generate API tokens",
    Action.API_TOKEN_RENAME: "Rename API tokens",
    Action.API_TOKEN_REVOKE: "Revoke API tokens",
    Action.WORKSPACE_UPDATE: "Rename the workspace",
    Action.WORKSPACE_CREATE: "Create workspaces",
    Action.MEMBERSHIP_READ: "See members",
    Action.MEMBERSHIP_ADD: "Add members to a workspace",
    Action.MEMBERSHIP_CHANGE_ROLE: "Change the roles of others",
    Action.MEMBERSHIP_REMOVE: "Remove members",
    Action.CAP_SET: "Cap what a member or a workspace may use",
    Action.CAP_REMOVE: "Lift caps",
    Action.INVITATION_CREATE: "Invite people",
    Action.INVITATION_REVOKE: "Take invitations back",
    Action.PROVIDER_KEY_ADD: "Connect provider keys",
    Action.PROVIDER_KEY_REPLACE: "Update provider keys",
    Action.PROVIDER_KEY_SET_FALLBACK: "Choose what happens when a provider key fails",
    Action.PROVIDER_KEY_REMOVE: "Remove provider keys",
    Action.PROVIDER_KEY_CHECK: "Check provider keys",
    Action.ORGANIZATION_UPDATE: "Rename the organization",
    Action.AUDIT_READ: "Read the audit log",
    Action.BILLING_READ: "See the plan and seats",
    Action.SUBSCRIPTION_CHANGE: "Change the plan",
}


async def index(request: Request) -> Response:
    """``GET /help``: anyone."""
    return render(request, "help.html", signed_in=await _reader(request), articles=ARTICLES.values())


async def show(request: Request) -> Response:
    """``GET /help/{article}``: anyone."""
    article = ARTICLES.get(request.path_params["article"])
    if article is None:
        raise NotFound("There is no such help article.")
    node = session.node_of(request)
    settings = node.settings
    text = _source(article.slug).replace("{{ app_name }}", settings.app_name)
    before, _, after = to_html(text.replace("{{ public_url }}", settings.public_url)).partition(_TABLE)
    return render(
        request,
        "help_article.html",
        signed_in=await _reader(request),
        articles=ARTICLES.values(),
        article=article,
        before=before,
        after=after,
        roles=list(Role),
        permissions=permissions(),
        providers=node.providers.values(),
    )


def permissions() -> Sequence[tuple[str, Role]]:
    """Each permission's words and the lowest role that has it, lowest first. The operator's own are left out."""
    rows = [(PERMISSIONS[action], role) for action, role in LOWEST_ROLE.items() if role is not None]
    return sorted(rows, key=lambda row: row[1])


async def _reader(request: Request) -> SignedIn | None:
    try:
        return await session.current(request)
    except Forbidden:
        return None  # Somebody without a workspace may still read.


@cache
def _source(slug: str) -> str:
    return (_FOLDER / f"{slug}.md").read_text(encoding="utf-8")
