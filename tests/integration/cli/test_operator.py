"""What an operator does, from nothing: every command once, with the documents that programs rely on."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ownkey.accounts.organizations import RESERVED_SLUGS
from ownkey.cli.main import app
from ownkey.demo.simulated_provider import SimulatedProvider
from tests.fakes.key_services import VAULT_KEY, FakeKeyServices
from tests.integration.cli.conftest import Cli

KEY = b"sk-demo-canary-4f1d9e77aa21\n"
EVENT_MEMBERS = (
    *("id", "request_id", "provider", "model", "dialect", "billed_to", "provider_key_id", "input_tokens"),
    *("cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "charged_tokens", "estimated"),
    *("outcome", "started_at", "duration_ms", "member", "workspace", "cost_micros", "currency"),
    *("fallback", "fallback_of"),
)


def test_an_organization_from_nothing(cli_on_each: Cli) -> None:
    """Create, add, subscribe, connect, look, revoke: each prints its document and is audited as the operator."""
    cli = cli_on_each
    made = cli.json("organizations", "create", "Acme Corp", "--owner", "Owner@Acme.test")
    assert set(made) == {"id", "name", "slug", "owner", "workspace"}
    assert (made["name"], made["slug"], made["owner"]["email"]) == ("Acme Corp", "acme-corp", "owner@acme.test")
    assert made["owner"]["sign_in_url"].startswith("http://ownkey.test/sign-in/")
    assert made["workspace"]["id"].startswith("wsp_")
    assert [o["slug"] for o in cli.json("organizations", "list")] == ["acme-corp"]

    added = cli.json("members", "add", "acme-corp", "dev@acme.test", "--role", "developer")
    assert (added["email"], added["role"]) == ("dev@acme.test", "developer")
    assert added["sign_in_url"].startswith("http://ownkey.test/sign-in/")
    assert [m["email"] for m in cli.json("members", "list", made["id"])] == ["owner@acme.test", "dev@acme.test"]

    link = cli.json("members", "link", "acme-corp", "Dev@acme.test")
    assert link["sign_in_url"].startswith("http://ownkey.test/sign-in/")
    assert link["sign_in_url"] != added["sign_in_url"]

    assert [plan["code"] for plan in cli.json("plans", "list")] == ["free", "starter", "professional", "enterprise"]
    assert cli.json("plans", "set", "acme-corp", "starter", "--interval", "year")["plan"] == "starter"

    token = cli.json("tokens", "create", "acme-corp", "--name", "CI", "--scope", "gateway", "usage.read")
    assert set(token) == {"id", "token"}
    assert token["token"].startswith("ownkey_")
    [listed] = cli.json("tokens", "list", "acme-corp")
    assert (listed["scopes"], listed["created_by"]) == (["gateway", "usage.read"], "Operator")
    assert cli.json("tokens", "revoke", token["id"]) == {"id": token["id"], "revoked": True}
    assert cli.json("tokens", "list", "acme-corp") == []

    usage = cli.json("usage", "acme-corp", "--month", "2026-02")
    assert usage == {
        **{"period": "2026-02", "granted": 2_000_000, "used": 0, "reserved": 0, "remaining": 2_000_000},
        **{"resets_at": "2026-03-01T00:00:00Z", "own_key_tokens": 0, "events": 0},
        **{"fallback_requests": 0, "fallback_tokens": 0},
        **{"own_key_cost_micros": 0, "own_key_unpriced_requests": 0, "currency": "USD"},
        **{"allowance_cost_micros": 0, "allowance_unpriced_requests": 0},
    }
    assert cli("usage", "events", "acme-corp").out == ""

    actions = [(e["action"], e["actor_kind"], e["allowed"]) for e in cli.json("audit", "list", "acme-corp")]
    assert actions == [
        ("api_token.revoke", "operator", True),
        ("api_token.create", "operator", True),
        ("subscription.change", "operator", True),
        ("password.change", "operator", True),
        ("membership.add", "operator", True),
        ("organization.create", "operator", True),
    ]
    assert cli.json("audit", "verify")["first_bad"] is None
    assert cli.json("ledger", "verify") == {"differences": []}


def test_a_key_is_read_from_standard_input_only(cli_on_each: Cli) -> None:
    """Set, replace, list, remove: the key comes by standard input and is in no output."""
    cli = cli_on_each
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    first = cli("keys", "set", "acme", "openai", "--json", stdin=KEY)
    assert set(first.document) == {"id", "provider", "preview", "health"}
    assert (first.document["preview"], first.document["health"]) == ("sk-demo-••••••••", "active")
    unchecked = cli("keys", "set", "acme", "openai", "--unchecked", "--json", stdin=b"sk-wrong-canary-00000000")
    assert unchecked.document["health"] == "unverified"
    listed = cli("keys", "list", "acme", "--json")
    assert [key["id"] for key in listed.document] == [unchecked.document["id"]]
    status = cli.json("vault", "status")
    assert (status["open"], status["unreadable"], sum(status["stored_keys"].values())) == (True, 0, 1)
    assert cli.json("vault", "rotate") == {"rewrapped": 0, "unchanged": 1, "failed": 0}
    removed = cli("keys", "remove", "acme", "openai", "--json")
    assert removed.document == {"provider": "openai", "removed": True}
    again = cli("keys", "remove", "acme", "openai")
    assert again.code == 1
    for result in (first, unchecked, listed, removed, again):
        assert "canary" not in result.out + result.err


def test_an_address_comes_with_its_key(cli: Cli) -> None:
    """``--address`` names the customer's host; one that is not allowed is refused before the key is read."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    given = ("keys", "set", "acme", "azure", "--unchecked")
    saved = cli(*given, "--address", "Acme-East", "--json", stdin=KEY)
    assert saved.document["address"] == "https://acme-east.openai.azure.com"
    assert [key["address"] for key in cli.json("keys", "list", "acme")] == ["https://acme-east.openai.azure.com"]
    assert "https://acme-east.openai.azure.com" in cli("keys", "list", "acme").out
    for arguments, said in (((), "needs its resource"), (("--address", "https://10.0.0.1"), "OWNKEY_ALLOWED_HOSTS")):
        refused = cli(*given, *arguments, stdin=KEY)
        assert (refused.code, said in refused.err) == (1, True)
    cli.set(ALLOWED_HOSTS="10.0.0.0/8")
    assert cli.json(*given, "--address", "https://10.0.0.1", stdin=KEY)["address"] == "https://10.0.0.1"


def test_a_provider_of_ones_own(cli: Cli, simulated_provider: SimulatedProvider) -> None:
    """One variable adds a provider, and a key for it is checked there; a slug that hides a page is refused."""
    cli.set(BASE_URL_ACME_LLM=simulated_provider.base_url("openai"))
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    saved = cli.json("keys", "set", "acme", "acme-llm", stdin=KEY)
    assert (saved["provider"], saved["health"]) == ("acme-llm", "active")
    cli.set(BASE_URL_SETTINGS="http://127.0.0.1:1")
    refused = cli("keys", "list", "acme")
    assert (refused.code, "'settings'" in refused.err) == (1, True)


def test_a_key_of_a_provider_that_is_gone_can_be_removed(
    cli: Cli, simulated_provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the operator took out of the settings leaves no key behind that nobody can destroy."""
    cli.set(BASE_URL_ACME_LLM=simulated_provider.base_url("openai"))
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    cli("keys", "set", "acme", "acme-llm", stdin=KEY)
    monkeypatch.delenv("OWNKEY_BASE_URL_ACME_LLM")
    assert cli.json("keys", "remove", "acme", "acme-llm") == {"provider": "acme-llm", "removed": True}
    assert "no provider called" in cli("keys", "remove", "acme", "acme-llm").err


def test_a_rejected_key_is_not_saved(cli: Cli) -> None:
    """What the provider rejects is refused in its own words, without the key."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    refused = cli("keys", "set", "acme", "openai", stdin=b"sk-wrong-canary-4f1d9e77aa21")
    assert refused.code == 1
    assert "OpenAI rejected this key" in refused.err
    assert "Incorrect API key" in refused.err
    assert "canary" not in refused.err
    assert cli.json("keys", "list", "acme") == []
    warned = cli("keys", "set", "acme", "openai", "--json", stdin=b"sk-demo-nocredit-0123456789")
    assert warned.document["health"] == "out_of_credit"
    assert "Out of credit" in warned.err


def test_a_token_on_a_plan_without_api_access_is_made_with_a_warning(cli: Cli) -> None:
    """The token is made, because the plan may change; that it does not work yet is said on standard error."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    made = cli("tokens", "create", "acme", "--name", "CI", "--json")
    assert set(made.document) == {"id", "token"}
    assert "does not include API access" in made.err


def test_the_files_are_their_owners_alone(cli: Cli, tmp_path: Path) -> None:
    """A command makes the database, one that needs it the key file, and says where; nobody else can read either."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    assert not (tmp_path / "data" / "vault-keys").exists()
    said = cli("vault", "status").err
    assert str(tmp_path / "data" / "vault-keys") in said
    for file in (tmp_path / "data").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_key_encryption_key_is_rotated(cli: Cli, tmp_path: Path) -> None:
    """With a new key in front, rotate wraps everything anew; then the old key is not needed any more."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    cli("keys", "set", "acme", "openai", stdin=KEY)
    file = tmp_path / "data" / "vault-keys"
    old, new = file.read_text(), cli("vault", "new-key").out
    file.write_text(new + old)
    assert cli.json("vault", "rotate") == {"rewrapped": 1, "unchanged": 0, "failed": 0}
    file.write_text(new)
    status = cli.json("vault", "status")
    assert (status["open"], status["unreadable"]) == (True, 0)
    file.write_text(old)
    locked = cli("vault", "status")
    assert json.loads(cli("vault", "status", "--json").out)["open"] is False
    assert "none of the keys" in locked.out
    assert cli("vault", "rotate").code == 1


def test_what_happens_when_a_key_fails_is_chosen(cli: Cli) -> None:
    """Never, unless a number of tokens a month is given; both at once or neither is no choice."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    assert cli("keys", "fallback", "acme", "openai", "--tokens", "5000").code == 1
    cli("keys", "set", "acme", "openai", stdin=KEY)
    assert cli.json("keys", "list", "acme")[0]["fallback_tokens"] is None
    chosen = {"provider": "openai", "fallback_tokens": 5_000}
    assert cli.json("keys", "fallback", "acme", "openai", "--tokens", "5000") == chosen
    cli("keys", "set", "acme", "openai", "--unchecked", stdin=KEY)
    assert cli.json("keys", "list", "acme")[0]["fallback_tokens"] == 5_000
    for wrong in ([], ["--never", "--tokens", "5"], ["--tokens", "0"], ["--tokens", "-5"]):
        assert cli("keys", "fallback", "acme", "openai", *wrong).code == 2
    assert cli.json("keys", "fallback", "acme", "openai", "--never")["fallback_tokens"] is None
    entries = [entry for entry in cli.json("audit", "list", "acme") if entry["action"] == "provider_key.set_fallback"]
    assert [(entry["detail"]["before"], entry["detail"]["tokens"]) for entry in entries] == [
        (5_000, None),
        (None, 5_000),
    ]


def test_no_organization_is_called_like_a_command(cli: Cli) -> None:
    """Where a command takes an organization or a subcommand, every slug means an organization."""
    groups = [group for name in app if not name.startswith("-") and (group := app[name]).default_command]
    subcommands = {name for group in groups for name in group if not name.startswith("-")}
    assert subcommands == RESERVED_SLUGS
    made = cli.json("organizations", "create", "Events", "--owner", "owner@acme.test")
    assert made["slug"] == "events-2"
    assert cli.json("usage", "events-2")["used"] == 0


def test_usage_events_have_the_documented_members(cli: Cli) -> None:
    """A JSON line has exactly the members of the contract, in its order."""
    from ownkey.metering.usage_events import UsageEvent

    assert tuple(UsageEvent.__slots__) == EVENT_MEMBERS
    assert cli("organizations", "create", "Acme", "--owner", "owner@acme.test").code == 0
    assert cli("usage", "events", "acme", "--since", "0", "--month", "2026-11", "--json").out == ""


def test_a_key_service_may_guard_the_key(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key comes wrapped, and works from the settings; without the service the vault says why it is locked."""
    with FakeKeyServices() as services:
        for name, value in services.environment.items():
            monkeypatch.setenv(name, value)
        text = cli.json("vault", "new-key", "--key-service", VAULT_KEY)["key"]
        cli.set(VAULT_KEYS=text)
        assert cli.json("vault", "status")["open"]
        services.refuse = True
        status = cli.json("vault", "status")
        assert (status["open"], "HashiCorp Vault" in status["locked_reason"]) == (False, True)
        refused = cli("vault", "new-key", "--key-service", VAULT_KEY)
        assert (refused.code, refused.out) == (1, "")
        assert "cannot be used with HashiCorp Vault" in refused.err


def test_caps(cli_on_each: Cli) -> None:
    """A cap of a workspace and one of a member are set, listed and lifted; lifting what is not there says so."""
    cli = cli_on_each
    cli.json("organizations", "create", "Acme", "--owner", "owner@acme.test")
    assert cli.json("caps", "set", "acme", "--allowance", "5000")["scope"] == "workspace"
    assert cli.json("caps", "set", "acme", "--member", "owner@acme.test", "--own-key", "7")["own_key_tokens"] == 7
    found = cli.json("caps", "list", "acme")
    assert [(cap["scope"], cap["allowance_tokens"], cap["own_key_tokens"]) for cap in found] == [
        ("member", None, 7),
        ("workspace", 5000, None),
    ]
    assert cli.json("caps", "remove", "acme")["removed"] is True
    assert cli("caps", "remove", "acme").code != 0
