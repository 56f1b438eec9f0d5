"""All earlier conversations with the assistant, a page at a time, and the question before one is deleted."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ownkey.accounts import conversations
from ownkey.web import session
from ownkey.web.rendering import render

_ON_A_PAGE = 50


async def show(request: Request) -> Response:
    """``GET /assistant/conversations?before=cnv_…``: one's own in this workspace, newest first."""
    signed_in = await session.require(request)
    before = request.query_params.get("before")
    listed = await conversations.list_conversations(
        session.node_of(request).db, signed_in.actor, _ON_A_PAGE + 1, before=before
    )
    return render(
        request,
        "conversations.html",
        signed_in=signed_in,
        conversations=listed[:_ON_A_PAGE],
        before=before,
        older_than=listed[_ON_A_PAGE - 1].id if len(listed) > _ON_A_PAGE else None,
    )


async def confirm_removal(request: Request) -> Response:
    """``GET /assistant/{conversation}/delete``: the question."""
    signed_in = await session.require(request)
    db, wanted = session.node_of(request).db, request.path_params["conversation"]
    conversation = await conversations.find(db, signed_in.actor, wanted)
    return render(request, "conversation_delete.html", signed_in=signed_in, conversation=conversation)
