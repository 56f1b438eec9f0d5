"""What a killed process leaves behind is put right by the next one: nothing lost, nothing doubled, nothing held."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.provider import FakeProvider
from tests.gateway.installation import Installation
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
CYCLES = 2
LEASE_AND_REAPER = 30


@pytest.mark.timeout(180)
def test_kill_in_the_middle(tmp_path: Path) -> None:
    """Completed calls are charged exactly what the provider counted; broken ones what was seen; nothing stays held."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_PLATFORM_KEY_OPENAI"] = "sk-platform-0123456789-abcdefghijklmnop"
        here.environment["OWNKEY_PLANS_FILE"] = str(_plans(tmp_path))
        slug = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))["slug"]
        token = json.loads(here.run("tokens", "create", slug, "--name", "program", "--json"))["token"]
        completed: dict[str, int] = {}
        for _ in range(CYCLES):
            completed.update(_calls_and_kill(here, provider, token))
        with here.serving():
            usage = _until_nothing_is_held(here, slug)
        events = [json.loads(line) for line in here.run("usage", "events", slug, "--json").splitlines()]
        by_request = {event["request_id"]: event for event in events}
        assert len(by_request) == len(events)
        for request_id, tokens in completed.items():
            assert by_request[request_id]["charged_tokens"] == tokens
            assert not by_request[request_id]["estimated"]
        broken = [event for event in events if event["request_id"] not in completed]
        assert len(broken) == CYCLES * 5
        for event in broken:
            assert event["outcome"] == "abandoned"
            assert event["estimated"]
            assert 0 < event["charged_tokens"] < 1_000
        assert usage["used"] == sum(event["charged_tokens"] for event in events)
        here.run("ledger", "verify", "--json")
        assert list(here.said.values())[-1].find(b"difference") == -1 or b"[]" in list(here.said.values())[-1]


@pytest.mark.timeout(180)
def test_kill_in_the_second_attempt(tmp_path: Path) -> None:
    """A call that the allowance serves in place of a key is settled, and known as that, when its node has died."""
    with FakeProvider() as provider:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_PLATFORM_KEY_OPENAI"] = "sk-platform-0123456789-abcdefghijklmnop"
        slug = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))["slug"]
        token = json.loads(here.run("tokens", "create", slug, "--name", "program", "--json"))["token"]
        here.run("keys", "set", slug, "openai", "--unchecked", text="sk-own-key-0123456789-abcdefghijklmnop")
        here.run("keys", "fallback", slug, "openai", "--tokens", "5000")
        with here.serving() as process, Wire(f"http://127.0.0.1:{here.port}") as wire:
            provider.next(status=503)
            provider.next(tokens=400, pause=0.05)
            wire.send(post(CHAT, token, chat(stream=True, max_tokens=500)))
            while not wire.line().startswith(b"data:"):
                pass
            process.kill()
            process.wait(10)
        with here.serving():
            usage = _until_nothing_is_held(here, slug)
        events = [json.loads(line) for line in here.run("usage", "events", slug, "--json").splitlines()]
        first, second = events
        assert (first["billed_to"], first["outcome"], first["fallback"]) == ("own_key", "refused", None)
        assert (second["billed_to"], second["outcome"], second["fallback"]) == ("allowance", "abandoned", "outage")
        assert second["fallback_of"] == first["request_id"]
        assert usage["used"] == usage["fallback_tokens"] == second["charged_tokens"] > 0


def _plans(folder: Path) -> Path:
    plans = folder / "large.toml"
    plans.write_text('[plans.free]\nname = "Free"\nmonthly_tokens = 1000000\napi_access = true\n')
    return plans


def _calls_and_kill(here: Installation, provider: FakeProvider, token: str) -> dict[str, int]:
    """Ten calls that end and five streams that run; then SIGKILL. Returns the ended ones' tokens by request."""
    completed = {}
    with here.serving() as process:
        url = f"http://127.0.0.1:{here.port}"
        provider.script(tokens=12)
        for number in range(10):
            with Wire(url) as wire:
                wire.send(post(CHAT, token, chat(stream=number % 2 == 0, max_tokens=50)))
                reply = wire.reply()
            received = provider.last
            completed[reply.headers["x-request-id"]] = received.tokens_in + received.tokens_out
        provider.script(tokens=400, pause=0.05)
        running = [Wire(url) for _ in range(5)]
        for wire in running:
            wire.send(post(CHAT, token, chat(stream=True, max_tokens=500)))
            while not wire.line().startswith(b"data:"):
                pass
        time.sleep(1.5)
        process.kill()
        process.wait(10)
        for wire in running:
            wire.close()
    return completed


def _until_nothing_is_held(here: Installation, slug: str) -> Any:
    deadline = time.monotonic() + LEASE_AND_REAPER
    while True:
        usage = json.loads(here.run("usage", slug, "--json"))
        if usage["reserved"] == 0:
            return usage
        assert time.monotonic() < deadline, f"{usage['reserved']} tokens are still held"
        time.sleep(1)
