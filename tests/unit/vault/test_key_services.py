"""A key encryption key that a key service guards: nothing that stands in the settings opens anything by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from ownkey.credentials import Secret
from ownkey.settings import Settings, read_settings
from ownkey.vault import envelope
from ownkey.vault.kek import BadKek, Kek, new_kek
from ownkey.vault.key_services import KeyServiceFailed
from ownkey.vault.keyring import KeyRing
from tests.fakes.key_services import AWS_KEY, VAULT_KEY, FakeKeyServices

GOOGLE_KEY = "gcp-kms://projects/acme/locations/europe-west3/keyRings/ownkey/cryptoKeys/vault"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKeyServices]:
    """The services, where their libraries find them."""
    with FakeKeyServices() as services:
        for name, value in services.environment.items():
            monkeypatch.setenv(name, value)
        yield services


def settings(folder: Path, *keys: str) -> Settings:
    """Settings with these key encryption keys."""
    return read_settings(data_dir=folder, vault_keys=SecretStr(",".join(keys)))


def ring_of(folder: Path, *keys: str, sealed: tuple[str, ...] = ()) -> KeyRing:
    """The ring of a node on PostgreSQL."""
    return KeyRing.load(settings(folder, *keys), sealed_kek_ids=sealed, embedded=False)


@pytest.mark.parametrize("uri", [AWS_KEY, VAULT_KEY])
def test_a_wrapped_key_seals_and_opens(uri: str, services: FakeKeyServices, tmp_path: Path) -> None:
    """It is unwrapped once, at the start; after that the service is not asked, however much is sealed and opened."""
    text = new_kek(uri)
    assert text.startswith(f"{uri}#")
    [(_, _, plain)] = services.wrapped.values()
    assert plain not in text
    ring = ring_of(tmp_path, text)
    assert not ring.is_locked
    asked = len(services.asked)
    assert asked == 2
    sealed = envelope.seal(ring, Secret("sk-1"), b"here")
    assert envelope.open_sealed(ring, sealed, b"here") == Secret("sk-1")
    assert len(services.asked) == asked
    assert ring_of(tmp_path, text).primary_id == ring.primary_id


@pytest.mark.parametrize("uri", [AWS_KEY, VAULT_KEY])
def test_without_the_service_the_vault_is_locked(uri: str, services: FakeKeyServices, tmp_path: Path) -> None:
    """What the service refuses, or cannot be asked, opens nothing; the reason is said, and no secret."""
    text = new_kek(uri)
    services.refuse = True
    locked = ring_of(tmp_path, text)
    assert locked.is_locked
    assert "Key 1 of OWNKEY_VAULT_KEYS cannot be used with" in (locked.locked_reason or "")
    assert text.partition("#")[2] not in (locked.locked_reason or "")
    assert "a-secret" not in (locked.locked_reason or "")
    services.refuse = False
    assert not ring_of(tmp_path, text).is_locked


def test_rotation_from_the_settings_to_a_service_and_on(services: FakeKeyServices, tmp_path: Path) -> None:
    """A key of the settings, one of AWS and one of Vault in one ring: each opens what it sealed, the first seals."""
    plain, aws, vault = new_kek(), new_kek(AWS_KEY), new_kek(VAULT_KEY)
    before = envelope.seal(ring_of(tmp_path, plain), Secret("sk-1"), b"here")
    during = ring_of(tmp_path, aws, plain, sealed=(before.kek_id,))
    moved = envelope.rewrap(during, before, b"here")
    after = ring_of(tmp_path, vault, aws, sealed=(moved.kek_id,))
    again = envelope.rewrap(after, moved, b"here")
    assert len({before.kek_id, moved.kek_id, again.kek_id}) == 3
    assert envelope.open_sealed(ring_of(tmp_path, vault), again, b"here") == Secret("sk-1")


def test_a_wrapped_key_of_another_use_does_not_open(services: FakeKeyServices) -> None:
    """AWS authenticates what was wrapped for what: a ciphertext of another program is refused."""
    text = new_kek(AWS_KEY)
    [token] = services.wrapped
    key, _, plain = services.wrapped[token]
    services.wrapped[token] = (key, "null", plain)
    with pytest.raises(BadKek, match="AWS KMS"):
        Kek.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("azure-kms://vault/key#AAAA", "no key service that is known"),
        (AWS_KEY, "has no wrapped key"),
        (f"{AWS_KEY}#", "has no wrapped key"),
        (f"{AWS_KEY}#not base64", "has no wrapped key"),
        ("aws-kms://somewhere#AAAA", "cannot be used with AWS KMS"),
        ("hcvault://no-keys-in-it#AAAA", "cannot be used with HashiCorp Vault"),
    ],
)
def test_what_cannot_be_one_says_why(text: str, why: str, services: FakeKeyServices) -> None:
    """A typing error is told, and the service is not asked about it."""
    with pytest.raises(BadKek, match=why):
        Kek.parse(text)
    assert services.asked == []


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    """Google's is not installed here: the reason says which extra has it, and the node runs on, locked."""
    pytest.importorskip("tink.integration")
    try:
        import google.cloud.kms_v1  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("Google's library is installed here")
    with pytest.raises(KeyServiceFailed, match=r"install ownkey\[gcp-kms\]"):
        new_kek(GOOGLE_KEY)
    locked = ring_of(tmp_path, f"{GOOGLE_KEY}#AAAA")
    assert "install ownkey[gcp-kms]" in (locked.locked_reason or "")
