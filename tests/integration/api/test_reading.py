"""What the management API shows: usage, plan, tokens, audit log, and its own description."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from ownkey import clock
from ownkey.access import Role
from ownkey.accounts import caps, memberships, subscriptions, workspaces
from ownkey.accounts.names import LONGEST_NAME
from ownkey.api.urls import PREFIX, ROUTES
from ownkey.db.engine import Database
from ownkey.db.tables import allowances, usage_events
from ownkey.metering.alerts import Lookout
from ownkey.plans import DEFAULT_CATALOGUE
from tests.integration.api.conftest import Acme

pytestmark = pytest.mark.anyio


async def test_usage_is_shown(acme: Acme) -> None:
    """A month without calls: all of the plan's tokens are left, and the sums are empty."""
    token = await acme.token(Role.DEVELOPER, "usage.read")
    shown = (await acme.ask("GET", "/usage?period=2026-02", token)).json()
    assert (shown["period"], shown["used"], shown["remaining"]) == ("2026-02", 0, shown["granted"])
    assert shown["resets_at"] == "2026-03-01T00:00:00Z"
    assert set(shown) == {
        *("period", "granted", "used", "reserved", "remaining", "resets_at", "own_key_tokens", "events"),
        *("own_key_cost_micros", "own_key_unpriced_requests", "currency", "fallback_requests", "fallback_tokens"),
    }
    for path in ("/usage/alerts", "/usage/days", "/usage/providers", "/usage/events"):
        assert (await acme.ask("GET", path, token)).json() == {"items": [], "next": None}
    admin = await acme.token(Role.ADMIN, "usage.read")
    assert (await acme.ask("GET", "/usage/members", admin)).json() == {"items": [], "next": None}


async def test_who_used_what_is_for_those_who_see_members(acme: Acme, database: Database) -> None:
    """As on the pages: to a developer only their own events say whose they are, only their workspaces have names."""
    developer, admin = await acme.token(Role.DEVELOPER, "usage.read"), await acme.token(Role.ADMIN, "usage.read")
    [maker] = [
        member
        for member in await memberships.list_members(database, acme.operator)
        if acme.created.workspace.id in member.roles and member.roles[acme.created.workspace.id] is Role.DEVELOPER
    ]
    own, others = maker.user, acme.created.owner
    plan = await subscriptions.plan_of(database, acme.operator, DEFAULT_CATALOGUE)
    second = await workspaces.create(database, acme.operator, plan, "Second")
    async with database.transaction() as tx:
        for number, (user, place) in enumerate(((own, acme.created.workspace), (others, second))):
            await tx.execute(insert(usage_events).values(**call(acme, f"req_{number}", user.id, place.id)))
    assert (await acme.ask("GET", "/usage/members", developer)).status_code == 403
    summed = (await acme.ask("GET", "/usage/members", admin)).json()["items"]
    assert {row["label"] for row in summed} == {own.label, others.label}
    seen = [
        [
            (event["member"], event["workspace"])
            for event in (await acme.ask("GET", "/usage/events", token)).json()["items"]
        ]
        for token in (developer, admin)
    ]
    first = (own.email, acme.created.workspace.name)
    assert seen == [[first, (None, "")], [first, (others.email, "Second")]]


def call(acme: Acme, request_id: str, user_id: str, workspace_id: str) -> dict[str, object]:
    """The row of a call that somebody made on an own key."""
    now = clock.now()
    return {
        "request_id": request_id,
        "organization_id": acme.created.organization.id,
        "workspace_id": workspace_id,
        "user_id": user_id,
        "period": clock.period_of(now),
        "provider": "openai",
        "model": "gpt-4o",
        "dialect": "openai",
        "billed_to": "own_key",
        "input_tokens": 100,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 10,
        "reasoning_tokens": 0,
        "charged_tokens": 0,
        "estimated": False,
        "outcome": "finished",
        "started_at": now,
        "duration_ms": 1,
    }


async def test_alerts_are_shown(acme: Acme, database: Database) -> None:
    """The alerts of a month, lowest first, with when they were reached and whether anybody was told by mail."""
    token = await acme.token(Role.DEVELOPER, "usage.read")
    row = {"organization_id": acme.created.organization.id, "period": clock.period_of(clock.now())}
    async with database.transaction() as tx:
        await tx.execute(insert(allowances).values(**row, granted_tokens=1000, used_tokens=900))
    await Lookout().look(database)
    shown = (await acme.ask("GET", "/usage/alerts", token)).json()["items"]
    assert [(each["threshold"], each["mailed_at"], each["recipients"]) for each in shown] == [
        (50, None, 0),
        (80, None, 0),
    ]
    assert shown[0]["reached_at"].endswith("Z")
    assert (await acme.ask("GET", "/usage/alerts?period=2026-02", token)).json()["items"] == []


async def test_the_audit_log_is_paged(acme: Acme) -> None:
    """``next`` leads through all entries, each once, newest first, and only one's own."""
    token = await acme.token(Role.ADMIN)
    for number in range(5):
        await acme.ask("POST", "/invitations", token, json={"email": f"guest{number}@example.com", "role": "user"})
    seen: list[int] = []
    path = "/audit?limit=3"
    while True:
        page = (await acme.ask("GET", path, token)).json()
        seen += [entry["id"] for entry in page["items"]]
        if page["next"] is None:
            break
        path = f"/audit?limit=3&before={page['next']}"
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) >= 7
    only = (await acme.ask("GET", "/audit?action=invitation.create", token)).json()["items"]
    assert len(only) == 5


async def test_the_organization_is_shown_and_renamed(acme: Acme) -> None:
    """Names change, slugs stay; a token renames its own workspace only."""
    token = await acme.token(Role.OWNER)
    me = (await acme.ask("GET", "/me", token)).json()
    assert (me["role"], me["workspace_id"]) == ("owner", acme.created.workspace.id)
    renamed = await acme.ask("PATCH", "/organization", token, json={"name": "Acme Corporation"})
    assert (renamed.json()["name"], renamed.json()["slug"]) == ("Acme Corporation", acme.created.organization.slug)
    own = f"/workspaces/{me['workspace_id']}"
    assert (await acme.ask("PATCH", own, token, json={"name": "Research"})).json()["name"] == "Research"
    made = await acme.ask("POST", "/workspaces", token, json={"name": "Sales"})
    assert made.status_code == 201
    other = f"/workspaces/{made.json()['id']}"
    assert (await acme.ask("PATCH", other, token, json={"name": "Support"})).status_code == 404
    listed = (await acme.ask("GET", "/workspaces", token)).json()["items"]
    assert [workspace["name"] for workspace in listed] == ["Research", "Sales"]


async def test_tokens_are_listed_renamed_and_revoked_but_not_made(acme: Acme) -> None:
    """A token's text is in no reply; a revoked one is refused at its next request; no token makes another."""
    token = await acme.token(Role.OWNER)
    [listed] = (await acme.ask("GET", "/api-tokens", token)).json()["items"]
    assert token.startswith(listed["hint"].rstrip("…"))
    path = f"/api-tokens/{listed['id']}"
    assert (await acme.ask("PATCH", path, token, json={"name": "Robot"})).status_code == 204
    again = await acme.ask("GET", "/api-tokens", token)
    assert again.json()["items"][0]["name"] == "Robot"
    assert token not in again.text
    assert (await acme.ask("POST", "/api-tokens", token, json={"name": "Child"})).status_code == 405
    assert (await acme.ask("DELETE", path, token)).status_code == 204
    assert (await acme.ask("GET", "/me", token)).status_code == 401


async def test_the_plan_is_shown_and_changed(acme: Acme) -> None:
    """The owner's token changes the plan; one that is too small for the organization is refused with the reason."""
    token = await acme.token(Role.OWNER)
    shown = (await acme.ask("GET", "/plan", token)).json()
    assert (shown["plan"]["code"], shown["members"], shown["extra_seats"]) == ("enterprise", 1, 0)
    codes = [plan["code"] for plan in (await acme.ask("GET", "/plans", token)).json()["items"]]
    assert codes == ["free", "starter", "professional", "enterprise"]
    changed = await acme.ask("PUT", "/plan", token, json={"plan": "starter", "interval": "year"})
    assert (changed.json()["plan"]["code"], changed.json()["interval"]) == ("starter", "year")
    await acme.ask("POST", "/workspaces", token, json={"name": "Sales"})
    refused = await acme.ask("PUT", "/plan", token, json={"plan": "free"})
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_limit_reached")
    assert "workspace" in refused.json()["detail"]


async def test_the_openapi_document_describes_every_route(acme: Acme) -> None:
    """The document is open, and has each route with its summary, scope, way to authenticate, errors and bounds."""
    document = (await acme.client.get(f"{PREFIX}/openapi.json")).json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method, PREFIX + route.path) for route in ROUTES}
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["security"] == [{"API token": []}]
            assert operation["summary"]
            for status in ("4XX", "5XX"):
                assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
    shapes = document["components"]["schemas"]
    problem = (await acme.client.get(f"{PREFIX}/me")).json()
    assert set(shapes["Problem"]["required"]) == set(problem)
    assert (shapes["Naming"]["properties"]["name"]["maxLength"], LONGEST_NAME) == (100, 100)
    assert shapes["NewCap"]["properties"]["allowance_tokens"]["anyOf"][0]["maximum"] == caps.MOST_TOKENS
    assert (await acme.client.get("/openapi.json")).status_code == 404
    assert (await acme.client.get("/docs")).status_code == 404
