"""``ownkey demo``: what it prints is true, and nothing stays behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.integration.cli.conftest import started
from tests.integration.cli.test_process import finished, wait_until_ready


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_does_what_it_says(tmp_path: Path, free_tcp_port: int, number: signal.Signals) -> None:
    """The token is spent until it is refused; the passwords sign in; a signal ends it and the folder is gone.

    Settings of the machine, here a database that is not there, do not reach it.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    foreign = {"TMPDIR": str(temporary), "OWNKEY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    demo = started(["demo", "--port", str(free_tcp_port)], foreign, tmp_path)
    try:
        address = f"http://127.0.0.1:{free_tcp_port}"
        wait_until_ready(address, demo)
        assert demo.stdout is not None
        printed = ""
        while "(Mistral)" not in printed:
            printed += demo.stdout.readline()
        assert address in printed
        [token] = set(re.findall(r"ownkey_\w{40}", printed))
        people = re.findall(r"^  (\w+) +(\w+@acme\.test) +(\S+)$", printed, re.MULTILINE)
        assert [(role, email) for role, email, _ in people] == [
            *(("Owner", "owner@acme.test"), ("Admin", "admin@acme.test")),
            *(("Developer", "developer@acme.test"), ("User", "user@acme.test")),
        ]
        assert all(len(line) <= 80 for line in printed.splitlines() if "Bearer" not in line)
        if number is signal.SIGINT:  # once is enough for what takes time
            assert _spent(address, token) == "allowance_exhausted"
            for _, email, password in people:
                _sign_in(address, email, password)
        code, errors = finished(demo, number)
        assert (code, errors) == (0, "")
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.communicate()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_is_stopped_while_it_starts(tmp_path: Path, free_tcp_port: int, number: signal.Signals) -> None:
    """Nothing stays behind, either."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    demo = started(["demo", "--port", str(free_tcp_port)], {"TMPDIR": str(temporary)}, tmp_path)
    while not list(temporary.glob("ownkey-demo-*")):  # without a pause: it is told in the moment the folder is there
        assert demo.poll() is None
    finished(demo, number)
    assert list(temporary.iterdir()) == []


def _spent(address: str, token: str) -> str:
    """Call as the printed line does until a call is refused; the refusal's code."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me about tea in 2000 words"}]}
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=10) as client:
        for _ in range(30):
            reply = client.post(f"{address}/openai/v1/chat/completions", json=body)
            if reply.status_code != 200:
                code: str = reply.json()["error"]["code"]
                return code
    return "never refused"


def _sign_in(address: str, email: str, password: str) -> None:
    with httpx.Client(base_url=address, headers={"origin": address}) as browser:
        page = browser.get("/sign-in").text
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)
        fields = {"csrf": csrf[1] if csrf else "", "email": email, "password": password}
        reply = browser.post("/sign-in", data=fields)
        assert reply.status_code == 303, email
        assert browser.get("/settings/account").status_code == 200
