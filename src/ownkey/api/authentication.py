"""Who is calling: API token → actor, as the token's maker stands at this moment."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from ownkey.access import Actor
from ownkey.accounts import api_tokens
from ownkey.errors import NotAuthenticated
from ownkey.node import Node

_bearer = HTTPBearer(auto_error=False, scheme_name="API token", description="`Authorization: Bearer ownkey_…`")


def node_of(request: Request) -> Node:
    """The process's parts, put there by ``app.py``."""
    node: Node = request.app.state.node
    return node


class AuthenticatedRoute(APIRoute):
    """A route that knows its caller before it reads the body.

    Raises ``NotAuthenticated`` without a valid token, ``Forbidden`` when the organization's plan has no API access.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            request.state.actor = await _authenticate(request)
            return await answer(request)

        return authenticated


async def _authenticate(request: Request) -> Actor:
    node, given = node_of(request), await _bearer(request)
    try:
        if given is None:
            raise NotAuthenticated
        return await api_tokens.actor_for(node.db, given.credentials, node.catalogue)
    except NotAuthenticated as error:
        error.headers["www-authenticate"] = "Bearer"
        raise


async def caller_of(request: Request, _: Annotated[object, Depends(_bearer)]) -> Actor:
    """The actor of the request's token. Depends on the token so that the OpenAPI document says that there is one."""
    actor: Actor = request.state.actor
    return actor


Here = Annotated[Node, Depends(node_of)]
Caller = Annotated[Actor, Depends(caller_of)]
