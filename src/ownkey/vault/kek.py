"""A key encryption key (KEK): 32 random bytes, written as base64.

The bytes are never used as they are. Each use has a key of its own, derived with HKDF under its own name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from itertools import pairwise

import tink
from tink import aead, prf, secret_key_access
from tink.proto import aes_gcm_pb2, common_pb2, hkdf_prf_pb2, tink_pb2

from ownkey.vault import key_services
from ownkey.vault.key_services import KeyServiceFailed

KEK_BYTES = 32
# Of 32 random bytes about 30 differ; fewer than this happens once in 10^18 keys.
_FEWEST_DIFFERENT_BYTES = 16
_WRAPPING = b"ownkey/v1/wrap data keys"
_NAMING = b"ownkey/v1/name this key"
_TYPE_URL = "type.googleapis.com/google.crypto.tink."

aead.register()
prf.register()


class BadKek(ValueError):
    """A text that is no key encryption key, or a weak one; the message says why and never holds the text."""


class Kek:
    """One key encryption key. It prints as its id, which is derived from it and tells nothing about it."""

    __slots__ = ("_prf", "id", "wrapping")

    def __init__(self, key: bytes) -> None:
        _refuse_weak(key)
        self._prf = _hkdf(key)
        self.id: str = self.derive(_NAMING, 6).hex()
        self.wrapping: aead.Aead = _aes_gcm(self.derive(_WRAPPING))

    @classmethod
    def parse(cls, text: str) -> Kek:
        """The key in ``text``: base64 of 32 bytes, either alphabet, or wrapped by a key service. Raises ``BadKek``."""
        if key_services.is_wrapped(text):
            try:
                return cls(key_services.unwrap(text))
            except KeyServiceFailed as error:
                raise BadKek(str(error)) from error
        compact = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
        try:
            key = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise BadKek("is not base64") from None
        return cls(key)

    def derive(self, info: bytes, length: int = KEK_BYTES) -> bytes:
        """``length`` bytes for the use that ``info`` names; other uses cannot be computed from them."""
        return bytes(self._prf.primary().compute(info, length))

    def __repr__(self) -> str:
        return f"Kek({self.id})"


def new_kek(key_service: str = "") -> str:
    """The text of a new key encryption key, as ``OWNKEY_VAULT_KEYS`` takes it.

    With the address of a key in a key service it is wrapped by that one. Raises ``KeyServiceFailed``.
    """
    key = secrets.token_bytes(KEK_BYTES)
    return key_services.wrap(key_service, key) if key_service else base64.b64encode(key).decode()


def _refuse_weak(key: bytes) -> None:
    if len(key) != KEK_BYTES:
        raise BadKek(f"has {len(key)} bytes instead of {KEK_BYTES}")
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    if len(set(key)) < _FEWEST_DIFFERENT_BYTES or len(steps) == 1:
        raise BadKek("is a pattern, not random")
    if all(32 <= byte < 127 for byte in key):
        raise BadKek("is text, not random")


def _hkdf(key: bytes) -> prf.PrfSet:
    params = hkdf_prf_pb2.HkdfPrfParams(hash=common_pb2.SHA256, salt=hashlib.sha256(b"ownkey/vault").digest())
    proto = hkdf_prf_pb2.HkdfPrfKey(version=0, params=params, key_value=key)
    return _handle("HkdfPrfKey", proto.SerializeToString()).primitive(prf.PrfSet)


def _aes_gcm(key: bytes) -> aead.Aead:
    proto = aes_gcm_pb2.AesGcmKey(version=0, key_value=key)
    return _handle("AesGcmKey", proto.SerializeToString()).primitive(aead.Aead)


def _handle(kind: str, value: bytes) -> tink.KeysetHandle:
    data = tink_pb2.KeyData(type_url=_TYPE_URL + kind, value=value, key_material_type=tink_pb2.KeyData.SYMMETRIC)
    key = tink_pb2.Keyset.Key(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[key])
    return tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
