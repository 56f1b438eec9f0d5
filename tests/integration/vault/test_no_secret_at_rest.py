"""No secret stands anywhere in the embedded database's files, in no form that reads back."""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from sqlalchemy import URL

from ownkey.access import Role
from ownkey.accounts import api_tokens, invitations, passwords, sign_in
from ownkey.credentials import Secret, random_text
from ownkey.db.engine import Database
from ownkey.providers import registry
from ownkey.providers.health import Health
from ownkey.vault import key_health
from ownkey.vault import provider_keys as keys
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing
from tests import build

pytestmark = pytest.mark.anyio

SHOWN = 11  # characters of a secret that a list may show: a preview's eight, an API token's prefix and four


def forms(secret: str) -> dict[str, bytes]:
    """How the hidden part of a secret would look in a file, by name of the encoding."""
    hidden = secret[SHOWN:]
    raw = hidden.encode()
    # Base64 depends on where in a group of three the text begins; these are the middle parts, for each case.
    shifted = {f"base64 at {n}": base64.b64encode(b"x" * n + raw)[4:-4].strip(b"=") for n in range(3)}
    return {
        "plain": raw,
        "reversed": raw[::-1],
        "utf-16": hidden.encode("utf-16-le"),
        "hex": binascii.hexlify(raw),
        "HEX": binascii.hexlify(raw).upper(),
        "json": json.dumps(hidden).encode().strip(b'"'),
        "url": urllib.parse.quote(hidden, safe="").encode(),
        **shifted,
    }


async def test_no_secret_stands_in_the_files(sqlite_url: URL) -> None:
    """Provider keys, key encryption keys, passwords, and the tokens we issue, after use, replacement and removal."""
    database = Database(sqlite_url)
    kek_text = new_kek()
    ring = KeyRing([Kek.parse(kek_text)])
    provider_secrets = [f"sk-proj-{random_text(48)}" for _ in range(4)]
    secrets = {f"provider key {n}": text for n, text in enumerate(provider_secrets)}
    secrets["key encryption key"] = kek_text
    secrets["password"] = random_text(40)

    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    secrets["link"] = made.sign_in_token
    strong, passwords.hasher = passwords.hasher, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    try:
        secrets["session"] = await sign_in.redeem_link(database, made.sign_in_token, secrets["password"])
    finally:
        passwords.hasher = strong
    _, secrets["invitation"] = await invitations.create(
        database, owner, "guest@example.com", Role.USER, made.workspace.id
    )
    _, secrets["API token"] = await api_tokens.create(database, owner, "CI", ["gateway"])
    openai, groq = registry.find("openai"), registry.find("groq")
    for provider, text in zip((openai, openai, groq, groq), provider_secrets, strict=True):
        saved = await keys.save(database, ring, owner, provider, Secret(text), Health.ACTIVE)
        sealed = await keys.sealed_key(database, owner, provider.slug)
        assert keys.use(ring, sealed).reveal() == text
        await key_health.note_health(database, saved.id, saved.organization_id, Health.REJECTED, "Rejected.")
    await keys.remove(database, owner, "groq")

    before_checkpoint = contents(sqlite_url)
    await database.close()
    everything = before_checkpoint + contents(sqlite_url)
    assert len(before_checkpoint) > 100_000
    assert b"sk-proj-" in everything  # the preview: so we do look where keys would be
    found = [
        (name, form) for name, secret in secrets.items() for form, text in forms(secret).items() if text in everything
    ]
    assert found == []


def contents(url: URL) -> bytes:
    """All bytes of the database and what lies beside it: the write-ahead log and its index."""
    path = Path(str(url.database))
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def test_the_search_would_find_a_secret() -> None:
    """Each form is found in a text that has the secret in it, encoded like that."""
    secret = "sk-proj-" + random_text(40)
    texts = {
        "plain": secret.encode(),
        "reversed": secret.encode()[::-1],
        "utf-16": secret.encode("utf-16-le"),
        "hex": secret.encode().hex().encode(),
        "HEX": secret.encode().hex().upper().encode(),
        "json": json.dumps({"key": secret}).encode(),
        "url": urllib.parse.quote(secret).encode(),
    }
    for name, text in texts.items():
        assert forms(secret)[name] in text, name
    for n in range(3):
        encoded = base64.b64encode(b"y" * n + secret.encode())
        assert any(form in encoded for name, form in forms(secret).items() if name.startswith("base64")), n


async def test_a_removed_keys_ciphertext_is_gone_from_the_files(sqlite_url: URL) -> None:
    """Removing and replacing destroy the sealed key too: in the database's file and in its write-ahead log."""
    database = Database(sqlite_url)
    ring = KeyRing([Kek.parse(new_kek())])
    made = await build.organization(database)
    owner = build.acting(made.owner, made, Role.OWNER)
    provider, destroyed = registry.find("openai"), []
    for number in range(3):
        secret = Secret(f"sk-proj-{number}-{random_text(48)}")
        await keys.save(database, ring, owner, provider, secret, Health.ACTIVE)
        destroyed.append((await keys.sealed_key(database, owner, "openai")).ciphertext)
    await keys.remove(database, owner, "openai")
    files = b"".join(path.read_bytes() for path in Path(str(sqlite_url.database)).parent.glob("ownkey.db*"))
    assert [ciphertext in files for ciphertext in destroyed] == [False] * 3
    await database.close()
