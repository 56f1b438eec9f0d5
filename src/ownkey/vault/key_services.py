"""Key services: a key encryption key (KEK) that stands in the settings wrapped, and opens only with their help.

``aws-kms://arn:aws:kms:…``, ``gcp-kms://projects/…/cryptoKeys/…`` or ``hcvault://transit/keys/name``, then ``#`` and
the wrapped KEK in base64. A node asks the service once, when it starts, and holds the KEK until it ends: no call waits
for the service, and what the service takes back opens nothing from the next start on. Each service's own library is an
extra of the installation, and finds the credentials and addresses where it always does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tink import aead

_BOUND_TO = b"ownkey/v1/key encryption key"


class KeyServiceFailed(ValueError):
    """The key service cannot be asked, or refused; the message says why and holds no key."""


@dataclass(frozen=True, slots=True)
class KeyService:
    """One kind of key service: its name, the extra it needs, and how tink reaches a key of it.

    ``binds``: it authenticates what a ciphertext is for; Vault's transit engine does not, by tink's adapter.
    """

    name: str
    extra: str
    open: Callable[[str], aead.Aead]
    binds: bool = True


def _aws(uri: str) -> aead.Aead:
    from tink.integration import awskms

    return awskms.AwsKmsClient(uri, None).get_aead(uri)


def _google(uri: str) -> aead.Aead:
    from tink.integration import gcpkms

    return gcpkms.GcpKmsClient(uri).get_aead(uri)


def _vault(uri: str) -> aead.Aead:
    import hvac
    from tink.integration import hcvault

    return hcvault.new_aead(uri.partition("://")[2], hvac.Client())


SERVICES: Mapping[str, KeyService] = {
    "aws-kms": KeyService("AWS KMS", "aws-kms", _aws),
    "gcp-kms": KeyService("Google Cloud KMS", "gcp-kms", _google),
    "hcvault": KeyService("HashiCorp Vault", "hcvault", _vault, binds=False),
}


def is_wrapped(text: str) -> bool:
    """Whether a key of the settings has to be unwrapped by a key service."""
    return "://" in text


def wrap(uri: str, key: bytes) -> str:
    """A new key encryption key as the settings take it, wrapped by the service. Raises ``KeyServiceFailed``."""
    wrapped = _ask(uri, lambda cipher, bound_to: cipher.encrypt(key, bound_to))
    return f"{uri}#{base64.b64encode(wrapped).decode()}"


def unwrap(text: str) -> bytes:
    """The key encryption key in a text that ``wrap`` gave. Raises ``KeyServiceFailed``."""
    uri, mark, encoded = text.strip().partition("#")
    try:
        wrapped = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        wrapped = b""
    if not mark or not wrapped:
        raise KeyServiceFailed("has no wrapped key behind its #")
    return _ask(uri, lambda cipher, bound_to: cipher.decrypt(wrapped, bound_to))


def _ask(uri: str, question: Callable[[aead.Aead, bytes], bytes]) -> bytes:
    service = SERVICES.get(uri.partition("://")[0])
    if service is None:
        raise KeyServiceFailed(f"is of no key service that is known ({', '.join(SERVICES)})")
    try:
        return question(service.open(uri), _BOUND_TO if service.binds else b"")
    except ImportError as error:
        raise KeyServiceFailed(f"needs what {service.name} needs: install ownkey[{service.extra}]") from error
    except Exception as error:  # each library has its own, and their texts may hold addresses and names of accounts
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        raise KeyServiceFailed(f"cannot be used with {service.name} ({type(cause).__name__})") from error
