"""Provider keys through the management API: written, checked, never read."""

from __future__ import annotations

import pytest

from ownkey import audit
from ownkey.access import Role
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
