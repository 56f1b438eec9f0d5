"""Every route of the management API, one line each: who answers, and what the caller's role and token must allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from ownkey.access import Action
from ownkey.accounts.api_tokens import require_scope
from ownkey.accounts.places import require
from ownkey.api import api_tokens, audit, caps, members, organization, plan, provider_keys, usage
from ownkey.api.authentication import AuthenticatedRoute, Caller, Here
from ownkey.api.shapes import Problem
from ownkey.errors import InvalidRequest

PREFIX = "/api/v1"
Handler = Callable[..., Awaitable[Any]]
_PROBLEM: dict[str, Any] = {
    "description": "A problem document",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


@dataclass(frozen=True, slots=True)
class Route:
    """A route. ``needs`` is checked against the role, as on the page; ``scope`` against the token, None: any token."""

    method: str
    path: str
    handler: Handler
    needs: Action
    scope: str | None
    status: int = 200


ROUTES: tuple[Route, ...] = (
    Route("GET", "/me", organization.me, Action.WORKSPACE_READ, None),
    # Organization and workspaces
    Route("GET", "/organization", organization.show, Action.WORKSPACE_READ, None),
    Route("PATCH", "/organization", organization.rename, Action.ORGANIZATION_UPDATE, "organization.manage"),
    Route("GET", "/workspaces", organization.list_workspaces, Action.WORKSPACE_READ, None),
    Route("POST", "/workspaces", organization.create_workspace, Action.WORKSPACE_CREATE, "organization.manage", 201),
    Route(
        "PATCH",
        "/workspaces/{workspace_id}",
        organization.rename_workspace,
        Action.WORKSPACE_UPDATE,
        "organization.manage",
    ),
    # People
    Route("GET", "/members", members.list_members, Action.MEMBERSHIP_READ, "members.read"),
    Route("POST", "/members", members.add, Action.MEMBERSHIP_ADD, "members.manage", 201),
    Route(
        "PUT",
        "/members/{user_id}/roles/{workspace_id}",
        members.change_role,
        Action.MEMBERSHIP_CHANGE_ROLE,
        "members.manage",
    ),
    Route(
        "DELETE",
        "/members/{user_id}/roles/{workspace_id}",
        members.remove,
        Action.MEMBERSHIP_REMOVE,
        "members.manage",
        204,
    ),
    Route("GET", "/invitations", members.list_invitations, Action.MEMBERSHIP_READ, "members.read"),
    Route("POST", "/invitations", members.invite, Action.INVITATION_CREATE, "members.manage", 201),
    Route(
        "DELETE",
        "/invitations/{invitation_id}",
        members.revoke_invitation,
        Action.INVITATION_REVOKE,
        "members.manage",
        204,
    ),
    # Caps
    Route("GET", "/caps", caps.list_caps, Action.MEMBERSHIP_READ, "members.read"),
    Route("PUT", "/caps/{scope}/{subject_id}", caps.save, Action.CAP_SET, "members.manage", 204),
    Route("DELETE", "/caps/{scope}/{subject_id}", caps.remove, Action.CAP_REMOVE, "members.manage", 204),
    # Provider keys
    Route("GET", "/provider-keys", provider_keys.list_keys, Action.WORKSPACE_READ, "provider_keys.read"),
    Route("PUT", "/provider-keys/{provider}", provider_keys.save, Action.PROVIDER_KEY_ADD, "provider_keys.manage"),
    Route(
        "POST",
        "/provider-keys/{provider}/check",
        provider_keys.check,
        Action.PROVIDER_KEY_CHECK,
        "provider_keys.manage",
    ),
    Route(
        "PUT",
        "/provider-keys/{provider}/fallback",
        provider_keys.set_fallback,
        Action.PROVIDER_KEY_SET_FALLBACK,
        "provider_keys.manage",
    ),
    Route(
        "DELETE",
        "/provider-keys/{provider}",
        provider_keys.remove,
        Action.PROVIDER_KEY_REMOVE,
        "provider_keys.manage",
        204,
    ),
    # API tokens
    Route("GET", "/api-tokens", api_tokens.list_tokens, Action.API_TOKEN_READ, "api_tokens.manage"),
    Route("PATCH", "/api-tokens/{token_id}", api_tokens.rename, Action.API_TOKEN_RENAME, "api_tokens.manage", 204),
    Route("DELETE", "/api-tokens/{token_id}", api_tokens.revoke, Action.API_TOKEN_REVOKE, "api_tokens.manage", 204),
    # Usage
    Route("GET", "/usage", usage.allowance, Action.USAGE_READ, "usage.read"),
    Route("GET", "/usage/alerts", usage.list_alerts, Action.USAGE_READ, "usage.read"),
    Route("GET", "/usage/days", usage.by_day, Action.USAGE_READ, "usage.read"),
    Route("GET", "/usage/members", usage.by_member, Action.MEMBERSHIP_READ, "usage.read"),
    Route("GET", "/usage/providers", usage.by_provider, Action.USAGE_READ, "usage.read"),
    Route("GET", "/usage/events", usage.events, Action.USAGE_READ, "usage.read"),
    # Plan
    Route("GET", "/plans", plan.list_plans, Action.BILLING_READ, "billing.manage"),
    Route("GET", "/plan", plan.show, Action.BILLING_READ, "billing.manage"),
    Route("PUT", "/plan", plan.change, Action.SUBSCRIPTION_CHANGE, "billing.manage"),
    # Audit
    Route("GET", "/audit", audit.list_entries, Action.AUDIT_READ, "audit.read"),
)


def mount(app: FastAPI) -> None:
    """Add the routes and their OpenAPI document to the application, which answers errors for them."""
    for route in ROUTES:
        app.router.add_api_route(
            PREFIX + route.path,
            route.handler,
            route_class_override=AuthenticatedRoute,
            methods=[route.method],
            status_code=route.status,
            dependencies=[Depends(_guard(route))],
            operation_id=f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
            tags=[route.path.split("/")[1]],
            description=_description(route),
            responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
        )
    routes = tuple(app.routes)

    @cache
    def document() -> Mapping[str, Any]:
        made = get_openapi(
            title=f"{app.title} management API",
            version="1",
            description="What the settings pages do, for programs. Bodies are JSON, of up to 1 MiB; errors are problem "
            "documents (RFC 9457).",
            routes=routes,
        )
        made["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return made

    # Made when somebody first asks, which many installations never do; it takes a moment, hence in a thread.
    def openapi() -> JSONResponse:
        return JSONResponse(document())

    app.add_api_route(f"{PREFIX}/openapi.json", openapi, include_in_schema=False)


def _guard(route: Route) -> Callable[..., Awaitable[None]]:
    """The checks that a route's line names: nobody writes a route that forgets them."""

    async def check(request: Request, node: Here, actor: Caller) -> None:
        if route.scope is not None:
            require_scope(actor, route.scope)
        await require(node.db, actor, route.needs, request.url.path)
        _refuse_unknown(request.query_params, [field.alias for field in request.scope["route"].dependant.query_params])

    return check


def _refuse_unknown(given: Iterable[str], known: Sequence[str]) -> None:
    """As with the members of a body: a parameter we do not know would look as if it had been obeyed."""
    for name in given:
        if name not in known:
            there_is = f"there are: {', '.join(known)}" if known else "there is none"
            raise InvalidRequest(f"There is no query parameter {name[:40]!r} here; {there_is}.")


def _description(route: Route) -> str:
    needs = f"Scope `{route.scope}`" if route.scope else "Any API token"
    return f"{route.handler.__doc__ or ''}\n\n{needs}; recorded and permitted as `{route.needs.value}`."
