"""Who is calling: API token → actor, as the token's maker stands at this moment."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ownkey.access import Actor
from ownkey.accounts import api_tokens
from ownkey.errors import NotAuthenticated
from ownkey.node import Node

_bearer = HTTPBearer(auto_error=False, scheme_name="API token", description="`Authorization: Bearer ownkey_…`")


def node_of(request: Request) -> Node:
    """The process's parts, put there by ``app.py``."""
    node: Node = request.app.state.node
    return node


async def caller_of(
    node: Annotated[Node, Depends(node_of)],
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Actor:
    """The actor of the request's token.

    Raises ``NotAuthenticated`` without a valid one, ``Forbidden`` when the organization's plan has no API access.
    """
    try:
        if given is None:
            raise NotAuthenticated
        return await api_tokens.actor_for(node.db, given.credentials, node.catalogue)
    except NotAuthenticated as error:
        error.headers["www-authenticate"] = "Bearer"
        raise


Here = Annotated[Node, Depends(node_of)]
Caller = Annotated[Actor, Depends(caller_of)]
