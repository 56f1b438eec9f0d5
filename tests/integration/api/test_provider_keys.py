"""Provider keys through the management API: written, checked, never read."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI

from ownkey import audit
from ownkey.access import Role
from ownkey.node import Node
from tests.fakes.provider import FakeProvider
from tests.fakes.token_service import document
from tests.integration.api.conftest import Acme

pytestmark = pytest.mark.anyio

KEY = "sk-demo-canary-4f1d9e77aa21"
SECOND = "sk-demo-canary-second-771b20"


async def test_a_key_is_connected_replaced_checked_and_removed(acme: Acme) -> None:
    """The whole life of a key; no reply ever holds more of it than its first eight characters."""
    token = await acme.token(Role.ADMIN)
    path = "/provider-keys/openai"
    first = await acme.ask("PUT", path, token, json={"key": KEY})
    assert (first.status_code, first.json()["health"]) == (200, "active")
    assert first.json()["preview"].startswith("sk-demo-•")
    second = await acme.ask("PUT", path, token, json={"key": SECOND})
    assert second.json()["id"] != first.json()["id"]
    assert second.json()["fingerprint"] != first.json()["fingerprint"]
    checked = await acme.ask("POST", f"{path}/check", token)
    assert checked.json()["health"] == "active"
    listed = await acme.ask("GET", "/provider-keys", token)
    assert [key["id"] for key in listed.json()["items"]] == [second.json()["id"]]
    removed = await acme.ask("DELETE", path, token)
    assert removed.status_code == 204
    assert (await acme.ask("DELETE", path, token)).status_code == 404
    assert (await acme.ask("POST", f"{path}/check", token)).status_code == 404
    for reply in (first, second, checked, listed, removed):
        assert "canary" not in reply.text
    done = [entry.action for entry in await audit.entries(acme.db, acme.created.organization.id) if entry.allowed]
    assert done[:3] == ["provider_key.remove", "provider_key.replace", "provider_key.add"]


async def test_a_key_that_is_removed_while_it_is_checked(acme: Acme, asgi: FastAPI, node: Node) -> None:
    """There is none any more, so the answer is that there is none."""
    token, path = await acme.token(Role.ADMIN), "/provider-keys/openai"
    with FakeProvider() as provider:
        settings = node.settings.model_copy(update={"base_urls": {"openai": provider.url}})
        asgi.state.node = Node(settings, node.db, node.keyring, node.catalogue, node.mailer)
        await acme.ask("PUT", path, token, json={"key": KEY})
        provider.hold()
        checking = asyncio.create_task(acme.ask("POST", f"{path}/check", token))
        await provider.wait_async(lambda one: one.held == 1)
        assert (await acme.ask("DELETE", path, token)).status_code == 204
        provider.release()
        assert (await checking).status_code == 404


async def test_a_rejected_key_is_not_saved(acme: Acme) -> None:
    """What the provider rejects is 400 with the provider's words and without the key; unchecked it is saved."""
    token = await acme.token(Role.ADMIN)
    body: dict[str, object] = {"key": "sk-wrong-canary-4f1d9e77aa21"}
    reply = await acme.ask("PUT", "/provider-keys/openai", token, json=body)
    assert (reply.status_code, reply.json()["code"], reply.json()["health"]) == (400, "invalid_request", "rejected")
    assert "Incorrect API key" in reply.json()["detail"]
    assert "canary" not in reply.text
    assert (await acme.ask("GET", "/provider-keys", token)).json()["items"] == []
    saved = await acme.ask("PUT", "/provider-keys/openai", token, json={**body, "unchecked": True})
    assert (saved.status_code, saved.json()["health"]) == (200, "unverified")


async def test_a_key_without_money_is_saved_with_a_warning(acme: Acme) -> None:
    """Out of credit is a state of the key, not a reason to refuse it; what looks odd about it is named."""
    token = await acme.token(Role.ADMIN)
    reply = await acme.ask("PUT", "/provider-keys/openai", token, json={"key": "sk-demo-nocredit-0123456789"})
    assert (reply.status_code, reply.json()["health"]) == (200, "out_of_credit")
    assert reply.json()["said"]


async def test_an_address_comes_with_its_key(acme: Acme) -> None:
    """For a provider whose host is the customer's the address is stored beside the key, and shown."""
    token = await acme.token(Role.ADMIN)
    body: dict[str, object] = {"key": "azure-canary-4f1d9e77aa21", "address": "Acme-East", "unchecked": True}
    saved = await acme.ask("PUT", "/provider-keys/azure", token, json=body)
    assert (saved.status_code, saved.json()["address"]) == (200, "https://acme-east.openai.azure.com")
    listed = await acme.ask("GET", "/provider-keys", token)
    assert [key["address"] for key in listed.json()["items"]] == ["https://acme-east.openai.azure.com"]
    replaced = await acme.ask("PUT", "/provider-keys/azure", token, json={**body, "address": "acme-west"})
    assert replaced.json()["address"] == "https://acme-west.openai.azure.com"
    assert replaced.json()["id"] != saved.json()["id"]
    latest = (await audit.entries(acme.db, acme.created.organization.id))[0]
    assert latest.detail["address"] == "https://acme-west.openai.azure.com"


async def test_a_new_address_needs_the_key_again(acme: Acme) -> None:
    """There is no way to send a stored key to another host: an address without a key is refused."""
    token = await acme.token(Role.ADMIN)
    body: dict[str, object] = {"key": "azure-canary-4f1d9e77aa21", "address": "acme", "unchecked": True}
    assert (await acme.ask("PUT", "/provider-keys/azure", token, json=body)).status_code == 200
    for given in ({"address": "evil", "unchecked": True}, {"key": "", "address": "evil", "unchecked": True}):
        reply = await acme.ask("PUT", "/provider-keys/azure", token, json=given)
        assert (reply.status_code, reply.json()["detail"]) == (400, "Paste the API key.")
    listed = await acme.ask("GET", "/provider-keys", token)
    assert [key["address"] for key in listed.json()["items"]] == ["https://acme.openai.azure.com"]


@pytest.mark.parametrize(
    ("provider", "address"),
    [
        ("azure", "https://evil.example"),
        ("azure", "https://acme.openai.azure.com.evil.example"),
        ("azure", "http://acme.openai.azure.com"),
        ("ollama", "https://127.0.0.1"),
        ("ollama", "https://169.254.169.254"),
        ("ollama", "https://localhost:11434"),
        ("ollama", "https://2130706433"),
        ("vertex", "https://evil.example"),
        ("openai", "https://evil.example"),
    ],
)
async def test_an_address_that_is_not_allowed_is_refused_at_save(acme: Acme, provider: str, address: str) -> None:
    """Also unchecked: nothing is stored that a key could be sent to by mistake."""
    token = await acme.token(Role.ADMIN)
    given = {"key": "canary-4f1d9e77aa21-0123456789", "address": address, "unchecked": True}
    reply = await acme.ask("PUT", f"/provider-keys/{provider}", token, json=given)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
    assert (await acme.ask("GET", "/provider-keys", token)).json()["items"] == []


async def test_a_key_of_a_service_account_and_no_key_at_all(acme: Acme) -> None:
    """A service account is shown by its e-mail address; a server that asks for no key is connected without one."""
    token = await acme.token(Role.ADMIN)
    pem = "-----BEGIN PRIVATE KEY-----\ncanary-0123456789\n-----END PRIVATE KEY-----\n"
    text = document("robot@acme.iam.gserviceaccount.com", pem)
    given = {"key": text, "address": "us-central1", "unchecked": True}
    saved = await acme.ask("PUT", "/provider-keys/vertex", token, json=given)
    assert (saved.status_code, saved.json()["preview"]) == (200, "robot@acme.iam.gserviceaccount.com")
    assert saved.json()["address"] == "https://us-central1-aiplatform.googleapis.com"
    assert "canary" not in saved.text
    wrong = await acme.ask("PUT", "/provider-keys/vertex", token, json={**given, "key": "AIza-canary"})
    assert (wrong.status_code, "whole JSON file" in wrong.json()["detail"]) == (400, True)
    none = await acme.ask("PUT", "/provider-keys/ollama", token, json={"unchecked": True})
    assert (none.status_code, none.json()["preview"], none.json()["address"]) == (200, "none", "")


@pytest.mark.parametrize("settings_overrides", [{"keys_managed_by": "owner"}])
async def test_keys_can_be_the_owners_alone(acme: Acme) -> None:
    """With ``OWNKEY_KEYS_MANAGED_BY=owner`` an admin's token reads the list and changes nothing."""
    admin, owner = await acme.token(Role.ADMIN), await acme.token(Role.OWNER)
    body = {"key": KEY}
    assert (await acme.ask("PUT", "/provider-keys/openai", owner, json=body)).status_code == 200
    assert (await acme.ask("GET", "/provider-keys", admin)).status_code == 200
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/check")):
        reply = await acme.ask(method, f"/provider-keys/openai{path}", admin, json=body if method == "PUT" else None)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), method
        assert reply.json()["detail"] == "AI provider keys are managed by the organization's owner.", method


async def test_the_choice_for_a_failing_key(acme: Acme) -> None:
    """Null at first; set and withdrawn without the key, kept when the key is replaced, and refused to others."""
    token, path = await acme.token(Role.ADMIN), "/provider-keys/openai/fallback"
    assert (await acme.ask("PUT", path, token, json={"tokens": 50_000})).status_code == 404
    first = await acme.ask("PUT", "/provider-keys/openai", token, json={"key": KEY})
    assert first.json()["fallback_tokens"] is None
    assert (await acme.ask("PUT", path, token, json={"tokens": 50_000})).json()["fallback_tokens"] == 50_000
    second = await acme.ask("PUT", "/provider-keys/openai", token, json={"key": SECOND})
    assert second.json()["fallback_tokens"] == 50_000
    for wrong in ({"tokens": 0}, {"tokens": -1}, {"tokens": 10**16}, {"tokens": "many"}, {}):
        assert (await acme.ask("PUT", path, token, json=wrong)).status_code in (400, 422)
    refused = await acme.ask("PUT", path, await acme.token(Role.DEVELOPER), json={"tokens": 1})
    assert refused.status_code == 403
    assert (await acme.ask("PUT", path, token, json={"tokens": None})).json()["fallback_tokens"] is None
    entries = await audit.entries(acme.db, acme.created.organization.id, action="provider_key.set_fallback")
    assert [(entry.allowed, entry.detail.get("tokens")) for entry in entries] == [
        (True, None),
        (False, None),
        (True, 50_000),
    ]
