"""How the management API says no."""

from __future__ import annotations

import pytest

from ownkey.access import Role
from tests.integration.api.conftest import Acme

pytestmark = pytest.mark.anyio


async def test_errors_are_problem_documents(acme: Acme) -> None:
    """Every refusal is ``application/problem+json`` with status, code and the request's id, and is not to be kept."""
    token = await acme.token(Role.OWNER)
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/organization", 405, "invalid_request"),
        ("GET", "/usage?period=2026-13", 400, "invalid_request"),
        ("GET", "/usage?period=0000-01", 400, "invalid_request"),
        ("GET", "/usage?period=9999-12", 400, "invalid_request"),
        ("GET", "/usage?period=٢٠٢٦-11", 400, "invalid_request"),
        ("GET", "/usage/days?period=0000-01", 400, "invalid_request"),
        ("GET", "/usage?period=2999-01", 400, "invalid_request"),
        ("GET", "/usage/events?period=2999-01", 400, "invalid_request"),
        ("GET", "/usage/events?period=9999-12", 400, "invalid_request"),
        ("GET", "/usage/events?limit=0", 400, "invalid_request"),
        ("GET", f"/usage/events?since={2**63}", 400, "invalid_request"),
        ("GET", f"/audit?before={2**63}", 400, "invalid_request"),
        ("PUT", "/provider-keys/nobody", 404, "not_found"),
    ):
        reply = await acme.ask(method, path, token, json={"key": "sk-demo-0123456789"} if method == "PUT" else None)
        problem = reply.json()
        assert (reply.status_code, problem["status"], problem["code"]) == (status, status, code), path
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["x-request-id"] == problem["request_id"]
        assert reply.headers["cache-control"] == "no-store"
        assert problem["detail"]


async def test_unknown_members_are_refused(acme: Acme) -> None:
    """A member that a request does not have is 400, and nothing is changed: it would look as if it had been obeyed."""
    token = await acme.token(Role.OWNER)
    before = (await acme.ask("GET", "/organization", token)).json()
    for method, path, body in (
        ("PATCH", "/organization", {"name": "Other"}),
        ("POST", "/invitations", {"email": "new@example.com", "role": "user"}),
        ("PUT", "/provider-keys/openai", {"key": "sk-demo-0123456789"}),
        ("PUT", "/plan", {"plan": "starter"}),
    ):
        for extra in ("role_", "org_id", "organization_id", "allowance", "used", "is_admin", "id", "owner", "scopes"):
            reply = await acme.ask(method, path, token, json={**body, extra: "owner"})
            assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), (path, extra)
            assert extra in reply.json()["detail"]
    assert (await acme.ask("GET", "/organization", token)).json() == before
    assert (await acme.ask("GET", "/provider-keys", token)).json()["items"] == []
    assert (await acme.ask("GET", "/invitations", token)).json()["items"] == []


async def test_unknown_query_parameters_are_refused(acme: Acme) -> None:
    """A parameter that a route does not have is 400, and the reply names those that it has."""
    token = await acme.token(Role.OWNER)
    for path, there_is in (
        ("/usage?month=2026-02", "there are: period"),
        ("/usage/events?period=2026-02&Limit=5", "there are: period, since, limit"),
        ("/me?verbose=1", "there is none"),
    ):
        reply = await acme.ask("GET", path, token)
        assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), path
        assert there_is in reply.json()["detail"]
    assert (await acme.ask("GET", "/usage/events?period=2026-02&since=0&limit=5", token)).status_code == 200
    assert (await acme.ask("GET", "/usage?month=2026-02", None)).status_code == 401


async def test_unusable_bodies_are_refused(acme: Acme) -> None:
    """Broken JSON, another content type and wrong kinds of values are 400, and the value is not said back."""
    token = await acme.token(Role.OWNER)
    headers = {"authorization": f"Bearer {token}"}
    url = "/api/v1/provider-keys/openai"
    for content, kind in (
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"key=sk-demo-0123456789", "application/x-www-form-urlencoded"),
        (b'{"key": "sk-demo-0123456789"}', "text/plain"),
        (b'{"key": ["sk-demo-0123456789"]}', "application/json"),
        (b'{"key": "sk-demo-0123456789", "unchecked": "yes"}', "application/json"),
        (b'{"key": "sk-demo-' + b"0" * 20_000 + b'"}', "application/json"),
        (b"", "application/json"),
    ):
        reply = await acme.client.put(url, content=content, headers={**headers, "content-type": kind})
        assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), content[:40]
        assert "sk-demo" not in reply.text


async def test_what_to_send_instead(acme: Acme) -> None:
    """A body that is no JSON object is told what it should be; broken JSON also where it breaks."""
    token = await acme.token(Role.OWNER)
    headers = {"authorization": f"Bearer {token}"}
    instead = "Send a JSON object, with Content-Type: application/json."
    for content, kind, detail in (
        (b"", "application/json", instead),
        (b"name=Acme", "application/x-www-form-urlencoded", instead),
        (b'["name"]', "application/json", instead),
        (b'{"name": ', "application/json", "The body is not JSON: Expecting value, at character 9."),
        (b'{"name": 5}', "application/json", "name: Input should be a valid string."),
    ):
        reply = await acme.client.patch(
            "/api/v1/organization", content=content, headers={**headers, "content-type": kind}
        )
        assert (reply.status_code, reply.json()["detail"]) == (400, detail)


async def test_the_token_comes_before_the_body(acme: Acme) -> None:
    """Without a valid token nobody is told what is wrong with a body."""
    for token in (None, "ownkey_" + "0" * 40):
        reply = await acme.ask("PATCH", "/organization", token, content=b"{")
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/provider-keys/openai", "DELETE, PUT"),
        ("/organization", "GET, HEAD, PATCH"),
        ("/provider-keys/openai/check", "POST"),
    ],
)
async def test_another_method(acme: Acme, path: str, allow: str) -> None:
    """A method that a path does not take is 405, and the reply names all that it takes."""
    reply = await acme.ask("OPTIONS", path, await acme.token(Role.OWNER))
    assert (reply.status_code, reply.headers["allow"]) == (405, allow)
    assert reply.json()["detail"] == f"OPTIONS is not possible here; these are: {allow}."


async def test_head(acme: Acme) -> None:
    """A HEAD gets what a GET gets; the server leaves out the body."""
    token = await acme.token(Role.OWNER)
    for path in ("/me", "/openapi.json", "/nothing", "/plan"):
        replies = [await acme.ask(each, path, token) for each in ("GET", "HEAD")]
        assert len({(reply.status_code, reply.headers["content-type"]) for reply in replies}) == 1
    assert (await acme.ask("HEAD", "/me", None)).status_code == 401


async def test_a_slash_at_the_end(acme: Acme) -> None:
    """A path with a slash at its end is another one: nobody is sent on to the host that a request names."""
    reply = await acme.ask("GET", "/me/", await acme.token(Role.OWNER))
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
