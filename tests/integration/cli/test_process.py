"""What only real processes show: start-up, signals, several workers, and commands beside a running server."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from ownkey.vault.kek import new_kek
from tests.fixtures.postgres import PostgresServer
from tests.integration.cli.conftest import Cli, started

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me about tea in 40 words"}]}


def wait_until_ready(address: str, server: subprocess.Popen[str]) -> None:
    """Wait until the server says that it is ready."""
    for _ in range(300):
        if server.poll() is not None:
            pytest.fail(f"the server ended: {server.stderr.read() if server.stderr else ''}")
        try:
            if httpx.get(f"{address}/healthz/ready", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("the server did not become ready")


@contextmanager
def serving(
    arguments: list[str], environment: Mapping[str, str], folder: Path, port: int
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that is ready, and gone afterwards."""
    server = started([*arguments, "--port", str(port)], environment, folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(address, server)
        yield address, server
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


def finished(server: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; the exit code and what standard error held."""
    server.send_signal(number)
    _, errors = server.communicate(timeout=30)
    return server.returncode, errors


def command(environment: Mapping[str, str], folder: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run a command in a process of its own."""
    process = started(list(arguments), environment, folder)
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


def test_help_loads_neither_database_nor_web(tmp_path: Path) -> None:
    """Help is quick: none of the heavy libraries is imported for it."""
    program = (
        "import sys; from ownkey.cli.main import run; code = run(['--help']); "
        "heavy = {'sqlalchemy', 'fastapi', 'pydantic', 'tink', 'alembic', 'uvicorn'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "organizations" in done.stdout


def test_commands_work_beside_a_running_server(
    cli: Cli, environment: Mapping[str, str], tmp_path: Path, free_tcp_port: int
) -> None:
    """What commands change counts at the next call: a token, a key, a revocation. SIGTERM ends it with exit 0."""
    settings = {**environment, "OWNKEY_PLATFORM_KEY_OPENAI": "sk-demo-platform"}
    with serving(["serve"], settings, tmp_path, free_tcp_port) as (address, server):
        cli.json("organizations", "create", "Acme", "--owner", "owner@acme.test", "--plan", "starter")
        token = cli.json("tokens", "create", "acme", "--name", "CI")

        def chat() -> httpx.Response:
            headers = {"authorization": f"Bearer {token['token']}"}
            return httpx.post(f"{address}/openai/v1/chat/completions", json=CHAT, headers=headers, timeout=10)

        assert (chat().status_code, chat().headers["x-ownkey-billed-to"]) == (200, "allowance")
        cli.json("keys", "set", "acme", "openai", stdin=b"sk-demo-acme-key-0123456789")
        assert chat().headers["x-ownkey-billed-to"] == "own_key"
        cli.json("keys", "remove", "acme", "openai")
        assert chat().headers["x-ownkey-billed-to"] == "allowance"
        usage = cli.json("usage", "acme")
        assert (usage["events"], usage["used"] > 0, usage["own_key_tokens"] > 0) == (4, True, True)
        events = [json.loads(line) for line in cli("usage", "events", "acme").out.splitlines()]
        assert [event["billed_to"] for event in events] == ["allowance", "allowance", "own_key", "allowance"]
        assert sum(event["charged_tokens"] for event in events) == usage["used"]
        later = cli("usage", "events", "acme", "--since", str(events[2]["id"])).out
        assert [json.loads(line)["id"] for line in later.splitlines()] == [events[3]["id"]]
        cli.json("tokens", "revoke", token["id"])
        assert chat().status_code == 401
        assert cli.json("ledger", "verify") == {"differences": []}
        assert cli.json("audit", "verify")["first_bad"] is None
        code, errors = finished(server, signal.SIGTERM)
    assert code == 0, errors
    for line in errors.splitlines():
        assert set(json.loads(line)) >= {"event", "level", "timestamp"}
    assert token["token"] not in errors


def test_a_taken_port_is_a_refusal(environment: Mapping[str, str], tmp_path: Path, free_tcp_port: int) -> None:
    """A port that somebody else has is one sentence and exit 1."""
    with serving(["serve"], environment, tmp_path, free_tcp_port):
        code, _, err = command(environment, tmp_path, "serve", "--port", str(free_tcp_port))
    assert code == 1
    assert "in use" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_the_log_says_which_port_was_taken(environment: Mapping[str, str], tmp_path: Path) -> None:
    """Of port 0 it says the one that the machine gave."""
    server = started(["serve", "--port", "0"], environment, tmp_path)
    try:
        assert server.stderr is not None
        wait_until_ready(json.loads(server.stderr.readline())["address"], server)
        assert finished(server, signal.SIGTERM)[0] == 0
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


@pytest.mark.parametrize("log", ["2>&-", "2>/dev/full"])
def test_it_serves_without_a_log(environment: Mapping[str, str], tmp_path: Path, free_tcp_port: int, log: str) -> None:
    """A full disk for its lines, or no standard error at all, keep nobody from being served."""
    command = f'exec "$@" --port {free_tcp_port} {log}'
    server = subprocess.Popen(
        ["sh", "-c", command, "sh", sys.executable, "-m", "ownkey", "serve"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        text=True,
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{free_tcp_port}", server)
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()


def test_an_empty_host_is_not_every_address(cli: Cli) -> None:
    """A variable that is not set must not open the service to the world."""
    result = cli("serve", "--host", "")
    assert (result.code, result.out) == (1, "")
    assert "host is empty" in result.err


def test_workers_share_a_port(
    environment: Mapping[str, str], tmp_path: Path, postgres_url: URL, free_tcp_port: int
) -> None:
    """Two workers answer on one port; one signal to the parent stops both, with exit 0."""
    settings = {
        **environment,
        "OWNKEY_DATABASE_URL": postgres_url.render_as_string(hide_password=False),
        "OWNKEY_VAULT_KEYS": new_kek(),
    }
    with serving(["serve", "--workers", "2"], settings, tmp_path, free_tcp_port) as (address, server):
        workers = _children(server.pid)
        for _ in range(100):
            if len(workers) == 2:
                break
            time.sleep(0.1)
            workers = _children(server.pid)
        assert len(workers) == 2
        for _ in range(20):
            assert httpx.get(f"{address}/healthz/live", timeout=5).status_code == 200
        code, errors = finished(server, signal.SIGTERM)
        assert code == 0, errors
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)


def test_workers_end_with_their_parent(
    environment: Mapping[str, str], tmp_path: Path, postgres_url: URL, free_tcp_port: int
) -> None:
    """A parent that is killed leaves no worker behind on the port."""
    settings = {
        **environment,
        "OWNKEY_DATABASE_URL": postgres_url.render_as_string(hide_password=False),
        "OWNKEY_VAULT_KEYS": new_kek(),
    }
    with serving(["serve", "--workers", "2"], settings, tmp_path, free_tcp_port) as (_, server):
        workers = _children(server.pid)
        server.kill()
        server.wait()
        for _ in range(200):
            if not any(os.path.exists(f"/proc/{worker}") for worker in workers):
                return
            time.sleep(0.1)
    pytest.fail("a worker outlived its parent")


def test_a_worker_that_cannot_come_back_yet_takes_no_other_down(
    environment: Mapping[str, str], tmp_path: Path, own_postgres: PostgresServer, free_tcp_port: int
) -> None:
    """While there is no room for it, or no database, a worker that died is tried again; the other one stays."""
    settings = {
        **environment,
        "OWNKEY_DATABASE_URL": own_postgres.url.render_as_string(hide_password=False),
        "OWNKEY_VAULT_KEYS": new_kek(),
    }
    with serving(["serve", "--workers", "2"], settings, tmp_path, free_tcp_port) as (address, server):
        time.sleep(11)  # younger ones would be taken for workers that never came up
        dying, staying = _children(server.pid)
        with own_postgres.away("stopped"):
            files = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (5, files[1]))
            os.kill(dying, signal.SIGKILL)
            time.sleep(2)
            assert _children(server.pid) == [staying]
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, files)
            time.sleep(6)
            assert staying in _children(server.pid)
            assert httpx.get(f"{address}/healthz/live", timeout=5).status_code == 200
        workers = before = {staying}
        for _ in range(20):
            time.sleep(3)  # longer than one lives that does not find the database
            workers, before = set(_children(server.pid)), workers
            if len(workers) == 2 and workers == before:
                break
        assert len(workers & before) == 2
        code, errors = finished(server, signal.SIGTERM)
    assert code == 0, errors
    assert "a worker could not be started" in errors


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]
