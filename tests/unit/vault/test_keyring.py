"""Where key encryption keys come from, and what a node does without the right one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ownkey.settings import read_settings
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KEY_FILE_NAME, KeyRing, VaultLocked

# Not in use anywhere: a key that is written down is none.
GOOD = "tq3LwZ1m4kqf8u6Tg0cVhXyB2nRj7PpEa9sDdKxMbUo="


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, with no ``.env`` about."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def load(data: Path, *, sealed: set[str] | None = None, embedded: bool = True, **values: Any) -> KeyRing:
    """The ring of a node with these settings, on a database with rows sealed with these keys."""
    settings = read_settings(data_dir=data, **values)
    return KeyRing.load(settings, sealed_kek_ids=sealed or set(), embedded=embedded)


def test_the_first_start_makes_a_key_file_and_says_where(data: Path) -> None:
    """On an empty embedded database a key is made, for its owner's eyes only; the next start uses it silently."""
    first = load(data)
    file = data / KEY_FILE_NAME
    assert file.stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700
    assert first.announcement is not None
    assert str(file) in first.announcement
    again = load(data, sealed={first.primary_id})
    assert (again.primary_id, again.announcement, again.is_locked) == (first.primary_id, None, False)
    assert [entry.name for entry in data.iterdir()] == [KEY_FILE_NAME]


def test_starting_twice_at_once_makes_one_key(data: Path) -> None:
    """Processes that start at the same moment end up with the same key."""
    with ThreadPoolExecutor(16) as pool:
        rings = list(pool.map(lambda _: load(data), range(16)))
    assert len({ring.primary_id for ring in rings}) == 1


def test_no_key_is_made_beside_sealed_rows(data: Path) -> None:
    """Without its key file a database with sealed keys is locked; a new key would only hide the loss."""
    ring = load(data, sealed={"0123456789ab"})
    assert ring.is_locked
    assert ring.locked_reason is not None
    assert str(data / KEY_FILE_NAME) in ring.locked_reason
    assert not data.exists()


def test_postgresql_needs_a_given_key(data: Path) -> None:
    """Nodes of one database cannot each make their own key."""
    ring = load(data, embedded=False)
    assert ring.is_locked
    assert "OWNKEY_VAULT_KEYS" in str(ring.locked_reason)
    assert not data.exists()


def test_the_wrong_key_locks(data: Path) -> None:
    """A key that sealed none of the stored rows is the wrong one; nothing is sealed with it beside them."""
    right = Kek.parse(new_kek())
    ring = load(data, sealed={right.id}, vault_keys=new_kek())
    assert ring.is_locked
    assert right.id in str(ring.locked_reason)
    assert not ring.holds(ring.primary_id)
    with pytest.raises(VaultLocked):
        ring.primary()
    with pytest.raises(VaultLocked):
        ring.kek(right.id)
    with pytest.raises(VaultLocked):
        ring.fingerprint_key("org_1")


def test_a_missing_older_key_locks_only_its_rows(data: Path) -> None:
    """With some of the keys the vault is open and says which one it lacks."""
    newer, older = new_kek(), Kek.parse(new_kek())
    ring = load(data, sealed={Kek.parse(newer).id, older.id}, vault_keys=newer)
    assert not ring.is_locked
    assert older.id in str(ring.announcement)
    assert not ring.holds(older.id)
    with pytest.raises(VaultLocked):
        ring.kek(older.id)


@pytest.mark.parametrize("separator", [",", "\n", " ,\n "])
def test_the_first_key_seals_and_all_open(data: Path, separator: str) -> None:
    """Keys stand newest first, one a line or separated by commas."""
    texts = [new_kek(), new_kek(), new_kek()]
    ids = [Kek.parse(text).id for text in texts]
    ring = load(data, sealed={ids[2]}, vault_keys=separator.join(texts))
    assert ring.primary_id == ids[0]
    assert all(ring.holds(kek_id) for kek_id in ids)


def test_keys_can_stand_in_a_file_of_the_operators(data: Path, tmp_path: Path) -> None:
    """A named file is read, comments and empty lines left out; on PostgreSQL too."""
    text = new_kek()
    file = tmp_path / "keys"
    file.write_text(f"# newest\n\n{text}\n")
    assert load(data, embedded=False, vault_keys_file=file).primary_id == Kek.parse(text).id


@pytest.mark.parametrize(
    "keys",
    ["", "  ", "secret", "A" * 43 + "=", "c2l4dGVlbiBieXRlcyAhIQ==", f"{GOOD},changeme"],
)
def test_an_unusable_key_locks_and_is_not_repeated(data: Path, keys: str) -> None:
    """One bad key among the given ones locks the vault: half of a configuration is no configuration."""
    ring = load(data, vault_keys=keys)
    assert ring.is_locked
    assert all(key not in str(ring.locked_reason) for key in keys.split(",") if key.strip())
    assert not data.exists()


def test_a_named_file_that_is_missing_locks(data: Path, tmp_path: Path) -> None:
    """A file that was asked for is never made."""
    ring = load(data, vault_keys_file=tmp_path / "nowhere")
    assert ring.is_locked
    assert not (tmp_path / "nowhere").exists()


def test_two_sources_lock(data: Path, tmp_path: Path) -> None:
    """Which of two settings counts is not left to chance."""
    (tmp_path / "keys").write_text(new_kek())
    assert load(data, vault_keys=new_kek(), vault_keys_file=tmp_path / "keys").is_locked


def test_what_is_derived_is_the_same_on_all_nodes_of_a_key(data: Path) -> None:
    """Nodes with the same key guard forms alike; a locked node still can."""
    text = new_kek()
    one, two = load(data, vault_keys=text), load(data, vault_keys=text)
    assert one.derive(b"csrf") == two.derive(b"csrf") != one.derive(b"notices")
    locked = load(data, embedded=False)
    assert locked.derive(b"csrf") == locked.derive(b"csrf") != load(data, embedded=False).derive(b"csrf")
    wrong = load(data, vault_keys=text, sealed={"0123456789ab"})
    assert wrong.is_locked
    assert wrong.derive(b"csrf") == one.derive(b"csrf")


def test_fingerprints_of_two_organizations_do_not_compare(data: Path) -> None:
    """The same key in two organizations has two fingerprints."""
    ring = load(data)
    assert ring.fingerprint_key("org_1") != ring.fingerprint_key("org_2")


def test_a_key_file_that_cannot_be_read_locks(data: Path) -> None:
    """Something else in its place is not taken for a missing file, so nothing is made."""
    (data / KEY_FILE_NAME).mkdir(parents=True)
    ring = load(data)
    assert ring.is_locked
    assert "cannot be read" in str(ring.locked_reason)
    (data / KEY_FILE_NAME).rmdir()
    (data / KEY_FILE_NAME).write_bytes(b"\xff\xfe")
    assert load(data).is_locked


def test_a_key_file_that_cannot_be_made_locks(data: Path) -> None:
    """A node without a place for its key says so instead of keeping the key to itself."""
    data.mkdir()
    (data / "file").touch()
    ring = load(data / "file")
    assert ring.is_locked
    assert str(data / "file") in str(ring.locked_reason)
