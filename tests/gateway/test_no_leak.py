"""A connected key appears nowhere: not in the database's files, the log at DEBUG, replies, mails, metrics, processes.

Neither does one that was only tried, or pasted into the wrong place.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.architecture.source import PROJECT
from tests.fakes.provider import FakeProvider
from tests.gateway.canaries import Inbox, canaries, forms, found
from tests.gateway.installation import Installation
from tests.gateway.scale import PROVING, scaled

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc"),
    pytest.mark.timeout(3600 if PROVING else 240),
]
CANARIES = canaries(scaled(3, 200))
CHAT: Mapping[str, object] = {
    "model": "gpt-4o-mini",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}
PASSWORD = "violet lamps over quiet harbours"
INTEGRATIONS = "/settings/integrations/openai"
# What a provider does to a call. The key is in what it says, or it says nothing, or what nobody understands.
TROUBLES: tuple[Mapping[str, Any], ...] = (
    {"echo": True},
    {"status": 401},
    {"status": 429},
    {"status": 500},
    {"no_reply": True},
    {"malformed": "garbage"},
    {"malformed": "not_json"},
    {"cut": 2},
    {"error_after": 2},
    {"delay": 30},
)


class Story:
    """An organization whose owner has a browser, a program and a terminal; all they are shown is kept."""

    def __init__(self, here: Installation, provider: FakeProvider, inbox: Inbox) -> None:
        self.here, self.provider, self.inbox = here, provider, inbox
        made = json.loads(here.run("organizations", "create", "Acme", "--owner", "owner@acme.test", "--json"))
        self.slug, self.link = made["slug"], made["owner"]["sign_in_url"]
        scopes = ("gateway", "provider_keys.read", "provider_keys.manage", "usage.read", "audit.read")
        given = [word for scope in scopes for word in ("--scope", scope)]
        token = json.loads(here.run("tokens", "create", self.slug, "--name", "program", *given, "--json"))["token"]
        self.url = f"http://127.0.0.1:{here.port}"
        self.program = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=20)
        self.browser = httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=20)

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *error: object) -> None:
        self.program.close()
        self.browser.close()

    def keep(self, reply: httpx.Response) -> httpx.Response:
        """A reply is a sink: its head, its body, and what the browser stores."""
        head = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
        stored = repr(dict(self.browser.cookies))
        self.here.said[f"reply {len(self.here.said)}: {reply.url.path}"] = (
            f"{head}\n{stored}\n".encode() + reply.content
        )
        return reply

    def sign_in(self) -> None:
        """With the link first, then with the password; so a confirmation is never asked for."""
        self.browser.cookies.clear()
        path = self.link.removeprefix(self.url) if self.link else "/sign-in"
        form = {"name": "Owner", "password": PASSWORD, "email": "owner@acme.test"}
        reply = self.post(path, form, on=path)
        assert reply.status_code == 303, reply.text
        self.link = ""

    def post(self, path: str, form: Mapping[str, str], on: str) -> httpx.Response:
        """Send a form with the token of the page ``on`` which it stands."""
        page = self.keep(self.browser.get(on))
        csrf = page.text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
        return self.keep(self.browser.post(path, data={"csrf": csrf, **form}))

    def put(self, key: str, **more: object) -> httpx.Response:
        """Save a key by the management API."""
        return self.keep(self.program.put("/api/v1/provider-keys/openai", json={"key": key, **more}))

    def behave(self, **next_reply: Any) -> None:
        """How the provider answers the next request, and no other."""
        self.provider.clear()
        self.provider.next(**next_reply)

    def chat(self, **changes: Any) -> int:
        """A call; whatever becomes of it, what came is kept."""
        try:
            return self.keep(self.program.post("/openai/v1/chat/completions", json={**CHAT, **changes})).status_code
        except httpx.RemoteProtocolError:  # broken off, as it should be
            return 0

    def connect(self, key: str, number: int) -> None:
        """First with a provider that repeats the key and refuses it; then so that it is saved, each way in turn."""
        self.behave(echo=True)
        assert self.put(key).status_code == 400
        self.behave(status=500)
        if number % 3 == 0:
            assert "id" in json.loads(self.here.run("keys", "set", self.slug, "openai", "--json", text=key))
        elif number % 3 == 1:
            saved = self.put(key)
            for _ in range(5):  # a busy machine's database may be away for a moment
                if saved.status_code == 503:
                    saved = self.put(key)
            assert saved.status_code == 200, saved.text
        else:
            self.sign_in()
            self.behave(echo=True)
            assert self.post(INTEGRATIONS, {"api_key": key}, on=INTEGRATIONS).status_code == 422
            self.provider.clear()
            assert self.post(INTEGRATIONS, {"api_key": key}, on=INTEGRATIONS).status_code == 303
        self.provider.clear()

    def use(self, key: str) -> None:
        """Calls that succeed on the key, and calls in every kind of trouble, plain and streamed."""
        assert self.chat() == 200
        assert self.provider.last.key == key
        assert self.chat(stream=True) == 200
        for trouble in TROUBLES:
            self.behave(**trouble)
            self.chat(stream="cut" in trouble or "error_after" in trouble)
        said = json.dumps({"choices": [{"message": {"content": key}}], "usage": {"prompt_tokens": 3}}).encode()
        for answer in (
            {"body": said, "headers": (("x-ratelimit-key", key),)},
            {"body": b"data: " + said + b"\n\ndata: [DONE]\n\n", "headers": (("content-type", "text/event-stream"),)},
            {"body": said, "drip": 0.0},
        ):
            self.behave(**answer)
            assert self.chat(stream="text/event-stream" in str(answer)) == 200
        self.behave(body=gzip.compress(said), headers=(("content-encoding", "gzip"),))
        assert self.chat() == 502
        self.behave(echo=True)
        self.keep(self.program.post("/api/v1/provider-keys/openai/check"))

    def mistake(self, key: str) -> None:
        """The key where it does not belong: as an API token, in a query, in a path, with a space in it, as a name."""
        with httpx.Client(base_url=self.url, timeout=20) as stranger:
            bearer = {"authorization": f"Bearer {key}"}
            for reply in (
                stranger.post("/openai/v1/chat/completions", json=CHAT, headers=bearer),
                stranger.get("/api/v1/usage", headers=bearer),
                stranger.get("/openai/v1/models", params={"key": key}),
                stranger.post("/sign-in", data={"email": key, "password": key}),
            ):
                # Such a reply may not repeat what the caller sent; a log line never does.
                assert reply.status_code in (400, 401, 403, 404, 422)
                self.keep(reply)
        assert self.put(f"{key} {key}").status_code == 400
        assert self.put(key, address="https://10.0.0.1").status_code == 400
        assert self.put(key, expires="never").status_code in (400, 422)

    def force_errors(self, key: str) -> None:
        """Nothing can be recorded, then nothing can be written at all: what fails inside shows no values."""
        with sqlite3.connect(self.here.folder / "data" / "ownkey.db", timeout=10) as db:
            db.execute("CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'broken'); END")
        assert self.put(key, unchecked=True).status_code == 503
        with sqlite3.connect(self.here.folder / "data" / "ownkey.db", timeout=10) as db:
            db.execute("DROP TRIGGER broken")
            db.execute(
                "CREATE TRIGGER broken BEFORE INSERT ON provider_keys BEGIN SELECT no_such_function(NEW.preview); END"
            )
        assert self.put(key, unchecked=True).status_code >= 500
        with sqlite3.connect(self.here.folder / "data" / "ownkey.db", timeout=10) as db:
            db.execute("DROP TRIGGER broken")
        db.close()

    def look(self) -> None:
        """Every page, list, export and figure that could show a key."""
        for path in (
            "/settings/integrations",
            "/settings/audit",
            "/settings/audit.csv",
            "/settings/usage",
            "/assistant",
        ):
            self.keep(self.browser.get(path))
        for path in ("provider-keys", "usage", "usage/events", "audit"):
            self.keep(self.program.get(f"/api/v1/{path}"))
        self.here.get(f"http://127.0.0.1:{self.here.metrics}/metrics")
        for command in (("keys", "list"), ("usage", "events"), ("audit", "list")):
            self.here.run(*command, self.slug, "--json")
        self.here.run("settings", "--json")
        with sqlite3.connect(self.here.folder / "data" / "ownkey.db", timeout=10) as db:
            with sqlite3.connect(self.here.folder / "backup.db") as copy:
                db.backup(copy)
            copy.close()
        db.close()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[tuple[Installation, FakeProvider, Inbox]]:
    """An installation beside a fake provider and a mail server."""
    with FakeProvider() as provider, Inbox() as inbox:
        here = Installation(tmp_path, provider)
        here.environment["OWNKEY_FIRST_BYTE_TIMEOUT"] = "0.5"
        here.environment["OWNKEY_SMTP_URL"] = f"smtp://127.0.0.1:{inbox.port}"
        here.environment["OWNKEY_PUBLIC_URL"] = f"http://127.0.0.1:{here.port}"
        yield here, provider, inbox


@pytest.mark.prove
def test_a_key_appears_nowhere(installation: tuple[Installation, FakeProvider, Inbox]) -> None:
    """Connect, use, be refused, echo, time out, break, misplace, fail inside, replace, remove: no form in any sink."""
    here, provider, inbox = installation
    with Story(here, provider, inbox) as story, here.serving() as process:
        story.sign_in()
        for number, canary in enumerate(CANARIES):
            story.connect(canary, number)
            story.use(canary)
            story.mistake(canary)
            story.force_errors(canary)
            if number % 20 == 0:
                story.look()
                assert found(canary, {**here.sinks(process), **inbox.sinks()}) == []
        for _ in range(250):  # that the last key was refused is told within a round
            if inbox.messages:
                break
            time.sleep(0.1)
        here.run("keys", "remove", story.slug, "openai", "--json")
        story.look()
        story.put(CANARIES[-1], unchecked=True)  # so that a key is in the memory of what crashes now
        story.chat()
        process.send_signal(signal.SIGABRT)
        assert process.wait(30) == -signal.SIGABRT
    sinks = {**here.sinks(), **inbox.sinks()}
    for sink in ("/log", "ownkey.db", "-wal", "backup.db", "audit.csv", "metrics", "command", "mail", "reply"):
        assert any(sink in name and data for name, data in sinks.items()), sink
    assert [hit for canary in CANARIES for hit in found(canary, sinks)] == []
    assert any(b"refuses the API key" in message for message in inbox.messages)


def test_a_planted_leak_is_found(installation: tuple[Installation, FakeProvider, Inbox], tmp_path: Path) -> None:
    """The search works: a key that gets into any kind of sink, in any form, is found there."""
    here, provider, inbox = installation
    leaked = canaries(250)[-7:]
    here.environment["OWNKEY_APP_NAME"] = leaked[0]
    argument = subprocess.Popen([sys.executable, "-c", "input()", leaked[6]], stdin=subprocess.PIPE)
    with Story(here, provider, inbox) as story, here.serving() as process, argument:
        story.sign_in()
        with sqlite3.connect(here.folder / "data" / "ownkey.db", timeout=10) as db:
            db.execute("UPDATE organizations SET name = ?", (base64.b64encode(leaked[1].encode()).decode(),))
        db.close()
        story.put(canaries(1)[0], unchecked=True)
        provider.next(body=leaked[2].encode().hex().upper().encode())
        story.chat()
        here.run("tokens", "create", story.slug, "--name", leaked[5])
        with here.log.open("ab") as log:
            log.write(leaked[3].encode("utf-16-le"))
        inbox.messages.append("".join(f"%{ord(letter):02X}" for letter in leaked[4]).encode())
        story.look()
        sinks = {**here.sinks(process), **here.sinks(argument), **inbox.sinks()}
        environment = here.sinks(process)["environ"]
        argument.communicate()
    assert found(leaked[0], {"environ": environment})
    assert any("ownkey.db" in hit and "base64" in hit for hit in found(leaked[1], sinks))
    assert any("reply" in hit and "capital" in hit for hit in found(leaked[2], sinks))
    assert any("/log" in hit and "UTF-16" in hit for hit in found(leaked[3], sinks))
    assert any("mail" in hit and "percent" in hit for hit in found(leaked[4], sinks))
    # The name of a token is told wherever tokens and changes are.
    for sink in ("-wal", "backup.db", "audit.csv", "/api/v1/audit", "/settings/audit", "command"):
        assert any(sink in hit and "plain" in hit for hit in found(leaked[5], sinks)), sink
    assert any("cmdline" in hit for hit in found(leaked[6], sinks))
    for number, (form, text) in enumerate(forms(leaked[0]).items()):
        path = tmp_path / str(number)
        path.write_bytes(b"before " + text + b" after")
        assert any(form in hit for hit in found(leaked[0], {path.name: path.read_bytes()}))


def test_pages_keep_nothing_in_the_browser() -> None:
    """No script of ours writes to a browser's storage: it keeps cookies only, which are searched with the replies."""
    scripts = [path for path in (PROJECT / "src").rglob("*") if path.suffix in (".js", ".html")]
    assert scripts
    storage = re.compile("localStorage|sessionStorage|indexedDB|caches\\.open|document\\.cookie")
    assert [path.name for path in scripts if storage.search(path.read_text(encoding="utf-8"))] == []
