"""Every setting: one frozen class, read once from ``OWNKEY_*``, ``.env`` or files in a secrets directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest

_PREFIX = "OWNKEY_"
_PER_PROVIDER = re.compile(r"OWNKEY_(PLATFORM_KEY|BASE_URL)_([A-Z0-9_]+)")
_USUAL_PORT = {"https": ":443", "http": ":80"}
SECRETS_DIR_VARIABLE = "OWNKEY_SECRETS_DIR"


class Settings(BaseSettings):
    """What the operator decides. Each field is ``OWNKEY_`` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    data_dir: Path = Field(Path("./data"), description="Folder of the embedded database and the vault key file.")
    database_url: SecretStr | None = Field(
        None, description="`postgresql://…` for many nodes; unset: SQLite in the data directory."
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        description="The address people use, without a path; links in mail are built from it only.",
    )
    vault_keys: SecretStr | None = Field(
        None,
        description="Key encryption keys, newest first, separated by commas; a key service may have wrapped them.",
    )
    vault_keys_file: Path | None = Field(None, description="A file with key encryption keys, newest first, one a line.")
    plans_file: Path | None = Field(None, description="TOML that replaces the plan catalogue.")
    app_name: str = Field("Ownkey", description="The name people see.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line written; structured lines on standard error."
    )
    smtp_url: SecretStr | None = Field(
        None, description="`smtp://user:password@host:587` or `smtps://…`; unset: links are shown, not mailed."
    )
    metrics_address: str = Field(
        "127.0.0.1:9464", description="Where `/metrics` listens, apart from the pages; empty: nowhere."
    )
    max_request_bytes: Annotated[int, Field(gt=0)] = Field(
        32 * 1024 * 1024, description="Largest request body the gateway accepts, in bytes."
    )
    connect_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10, description="Seconds to reach a provider."
    )
    first_byte_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        120, description="Seconds a provider may take to its first byte."
    )
    idle_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        60, description="Seconds a provider may be silent between two bytes of a reply."
    )
    drain_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30, description="Seconds running replies may take to finish after SIGTERM."
    )
    sqlite_synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL", description="`NORMAL` is faster and survives a killed process but not a power cut."
    )
    providers_file: Path | None = Field(
        None, description="TOML with providers of your own, each an OpenAI-compatible address; see below."
    )
    allowed_hosts: str = Field(
        "",
        description="Hosts that organizations may name beside their keys, beyond the provider's own domains: names, "
        "`*.domain`, blocks such as `10.0.0.0/8`, or `*` for every public host; separated by commas.",
    )
    google_token_url: str = Field(
        "https://oauth2.googleapis.com/token",
        description="Where access tokens for service account keys come from; another one only for a proxy of yours.",
    )
    keys_managed_by: Literal["admin", "owner"] = Field(
        "admin", description="Who may connect provider keys: admins of the workspace and the owner, or the owner only."
    )

    platform_keys: Mapping[str, Secret] = Field(
        {}, description="The operator's own keys: `OWNKEY_PLATFORM_KEY_<PROVIDER>`, one variable each."
    )
    base_urls: Mapping[str, str] = Field(
        {},
        description="What replaces a provider's `https://host`, or adds a provider: `OWNKEY_BASE_URL_<PROVIDER>`, one "
        "variable each.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_where_pages_are(cls, value: str) -> str:
        if not value.isascii():
            raise ValueError("write its host as browsers send it, in ASCII (xn--…)")
        if re.match(r"[^/]*//[^/]*/.", value):
            raise ValueError("leave out its path: the pages are at the root of their host")
        return value

    @field_validator("public_url", "google_token_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        found = re.fullmatch(r"(https?)://([^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^\s?#]*)?", value)
        if found is None or int((found[3] or ":1")[1:]) not in range(1, 65536):
            raise ValueError("write it as https://host or http://host:port")
        scheme, host, port, path = found.groups("")
        # As browsers say where a form comes from: in lower case, and without the port that goes without saying.
        port = "" if port == _USUAL_PORT[scheme] else port
        return f"{scheme}://{host.lower()}{port}{path}".rstrip("/")

    @field_validator("metrics_address")
    @classmethod
    def _is_a_place_to_listen(cls, value: str) -> str:
        if value and not (re.fullmatch(r"\S*:[0-9]{1,5}", value) and int(value.rpartition(":")[2]) < 65536):
            raise ValueError("write it as host:port, or leave it empty")
        return value

    @property
    def secure(self) -> bool:
        """Whether people reach us over TLS; decides the cookie's flags."""
        return self.public_url.startswith("https://")

    @property
    def key_managers(self) -> str:
        """Who may connect provider keys, as it stands in a sentence for those who may not."""
        return "the owner" if self.keys_managed_by == "owner" else "an admin or the owner"

    def platform_key(self, provider: str) -> Secret | None:
        """The operator's own key for a provider (its slug), or None."""
        return self.platform_keys.get(provider)

    def base_url(self, provider: str) -> str | None:
        """What replaces a provider's ``https://host``, or None."""
        return self.base_urls.get(provider)


def secrets_folder() -> Path | None:
    """The folder of ``OWNKEY_SECRETS_DIR``, if it is set. Raises ``InvalidRequest`` if there is no such folder.

    Without what it holds, another installation than the operator's would start.
    """
    name = os.environ.get(SECRETS_DIR_VARIABLE)
    if not name:
        return None
    if not Path(name).is_dir():
        raise InvalidRequest(f"{SECRETS_DIR_VARIABLE}: there is no folder {name}.")
    return Path(name)


def _per_provider(kind: str) -> Mapping[str, str]:
    """Slug to value of ``OWNKEY_<kind>_<PROVIDER>``: the secrets directory, then ``.env``, then the environment."""
    found: dict[str, str] = {}
    folder = secrets_folder()
    files = {file.name.upper(): file for file in folder.iterdir() if file.is_file()} if folder else {}
    sources: Sequence[Mapping[str, str | None]] = (
        # Whatever else may lie there is not ours to read.
        {name: file.read_text(encoding="utf-8") for name, file in files.items() if _PER_PROVIDER.fullmatch(name)},
        dotenv_values(".env"),
        os.environ,
    )
    for source in sources:
        for name, value in source.items():
            match = _PER_PROVIDER.fullmatch(name)
            if match and match[1] == kind and value and value.strip():
                found[match[2].lower().replace("_", "-")] = value.strip()
    return found


def read_settings(**overrides: object) -> Settings:
    """Read the settings once; overrides win.

    Raises pydantic's ``ValidationError`` naming what is wrong, or ``InvalidRequest`` for the secrets directory.
    """
    values: dict[str, object] = {
        "platform_keys": {slug: Secret(text) for slug, text in _per_provider("PLATFORM_KEY").items()},
        "base_urls": {slug: url.rstrip("/") for slug, url in _per_provider("BASE_URL").items()},
    }
    return Settings(_secrets_dir=secrets_folder(), **{**values, **overrides})  # type: ignore[arg-type,call-arg]
