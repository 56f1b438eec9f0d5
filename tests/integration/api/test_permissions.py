"""Who may ask what: every route × every principal."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from ownkey.access import LOWEST_ROLE, Role
from ownkey.accounts import api_tokens
from ownkey.api.urls import PREFIX, ROUTES, Route, mount
from tests.integration.api.conftest import Acme

pytestmark = pytest.mark.anyio

UNKNOWN = {
    "workspace_id": "wsp_00000000000000000000000000",
    "user_id": "usr_00000000000000000000000000",
    "invitation_id": "inv_00000000000000000000000000",
    "token_id": "tok_00000000000000000000000000",
    "provider": "openai",
    "scope": "member",
    "subject_id": "usr_00000000000000000000000000",
}
BODIES: dict[tuple[str, str], dict[str, object]] = {
    ("PATCH", "/organization"): {"name": "Acme"},
    ("POST", "/workspaces"): {"name": "More"},
    ("PATCH", "/workspaces/{workspace_id}"): {"name": "General"},
    ("POST", "/members"): {"email": "nobody@example.com", "role": "user"},
    ("PUT", "/members/{user_id}/roles/{workspace_id}"): {"role": "user"},
    ("PUT", "/caps/{scope}/{subject_id}"): {"allowance_tokens": 5, "own_key_tokens": None},
    ("POST", "/invitations"): {"email": "new@example.com", "role": "user"},
    ("PUT", "/provider-keys/{provider}"): {"key": "sk-demo-0123456789abcdef"},
    ("PATCH", "/api-tokens/{token_id}"): {"name": "Renamed"},
    ("PUT", "/plan"): {"plan": "enterprise"},
}


async def asked(acme: Acme, route: Route, token: str | None) -> tuple[int, str]:
    """Status and code of the reply to a well-formed request for things that do not exist."""
    body = BODIES.get((route.method, route.path))
    reply = await acme.ask(route.method, route.path.format(**UNKNOWN), token, json=body)
    return reply.status_code, reply.json()["code"] if reply.status_code >= 400 else ""


def test_the_list_of_routes_is_complete() -> None:
    """There is nothing but the listed routes and their document."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    mount(app)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    served = {(method, route.path) for route in routes for method in route.methods or ()}
    listed = {(route.method, PREFIX + route.path) for route in ROUTES}
    assert len(app.routes) == len(routes) == len(ROUTES) + 1
    assert served == listed | {("GET", f"{PREFIX}/openapi.json")}


def test_every_scope_exists() -> None:
    """A scope that a route asks for is one that a token can have."""
    assert {route.scope for route in ROUTES if route.scope} <= set(api_tokens.SCOPES)


async def test_nobody_gets_in_without_a_valid_token(acme: Acme) -> None:
    """No token, an unknown one, a revoked one, and a session cookie are all 401 on every route."""
    revoked = await acme.token(Role.ADMIN)
    [listed] = await api_tokens.list_tokens(acme.db, acme.operator)
    await api_tokens.revoke(acme.db, acme.operator, listed.id)
    for route in ROUTES:
        for token in (None, "ownkey_" + "0" * 40, revoked, "sk-demo-0123456789"):
            assert await asked(acme, route, token) == (401, "not_authenticated"), (route.path, token)
    reply = await acme.client.get("/api/v1/me", headers={"cookie": f"session={revoked}"})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.ADMIN, Role.OWNER])
async def test_a_token_does_what_its_maker_may_do(acme: Acme, role: Role) -> None:
    """A route is open when the maker's role reaches its action's, and 403 otherwise, whatever scopes the token has."""
    token = await acme.token(role)
    given = set(api_tokens.scopes_for(Role.OWNER if role is Role.OWNER else Role.ADMIN))
    for route in ROUTES:
        lowest = LOWEST_ROLE[route.needs]
        may = lowest is not None and role >= lowest and (route.scope is None or route.scope in given)
        status, code = await asked(acme, route, token)
        assert (status not in (401, 403)) if may else (status, code) == (403, "forbidden"), (route, status, code)


async def test_a_user_has_no_token(acme: Acme) -> None:
    """A token whose maker was lowered to user rests: 401 on every route."""
    token = await acme.token(Role.USER)
    for route in ROUTES:
        assert await asked(acme, route, token) == (401, "not_authenticated"), route.path


async def test_a_missing_scope_is_forbidden(acme: Acme) -> None:
    """Of the owner's own tokens, one with another scope only is 403 wherever a scope is asked for."""
    for scope in ("gateway", "usage.read"):
        token = await acme.token(Role.OWNER, scope)
        for route in ROUTES:
            status, code = await asked(acme, route, token)
            if route.scope in (None, scope):
                assert status == 200, route.path
            else:
                assert (status, code) == (403, "forbidden"), route.path


async def test_a_plan_without_api_access_is_forbidden(acme: Acme) -> None:
    """On a plan without API access every route says so with 403, also to a good token."""
    token = await acme.token(Role.OWNER)
    await acme.put_on("free")
    for route in ROUTES:
        assert await asked(acme, route, token) == (403, "forbidden"), route.path


async def test_what_is_not_yours_does_not_exist(acme: Acme, elsewhere: Acme) -> None:
    """Another organization's ids get the reply that ids of nothing get, byte for byte but for the request's id."""
    token = await elsewhere.token(Role.OWNER)
    theirs = {**UNKNOWN, "workspace_id": acme.created.workspace.id, "user_id": (await acme.person(Role.USER))[0].id}
    [made] = [t for t in [await acme.token(Role.ADMIN)] if t]
    theirs["token_id"] = (await api_tokens.list_tokens(acme.db, acme.operator))[0].id
    invited = await acme.ask("POST", "/invitations", made, json={"email": "guest@example.com", "role": "user"})
    theirs["invitation_id"] = invited.json()["invitation"]["id"]
    for route in ROUTES:
        if "_id}" in route.path:
            body = BODIES.get((route.method, route.path))
            replies = [
                await elsewhere.ask(route.method, route.path.format(**ids), token, json=body)
                for ids in (theirs, UNKNOWN)
            ]
            assert [reply.status_code for reply in replies] == [404, 404], route.path
            foreign, unknown = ({k: v for k, v in r.json().items() if k != "request_id"} for r in replies)
            assert foreign == unknown, route.path
