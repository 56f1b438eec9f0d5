"""Members, roles and invitations through the management API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from email import message_from_bytes

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI
from pydantic import SecretStr

from ownkey import audit
from ownkey.access import Role
from ownkey.accounts import invitations
from ownkey.mail import Mailer
from ownkey.node import Node
from tests.integration.api.conftest import Acme

pytestmark = pytest.mark.anyio


async def test_a_role_is_changed_and_taken_away(acme: Acme) -> None:
    """A role change counts at once and is in the audit log under the token's name; so is a removal."""
    token = await acme.token(Role.OWNER)
    user, _ = await acme.person(Role.USER)
    place = f"/members/{user.id}/roles/{acme.created.workspace.id}"

    assert (await acme.ask("PUT", place, token, json={"role": "developer"})).json()["role"] == "developer"
    members = {m["id"]: m for m in (await acme.ask("GET", "/members", token)).json()["items"]}
    assert members[user.id]["roles"] == [{"workspace_id": acme.created.workspace.id, "role": "developer"}]
    assert members[acme.created.owner.id]["owner"] is True

    assert (await acme.ask("DELETE", place, token)).status_code == 204
    assert (await acme.ask("DELETE", place, token)).status_code == 404
    assert user.id not in {m["id"] for m in (await acme.ask("GET", "/members", token)).json()["items"]}
    latest, before, *_ = await audit.entries(acme.db, acme.created.organization.id)
    assert (latest.action, latest.allowed, latest.actor_kind) == ("membership.remove", True, "api_token")
    assert (before.action, before.detail["role"]) == ("membership.change_role", "developer")


async def test_nobody_changes_their_own_role(acme: Acme) -> None:
    """An admin's token cannot raise or keep the admin's own role, nor give anyone ownership."""
    token = await acme.token(Role.ADMIN)
    members = (await acme.ask("GET", "/members", token)).json()["items"]
    me = next(m for m in members if not m["owner"])
    place = f"/members/{me['id']}/roles/{acme.created.workspace.id}"
    assert (await acme.ask("PUT", place, token, json={"role": "admin"})).status_code == 403
    other, _ = await acme.person(Role.USER)
    place = f"/members/{other.id}/roles/{acme.created.workspace.id}"
    assert (await acme.ask("PUT", place, token, json={"role": "owner"})).status_code == 400


async def test_an_invitation_is_made_and_taken_back(acme: Acme) -> None:
    """An invitation's address is shown once; it can be accepted until it is taken back."""
    token = await acme.token(Role.ADMIN)
    made = await acme.ask("POST", "/invitations", token, json={"email": "Guest@Example.com", "role": "developer"})
    assert made.status_code == 201
    shown, url = made.json()["invitation"], made.json()["url"]
    assert (shown["email"], shown["role"]) == ("guest@example.com", "developer")
    assert url.startswith("http://ownkey.test/invitations/")

    secret = url.rpartition("/")[2]
    assert (await invitations.look(acme.db, secret)).invitation.email == "guest@example.com"
    listed = await acme.ask("GET", "/invitations", token)
    assert [found["id"] for found in listed.json()["items"]] == [shown["id"]]
    assert secret not in listed.text

    assert (await acme.ask("DELETE", f"/invitations/{shown['id']}", token)).status_code == 204
    assert (await acme.ask("GET", "/invitations", token)).json()["items"] == []


async def test_an_invitation_that_can_be_mailed_is_not_shown(acme: Acme, node: Node, asgi: FastAPI) -> None:
    """With a mail server the one-time address goes to the invited person, and to nobody else."""
    inbox: list[str] = []

    class Post:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            inbox.append(f"{envelope.rcpt_tos} {message_from_bytes(envelope.content or b'').get_payload()}")  # type: ignore[arg-type]
            return "250 OK"

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Post(), loop=loop), "127.0.0.1", 0)
    url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = node.settings.model_copy(update={"smtp_url": SecretStr(url)})
    asgi.state.node = replace(node, settings=settings, mailer=Mailer(settings))
    token = await acme.token(Role.ADMIN)
    made = (await acme.ask("POST", "/invitations", token, json={"email": "guest@example.com", "role": "user"})).json()
    server.close()
    assert (made["mailed"], made["url"]) == (True, None)
    [mail] = inbox
    assert "guest@example.com" in mail
    assert "http://ownkey.test/invitations/" in mail


async def test_strangers_are_invited_not_added(acme: Acme) -> None:
    """Somebody who is not in the organization yet cannot be added by an address alone."""
    token = await acme.token(Role.ADMIN)
    reply = await acme.ask("POST", "/members", token, json={"email": "new@example.com", "role": "user"})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")


async def test_a_cap_is_set_and_lifted(acme: Acme) -> None:
    """An admin's token caps members and its workspace, never the admin; what was before is in the audit log."""
    token = await acme.token(Role.ADMIN)
    owner, (user, _) = acme.created.owner.id, await acme.person(Role.USER)
    where, cap = f"/caps/member/{user.id}", {"allowance_tokens": 500, "own_key_tokens": None}
    assert (await acme.ask("PUT", where, token, json=cap)).status_code == 204
    (listed,) = (await acme.ask("GET", "/caps", token)).json()["items"]
    assert (listed["subject_id"], listed["allowance_tokens"], listed["allowance_used"]) == (user.id, 500, 0)
    assert (await acme.ask("PUT", f"/caps/member/{owner}", token, json=cap)).status_code == 403
    assert (await acme.ask("DELETE", where, token)).status_code == 204
    assert (await acme.ask("DELETE", where, token)).status_code == 404
    removal, *_ = [e for e in await audit.entries(acme.db, acme.created.organization.id) if e.action == "cap.remove"]
    assert (await acme.ask("GET", "/caps", token)).json()["items"] == []
    assert removal.target == user.id
