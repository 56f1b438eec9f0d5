"""A connected key appears nowhere: not in the database's files, the log at DEBUG, a reply, metrics or processes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation

CANARIES = [f"sk-canary{number}-{'q7Zk' * 3}-{number * 7919:08d}-xYw" for number in range(1, 4)]
CHAT = json.dumps({"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]})


def forms(key: str) -> dict[str, bytes]:
    """A key's tail (its first characters may be shown) in the ways it could be written down."""
    tail = key[10:].encode()
    encoded = {f"base64 from {n}": base64.b64encode(b"x" * n + tail)[4 if n else 0 : -4] for n in range(3)}
    return {
        "plain": tail,
        "hexadecimal": tail.hex().encode(),
        "capital hexadecimal": tail.hex().upper().encode(),
        "percent": b"".join(b"%%%02X" % byte for byte in tail),
        "UTF-16": tail.decode().encode("utf-16-le"),
        **encoded,
    }


def found(key: str, sinks: dict[str, bytes]) -> list[str]:
    """Where a key can be read, and in which form."""
    return [f"{name} ({form})" for name, data in sinks.items() for form, text in forms(key).items() if text in data]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[Installation, FakeProvider]]:
    """An installation beside a fake provider."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_FIRST_BYTE_TIMEOUT"] = "0.5"
        yield here, provider


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_a_key_appears_nowhere(installation: tuple[Installation, FakeProvider]) -> None:
    """Connect, use, be refused, echo, time out, break, replace, remove: no form of the key in any sink."""
    here, provider = installation
    slug = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))["slug"]
    token = json.loads(here.run("tokens", "create", slug, "--name", "program", "--json"))["token"]
    chat = f"http://127.0.0.1:{here.port}/openai/v1/chat/completions"
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    with here.serving() as process:
        for canary in CANARIES:
            provider.clear()
            provider.accept({canary})
            assert "id" in json.loads(here.run("keys", "set", slug, "openai", "--json", text=canary))
            assert here.get(chat, CHAT, **headers) == 200
            assert provider.last.key == canary
            provider.accept(None)
            for trouble in (
                {"echo": True},
                {"status": 401},
                {"status": 429},
                {"status": 500},
                {"delay": 30},
                {"no_reply": True},
                {"malformed": "garbage"},
                {"malformed": "not_json"},
            ):
                provider.next(**trouble)
                here.get(chat, CHAT, **headers)
            here.run("keys", "list", slug, "--json")
            here.get(f"http://127.0.0.1:{here.metrics}/metrics")
            assert found(canary, here.sinks(process)) == []
        here.run("keys", "remove", slug, "openai", "--json")
        here.run("usage", "events", slug, "--json")
        here.run("audit", "list", slug, "--json")
    sinks = here.sinks()
    assert any("/log" in name and data for name, data in sinks.items())
    assert any(name.endswith("ownkey.db") for name in sinks)
    for canary in CANARIES:
        assert found(canary, sinks) == []


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    """The search itself works: each form of a key, written to a file, is found there."""
    for number, (form, text) in enumerate(forms(CANARIES[0]).items()):
        path = tmp_path / str(number)
        path.write_bytes(b"before " + text + b" after")
        assert any(form in hit for hit in found(CANARIES[0], {path.name: path.read_bytes()}))
