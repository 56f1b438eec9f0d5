"""Exit codes: 0 done, 1 refused, 2 not understood; and one sentence, never a traceback."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL

from tests.integration.cli.conftest import Cli, started

REFUSED = (
    "organizations create Acme --owner nobody",
    "organizations create Acme --owner owner@acme.test --plan gold",
    "members add nowhere a@acme.test --role user",
    "members link acme nobody@acme.test",
    "tokens create nowhere --name x",
    "tokens create acme --name x --scope everything",
    "tokens revoke tok_0",
    "keys set acme nobody",
    "keys set acme openai",
    "keys remove acme openai",
    "plans set acme gold",
    "usage nowhere",
    "usage events nowhere",
    "audit list nowhere",
    "serve --workers 2",
)
BAD_USAGE = (
    "nothing",
    "organizations create",
    "organizations create Acme",
    "members add acme a@acme.test",
    "members add acme a@acme.test --role owner",
    "usage acme --month November",
    "usage acme --month 0000-01",
    "usage acme --month 2999-01",
    "usage acme --month 9999-12",
    "usage events acme --since -1",
    "usage events acme --since 1.9",
    "usage events acme --since 9223372036854775808",
    "audit list acme --limit 0",
    "audit list acme --limit 9223372036854775808",
    "audit list acme --before 9223372036854775808",
    "audit list acme --limit 0.6",
    "caps set acme",
    "caps set acme --allowance 1.500",
    "caps set acme --own-key 0x10",
    "caps set acme --allowance none",
    "keys fallback acme openai",
    "keys fallback acme openai --never --tokens 1",
    "keys fallback acme openai --tokens 1e6",
    "keys set acme openai sk-demo-canary-4f1d9e77aa21",
    "serve --workers 0",
    "serve --port 70000",
    "serve --port 18801.6",
    "demo --port +1",
    "plans list --yaml",
)


def test_a_refusal_is_one_sentence_and_exit_1(cli: Cli, subtests: pytest.Subtests) -> None:
    """What cannot be done is said in one line on standard error; standard output stays empty, with ``--json`` too."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    for command in REFUSED:
        with subtests.test(command):
            result = cli(*command.split(), *(["--json"] if "serve" not in command else []))
            assert (result.code, result.out) == (1, "")
            assert result.err.count("\n") == 1
            assert result.err.endswith(".\n")
            assert "Something went wrong" not in result.err


def test_bad_usage_is_exit_2(cli: Cli, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """What cannot be understood is said in one line, does nothing, and does not repeat what may be a key."""
    for command in BAD_USAGE:
        with subtests.test(command):
            result = cli(*command.split())
            assert (result.code, result.out) == (2, "")
            assert result.err.count("\n") == 1
            assert "canary" not in result.err
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_named(cli: Cli) -> None:
    """A setting that cannot be used is named, and its value is not said."""
    for name, value in (
        ("PUBLIC_URL", "ftp://canary"),
        ("PUBLIC_URL", "https://host:canary"),
        ("PUBLIC_URL", "https://canary:99999"),
        ("PUBLIC_URL", "https://host/canary"),
        ("PUBLIC_URL", "https://canäry.example"),
        ("METRICS_ADDRESS", "canary"),
        ("METRICS_ADDRESS", "host:canary"),
        ("METRICS_ADDRESS", "canary:99999"),
        ("LOG_LEVEL", "canary"),
        ("MAX_REQUEST_BYTES", "canary"),
        ("DRAIN_TIMEOUT", "inf"),
        ("DATABASE_URL", "mysql://user:canary@host/db"),
        ("DATABASE_URL", "canary.example/db"),
        ("DATABASE_URL", "postgresql://host:canary/db"),
        ("SECRETS_DIR", "/nowhere"),
        ("PLANS_FILE", "/nowhere/plans.toml"),
    ):
        cli.set(**{name: value})
        result = cli("organizations", "list")
        assert result.code == 1, name
        assert name in result.err or "plans file" in result.err
        assert "canary" not in result.err
        assert "Something went wrong" not in result.err
        cli._monkeypatch.delenv(f"OWNKEY_{name}")


def test_a_plans_file_that_is_no_text_is_named(cli: Cli, tmp_path: Path) -> None:
    """Files are UTF-8; one in another encoding is refused by its name, as any other wrong one."""
    file = tmp_path / "plans.toml"
    cli.set(PLANS_FILE=str(file))
    file.write_bytes('[plans.office]\nname = "Büro"\nmonthly_tokens = 1\n'.encode())
    assert cli.json("plans", "list")[0]["name"] == "Büro"
    file.write_bytes(file.read_text(encoding="utf-8").encode("latin-1"))
    refused = cli("plans", "list")
    assert (refused.code, f"The plans file {file}" in refused.err) == (1, True)


def test_an_edited_audit_log_is_found(cli: Cli, tmp_path: Path) -> None:
    """``audit verify`` exits 1 and names the first entry that is not what was written."""
    cli("organizations", "create", "Acme", "--owner", "owner@acme.test")
    cli("members", "add", "acme", "a@acme.test", "--role", "user")
    assert cli("audit", "verify").code == 0
    with sqlite3.connect(tmp_path / "data" / "ownkey.db") as database:
        database.execute("UPDATE audit_entries SET actor_label = 'Nobody' WHERE id = 2")
    database.close()
    result = cli("audit", "verify")
    assert result.code == 1
    assert "Audit entry 2" in result.err


def test_an_edited_balance_is_found(cli: Cli, tmp_path: Path) -> None:
    """``ledger verify`` exits 1 and names organization, month and difference."""
    made = cli.json("organizations", "create", "Acme", "--owner", "owner@acme.test")
    with sqlite3.connect(tmp_path / "data" / "ownkey.db") as database:
        database.execute(
            "INSERT INTO allowances (organization_id, period, granted_tokens, used_tokens) VALUES (?, '2026-11', 7, 0)",
            (made["id"],),
        )
    database.close()
    result = cli("ledger", "verify")
    assert result.code == 1
    for part in (made["id"], "2026-11", "+7"):
        assert part in result.err


def emptied(postgres_url: URL, *then: str) -> str:
    """The database without anything in it, and with what these statements do: its address."""
    address = postgres_url.render_as_string(hide_password=False)
    with psycopg.connect(postgres_url.set(drivername="postgresql").render_as_string(hide_password=False)) as server:
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *then):
            server.execute(statement.encode())
    return address


def test_an_outdated_postgresql_is_refused(cli: Cli, postgres_url: URL) -> None:
    """On PostgreSQL nothing is migrated by the way; ``migrate`` does it, and says that it is done."""
    cli.set(DATABASE_URL=emptied(postgres_url))
    refused = cli("organizations", "list")
    assert (refused.code, "ownkey migrate" in refused.err) == (1, True)
    assert cli.json("migrate") == {"database": "postgresql", "up_to_date": True}
    assert cli.json("organizations", "list") == []


def test_a_newer_database_is_refused(cli_on_each: Cli, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """An Ownkey that was set back says that the database is newer, and not to migrate it."""
    cli = cli_on_each
    assert cli("migrate").code == 0
    statement = "UPDATE alembic_version SET version_num = '9999'"
    if "postgres_url" in request.fixturenames:
        address = request.getfixturevalue("postgres_url").set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as server:
            server.execute(statement.encode())
    else:
        with closing(sqlite3.connect(tmp_path / "data" / "ownkey.db", isolation_level=None)) as database:
            database.execute(statement)
    for command in ("migrate", "organizations list", "serve --port 0"):
        refused = cli(*command.split())
        assert (refused.code, "A newer Ownkey" in refused.err, "migrate" in refused.err) == (1, True, False)


def test_a_database_that_cannot_be_used_is_said_so(cli: Cli, postgres_url: URL, tmp_path: Path) -> None:
    """A role that may not create tables, and a file that is no database: a sentence that says which it is."""
    role = f"weak_{uuid4().hex[:12]}"
    emptied(postgres_url, f"CREATE ROLE {role}", f"GRANT USAGE ON SCHEMA public TO {role}")
    weak = postgres_url.update_query_dict({"options": f"-c role={role}"})
    cli.set(DATABASE_URL=weak.render_as_string(hide_password=False))
    refused = cli("migrate")
    emptied(postgres_url, f"DROP ROLE {role}")
    assert (refused.code, "permission denied" in refused.err) == (1, True), refused.err
    (tmp_path / "text.db").write_text("not a database, " * 100)
    cli.set(DATABASE_URL=f"sqlite:///{tmp_path}/text.db")
    refused = cli("organizations", "list")
    assert (refused.code, "not a database" in refused.err) == (1, True)


def test_several_may_migrate_at_once(environment: Mapping[str, str], tmp_path: Path, postgres_url: URL) -> None:
    """Three nodes that are installed together each run ``migrate``: all find it done."""
    settings = {**environment, "OWNKEY_DATABASE_URL": emptied(postgres_url)}
    processes = [started(["migrate", "--json"], settings, tmp_path) for _ in range(3)]
    ends = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
