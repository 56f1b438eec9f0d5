"""What is printed: tables for people, JSON for programs, settings with their sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from ownkey.settings import read_settings
from tests.integration.cli.conftest import Cli, started


def test_tables_line_up_and_cannot_steer_the_terminal(cli: Cli) -> None:
    """Columns line up, wide characters counted; what a name may hold of control characters is shown as such."""
    for name in ("Acme", "日本株式会社"):
        assert cli("organizations", "create", name, "--owner", "owner@acme.test").code == 0
    table = cli("organizations", "list").out.splitlines()
    assert table[0].split() == ["ID", "Name", "Slug", "Created", "at"]
    assert len(table) == 3
    assert all(ord(character) >= 32 for line in table for character in line)


def test_facts_are_for_people(cli: Cli) -> None:
    """Without ``--json`` numbers have separators, times are readable, and nothing is an empty cell."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    shown = cli("usage", "acme", "--month", "2026-02").out
    assert re.search(r"^Granted +100,000$", shown, re.MULTILINE)
    assert re.search(r"^Resets at +2026-03-01 00:00 UTC$", shown, re.MULTILINE)
    assert cli("keys", "list", "acme").out == "Nothing to list.\n"


def test_settings_are_listed_with_their_sources(cli: Cli, tmp_path: Path) -> None:
    """Every setting is there with its value and source; secrets are masked, whatever they come from."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ownkey_platform_key_anthropic").write_text("sk-ant-canary-1\n")
    (secrets / "keystore").write_bytes(b"\xff\xfe of somebody else")
    (tmp_path / ".env").write_text("OWNKEY_APP_NAME=Acme\nOWNKEY_LOG_LEVEL=ERROR\n")
    cli.set(
        SECRETS_DIR=str(secrets),
        LOG_LEVEL="WARNING",
        DATABASE_URL="postgresql://someone:canary@db.example.com/ownkey?sslcert=canary",
        VAULT_KEYS="k1:canary",
        SMTP_URL="smtp://someone:canary@mail.example.com:587",
        PLATFORM_KEY_OPENAI="sk-canary-2",
    )
    result = cli("settings", "--json")
    found = {setting["name"]: (setting["value"], setting["source"]) for setting in result.document}
    assert found["OWNKEY_APP_NAME"] == ("Acme", ".env")
    assert found["OWNKEY_LOG_LEVEL"] == ("WARNING", "environment")
    assert found["OWNKEY_KEYS_MANAGED_BY"] == ("admin", "default")
    assert found["OWNKEY_DATABASE_URL"] == ("postgresql://db.example.com/ownkey", "environment")
    assert found["OWNKEY_VAULT_KEYS"] == ("••••••••", "environment")
    assert found["OWNKEY_PLATFORM_KEY_ANTHROPIC"] == ("••••••••", f"file in {secrets}")
    assert found["OWNKEY_PLATFORM_KEY_OPENAI"] == ("••••••••", "environment")
    assert found["OWNKEY_SECRETS_DIR"] == (str(secrets), "environment")
    assert "canary" not in result.out + cli("settings").out


def test_an_address_that_can_be_read_in_two_ways_is_masked(cli: Cli) -> None:
    """A password may have any character: what stands before an @ is never shown."""
    for address in ("postgresql://own:canary?canary@db.example/own", "postgresql://own:can/ary@canary@db.example/own"):
        cli.set(DATABASE_URL=address)
        shown = {setting["name"]: setting["value"] for setting in cli.json("settings")}["OWNKEY_DATABASE_URL"]
        assert "canary" not in shown
        assert "own:" not in shown


def test_a_terminal_may_lack_characters(environment: Mapping[str, str], tmp_path: Path) -> None:
    """What standard output cannot encode is replaced; the rest is printed."""
    settings = {**environment, "OWNKEY_VAULT_KEYS": "k1:x", "PYTHONIOENCODING": "latin-1"}
    out, err = started(["settings"], settings, tmp_path).communicate(timeout=60)
    assert err == ""
    assert re.search(r"^OWNKEY_VAULT_KEYS +\?+ +environment$", out, re.MULTILINE)


def test_a_platform_key_may_end_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``$(cat file)`` of some shells, or a secret of a cluster, has it: the line break is not of the key."""
    monkeypatch.setenv("OWNKEY_PLATFORM_KEY_OPENAI", "sk-demo-platform\n")
    key = read_settings().platform_key("openai")
    assert key is not None
    assert key.reveal() == "sk-demo-platform"
