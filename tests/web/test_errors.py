"""Errors: a page for people, a problem document (RFC 9457) for programs; never more than the caller should know."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ownkey.errors import AllowanceExhausted, Unavailable
from ownkey.node import Node
from tests.web.conftest import PUBLIC_URL, Browser
from tests.web.page import Page

pytestmark = pytest.mark.anyio

SECRET = "sk-a-secret-in-an-exception"


@pytest.fixture
def broken(web_app: FastAPI) -> FastAPI:
    """The pages, and three more that fail."""

    async def fail(request: Request) -> Response:
        raise RuntimeError(SECRET)

    async def refuse(request: Request) -> Response:
        raise AllowanceExhausted(detail={"remaining": 12, "code": "mine"}, headers={"retry-after": "60"})

    async def be_away(request: Request) -> Response:
        raise Unavailable

    for path, page in (("/broken", fail), ("/refused", refuse), ("/api/v1/broken", fail), ("/away", be_away)):
        web_app.add_route(path, page, methods=["GET", "POST"])
    return web_app


async def test_a_page_that_is_not_there(client_for: Callable[[str], Browser]) -> None:
    """An unknown path is a page with one heading and a way on, for whoever asks."""
    for role in ("anonymous", "user"):
        reply = await client_for(role).get("/settings/nothing")
        assert reply.status_code == 404
        assert Page(reply.text).h1 == ["There is nothing here"]
        assert ("/settings/account" in Page(reply.text).links) is (role == "user")
        assert ("Go to sign-in" in reply.text) is (role == "anonymous")


async def test_try_again(client_for: Callable[[str], Browser], broken: FastAPI) -> None:
    """After a failure one tries the page again: the one asked for, or the one whose form was sent."""
    browser = client_for("user")
    assert "/broken?month=2026-11" in Page((await browser.get("/broken?month=2026-11")).text).links
    headers = {"origin": PUBLIC_URL, "referer": f"{PUBLIC_URL}/settings/members"}
    reply = await browser.client.post("/broken", headers=headers)
    assert reply.status_code == 500
    assert "/settings/members" in Page(reply.text).links
    assert "/broken" not in Page(reply.text).links


async def test_another_method(client_for: Callable[[str], Browser]) -> None:
    """A method that a page does not take is 405 and says which it takes."""
    reply = await client_for("user").client.put("/settings/account", headers={"origin": "http://ownkey.test"})
    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD, POST"


async def test_a_slash_at_the_end(client_for: Callable[[str], Browser]) -> None:
    """A path with a slash at its end is another one: nobody is sent on to the host that a request names."""
    for path in ("/settings/account/", "/sign-in/", "/static/", "/static"):
        reply = await client_for("user").get(path, headers={"host": "evil.test"})
        assert (reply.status_code, reply.headers.get("location")) == (404, None), path


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/nothing", "application/json"), ("/nothing", "application/problem+json"), ("/api/v1/nothing", "text/html")],
)
async def test_problem_document(client_for: Callable[[str], Browser], path: str, accept: str) -> None:
    """A program, or anyone below /api, gets ``application/problem+json`` with our stable code."""
    reply = await client_for("anonymous").get(path, headers={"accept": accept})
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert body["request_id"] == reply.headers["x-request-id"]
    assert (body["type"], body["title"], body["status"], body["code"]) == ("about:blank", "Not Found", 404, "not_found")


async def test_detail_and_headers(client_for: Callable[[str], Browser], broken: FastAPI) -> None:
    """What an error knows besides its sentence is in the document, and its headers are on the reply."""
    reply = await client_for("user").get("/refused", headers={"accept": "application/json"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "60")
    assert reply.json()["remaining"] == 12
    assert reply.json()["code"] == "allowance_exhausted"
    page = await client_for("user").get("/refused")
    assert (page.status_code, page.headers["retry-after"]) == (429, "60")
    assert AllowanceExhausted.sentence in page.text


@pytest.mark.parametrize("path", ["/broken", "/api/v1/broken"])
async def test_what_nobody_foresaw(client_for: Callable[[str], Browser], broken: FastAPI, path: str) -> None:
    """An exception becomes a 500 with a reference to the log and not a word of the exception itself."""
    reply = await client_for("user").get(path)
    assert reply.status_code == 500
    assert reply.headers["x-request-id"] in reply.text
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert SECRET not in reply.text
    assert "Traceback" not in reply.text


async def test_without_a_database(client_for: Callable[[str], Browser], broken: FastAPI, node: Node) -> None:
    """Without a database pages say that they are not available for the moment, and when to come back."""
    reply = await client_for("anonymous").get("/away")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert Page(reply.text).h1 == ["Not available for the moment"]
