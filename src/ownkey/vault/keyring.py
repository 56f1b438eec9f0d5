"""Where key encryption keys come from, and the key ring: the ones a node holds.

They stand in ``OWNKEY_VAULT_KEYS`` or in the file named by ``OWNKEY_VAULT_KEYS_FILE``, newest first. Without either,
the first start on the embedded database makes the file ``vault-keys`` in the data directory. It never does so beside
rows that are sealed already: they would be lost behind a key that opens nothing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ownkey.errors import Unavailable
from ownkey.settings import Settings
from ownkey.vault import key_services
from ownkey.vault.kek import BadKek, Kek, new_kek

KEY_FILE_NAME = "vault-keys"
_NEW_FILE = """\
# Ownkey's key encryption keys, newest first, one a line. Without this file the provider keys in the
# database cannot be opened, and nobody can bring it back: keep a copy, apart from the database's.
{kek}
"""


class VaultLocked(Unavailable):
    """The vault has no key, or not the right one; what needs none goes on working."""

    sentence = (
        "The vault is locked: provider keys cannot be used or changed now. Whoever runs this service is told why."
    )


class KeyRing:
    """The key encryption keys of a node. The first seals, all open. A locked one says why and refuses."""

    def __init__(
        self, keks: Sequence[Kek], *, locked_reason: str | None = None, announcement: str | None = None
    ) -> None:
        self._keks: Mapping[str, Kek] = {kek.id: kek for kek in keks}
        self._primary = keks[0] if keks and not locked_reason else None
        # A locked node still guards its forms. What it derives then holds until it ends and on this node only.
        self._deriving = keks[0] if keks else Kek(secrets.token_bytes(32))
        self.locked_reason = locked_reason
        self.announcement = announcement

    @classmethod
    def load(cls, settings: Settings, *, sealed_kek_ids: Collection[str], embedded: bool) -> KeyRing:
        """The key ring of a node, locked if its keys are missing, unusable, or not those the rows were sealed with.

        ``sealed_kek_ids`` are the ids of the keys that rows in the database are sealed with. With ``embedded``, a
        missing key file is made when there is no such row; ``announcement`` then says where.
        """
        announcement = None
        try:
            source, lines = _configured(settings)
            if lines is None and embedded and not sealed_kek_ids:
                source, lines = _make_file(settings.data_dir / KEY_FILE_NAME)
                announcement = f"Made a key encryption key in {source}. Keep a copy of it, apart from the database's."
            if lines is None:
                return cls([], locked_reason=_missing(source, embedded=embedded))
            keks = _parse(source, lines)
        except _Unusable as error:
            return cls([], locked_reason=str(error))
        unknown = set(sealed_kek_ids) - {kek.id for kek in keks}
        if sealed_kek_ids and len(unknown) == len(set(sealed_kek_ids)):
            return cls(keks, locked_reason=f"{source} has none of the keys that sealed the stored provider keys "
                       f"({', '.join(sorted(unknown))}). Bring the right one back.")  # fmt: skip
        if unknown:
            announcement = f"{source} lacks the key {', '.join(sorted(unknown))}: some provider keys cannot be opened."
        return cls(keks, announcement=announcement)

    @property
    def primary_id(self) -> str:
        """The id of the key that seals; empty when locked."""
        return self._primary.id if self._primary else ""

    @property
    def is_locked(self) -> bool:
        """Whether nothing can be sealed or opened."""
        return self._primary is None

    def primary(self) -> Kek:
        """The key that seals. Raises ``VaultLocked``."""
        if self._primary is None:
            raise VaultLocked
        return self._primary

    def kek(self, kek_id: str) -> Kek:
        """The key with this id. Raises ``VaultLocked``, also when only this one is missing."""
        self.primary()
        try:
            return self._keks[kek_id]
        except KeyError:
            raise VaultLocked from None

    def holds(self, kek_id: str) -> bool:
        """Whether rows sealed with this key can be opened."""
        return not self.is_locked and kek_id in self._keks

    def fingerprint_key(self, organization_id: str) -> bytes:
        """What an organization's key fingerprints are computed with: alike keys of two organizations look different."""
        return self.primary().derive(b"ownkey/v1/fingerprint/" + organization_id.encode())

    def derive(self, info: bytes) -> bytes:
        """32 bytes for a use of its own, such as form tokens; available on a locked ring too.

        All nodes with the same first key get the same bytes. Without any key they are random and last until the
        process ends.
        """
        return self._deriving.derive(b"ownkey/v1/other/" + info)


class _Unusable(Exception):
    """Why the configured keys cannot be used, in a sentence."""


def _configured(settings: Settings) -> tuple[str, Sequence[str] | None]:
    """Where the keys stand and their lines; None for the lines if there is no such file and none was asked for."""
    if settings.vault_keys is not None and settings.vault_keys_file is not None:
        raise _Unusable("Both OWNKEY_VAULT_KEYS and OWNKEY_VAULT_KEYS_FILE are set. Keep one of them.")
    if settings.vault_keys is not None:
        return "OWNKEY_VAULT_KEYS", settings.vault_keys.get_secret_value().replace(",", "\n").splitlines()
    file = settings.vault_keys_file or settings.data_dir / KEY_FILE_NAME
    try:
        return str(file), file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        if settings.vault_keys_file is None:
            return str(file), None
        raise _Unusable(f"The key file {file} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _Unusable(f"The key file {file} cannot be read ({type(error).__name__}).") from error


def _parse(source: str, lines: Sequence[str]) -> Sequence[Kek]:
    texts = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not texts:
        raise _Unusable(f"{source} has no key. Make one with `ownkey vault new-key`.")
    return [_kek(f"Key {number} of {source}", text) for number, text in enumerate(texts, start=1)]


def _kek(name: str, text: str) -> Kek:
    try:
        return Kek.parse(text)
    except BadKek as error:
        advice = "" if key_services.is_wrapped(text) else " Make one with `ownkey vault new-key`."
        raise _Unusable(f"{name} {error}.{advice}") from None


def _missing(source: str, *, embedded: bool) -> str:
    if embedded:
        return (
            f"The key file {source} is gone, and the database has provider keys sealed with it. Bring it back; "
            "a new one would not open them."
        )
    return "With PostgreSQL a key must be given: set OWNKEY_VAULT_KEYS to what `ownkey vault new-key` prints."


def _make_file(path: Path) -> tuple[str, Sequence[str]]:
    """Write a new key to a file that only its owner reads; if another process was first, read that one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(_NEW_FILE.format(kek=new_kek()))
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never in the place of a file that is there.
        os.link(draft, path)
        _sync_directory(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise _Unusable(f"The key file {path} cannot be made ({error.strerror}).") from error
    finally:
        draft.unlink(missing_ok=True)
    return str(path), path.read_text(encoding="utf-8").splitlines()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
