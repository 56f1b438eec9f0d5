"""Envelope encryption: a fresh data key seals the secret, a key encryption key (KEK) seals the data key.

Both layers are AES-256-GCM by tink and authenticate what the secret is bound to, so a ciphertext that was copied to
another row does not open. This is the only module that calls a cipher.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tink
from tink import aead

from ownkey.credentials import Secret
from ownkey.errors import Unavailable
from ownkey.vault.keyring import KeyRing


class EnvelopeBroken(Unavailable):
    """A sealed secret that does not open with the right key: its row was changed, or it was sealed for another."""

    sentence = "A stored provider key cannot be opened. It can be connected anew under Settings → Integrations."


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret that can be stored. ``wrapped_data_key`` is a tink keyset, which names its algorithm and version."""

    ciphertext: bytes = field(repr=False)
    wrapped_data_key: bytes = field(repr=False)
    kek_id: str


def seal(keyring: KeyRing, secret: Secret, bound_to: bytes) -> Sealed:
    """Seal under a new data key and the ring's first key. Raises ``VaultLocked``."""
    kek = keyring.primary()
    data_key = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    ciphertext = data_key.primitive(aead.Aead).encrypt(secret.reveal().encode(), bound_to)
    return Sealed(ciphertext, tink.proto_keyset_format.serialize_encrypted(data_key, kek.wrapping, bound_to), kek.id)


def open_sealed(keyring: KeyRing, sealed: Sealed, bound_to: bytes) -> Secret:
    """The secret. Raises ``VaultLocked`` without the key, ``EnvelopeBroken`` when it is not what was sealed."""
    data_key = _data_key(keyring, sealed, bound_to)
    try:
        return Secret(data_key.primitive(aead.Aead).decrypt(sealed.ciphertext, bound_to).decode())
    except (tink.TinkError, UnicodeDecodeError):
        raise EnvelopeBroken from None


def rewrap(keyring: KeyRing, sealed: Sealed, bound_to: bytes) -> Sealed:
    """The same secret with its data key under the ring's first key; the secret itself stays closed."""
    kek = keyring.primary()
    data_key = _data_key(keyring, sealed, bound_to)
    wrapped = tink.proto_keyset_format.serialize_encrypted(data_key, kek.wrapping, bound_to)
    return Sealed(sealed.ciphertext, wrapped, kek.id)


def _data_key(keyring: KeyRing, sealed: Sealed, bound_to: bytes) -> tink.KeysetHandle:
    kek = keyring.kek(sealed.kek_id)
    try:
        return tink.proto_keyset_format.parse_encrypted(sealed.wrapped_data_key, kek.wrapping, bound_to)
    except tink.TinkError:
        raise EnvelopeBroken from None
