"""The settings as the command line needs them: read once, wrong ones named in a sentence, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.settings import SECRETS_DIR_VARIABLE, Settings, read_settings, secrets_folder

MASK = "••••••••"
_PER_PROVIDER = {"platform_keys": "OWNKEY_PLATFORM_KEY_", "base_urls": "OWNKEY_BASE_URL_"}


@dataclass(frozen=True, slots=True)
class Configured:
    """One setting in force. A secret's value is masked."""

    name: str
    value: str
    source: str


def configured(**overrides: object) -> Settings:
    """The settings. Raises ``InvalidRequest`` naming the ones that are wrong."""
    try:
        return read_settings(**overrides)
    except ValidationError as error:
        wrong = [f"OWNKEY_{'_'.join(str(p) for p in e['loc']).upper()}: {_reason(e['msg'])}" for e in error.errors()]
        raise InvalidRequest(f"The settings are wrong. {'; '.join(wrong)}.") from None
    except (SettingsError, UnicodeDecodeError) as error:
        raise InvalidRequest("The settings cannot be read. Check .env and the secrets directory.") from error


def in_force(settings: Settings) -> Iterator[Configured]:
    """Every setting in the order of the documentation: those per provider after the others, then where secrets are."""
    sources = _sources()
    for field in Settings.model_fields:
        if field in _PER_PROVIDER:
            continue
        name = f"OWNKEY_{field.upper()}"
        value = getattr(settings, field)
        shown = _address(value) if isinstance(value, SecretStr) and field.endswith("_url") else _shown(value)
        yield Configured(name, shown, sources.get(name, "default"))
    for field, prefix in _PER_PROVIDER.items():
        values: Mapping[str, object] = getattr(settings, field)
        for slug, value in sorted(values.items()):
            name = prefix + slug.upper().replace("-", "_")
            yield Configured(name, _shown(value), sources.get(name, "default"))
    folder = secrets_folder()
    yield Configured(SECRETS_DIR_VARIABLE, _shown(folder), "environment" if folder else "default")


def _sources() -> Mapping[str, str]:
    """Where each variable that is set comes from; the strongest source is looked at last."""
    found: dict[str, str] = {}
    if folder := secrets_folder():
        found |= {file.name.upper(): f"file in {folder}" for file in folder.iterdir()}
    found |= {name.upper(): ".env" for name in dotenv_values(".env")}
    found |= {name.upper(): "environment" for name in os.environ}
    return found


def _shown(value: object) -> str:
    if isinstance(value, Secret | SecretStr):
        return MASK
    return "" if value is None else str(value)


def _address(secret: SecretStr) -> str:
    """An address without what may be secret in it: user, password and query."""
    scheme, found, rest = secret.get_secret_value().partition("://")
    before, _, place = rest.rpartition("@")
    if not found:
        return MASK
    # An @ in the query, or a ? in the password: nobody can say which.
    return f"{scheme}://{MASK if '?' in before else place.partition('?')[0]}"


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".")
