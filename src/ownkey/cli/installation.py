"""What a command acts on: the installation that the settings name, opened the way ``serve`` opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ownkey import logs
from ownkey.access import Actor
from ownkey.accounts import organizations, workspaces
from ownkey.accounts.organizations import Organization
from ownkey.cli.configuration import configured
from ownkey.cli.output import warn
from ownkey.db import schema
from ownkey.db.engine import Database, database_url
from ownkey.errors import InvalidRequest, Unavailable
from ownkey.plans import Catalogue, read_catalogue
from ownkey.providers.directory import Directory
from ownkey.settings import Settings

if TYPE_CHECKING:
    from ownkey.vault.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Installation:
    """Settings, database and plans; the key ring for the few commands that seal or open."""

    settings: Settings
    db: Database
    catalogue: Catalogue
    providers: Directory

    async def keyring(self) -> KeyRing:
        """The key encryption keys; on the first use of an embedded database makes them, and says where."""
        # The cipher library takes half a second to load, and few commands need it.
        from ownkey.vault import provider_keys
        from ownkey.vault.keyring import KeyRing

        sealed = await provider_keys.sealed_kek_ids(self.db)
        keyring = KeyRing.load(self.settings, sealed_kek_ids=sealed, embedded=self.db.dialect == "sqlite")
        if keyring.announcement:
            warn(keyring.announcement)
        return keyring

    async def organization(self, reference: str, workspace: str | None = None) -> tuple[Organization, Actor]:
        """The organization with this id or slug, and the operator acting in its (first) workspace.

        Raises ``NotFound`` if there is no such organization or workspace.
        """
        found = await organizations.by_reference(self.db, reference)
        if workspace:
            place = await workspaces.by_reference(self.db, found.id, workspace)
        else:
            place = (await workspaces.list_for(self.db, Actor.operator(found.id)))[0]
        return found, Actor.operator(found.id, place.id)

    def sign_in_url(self, token: str) -> str:
        """The one-time link that a token stands for."""
        return f"{self.settings.public_url}/sign-in/{token}"


@asynccontextmanager
async def installation() -> AsyncIterator[Installation]:
    """Open the database, creating or updating an embedded one, and close it at the end."""
    settings = configured()
    # A refusal is one sentence; a library's log lines around it would hide it.
    logs.set_up("DEBUG" if settings.log_level == "DEBUG" else "ERROR")
    providers = Directory(settings)
    db = open_database(settings)
    try:
        yield Installation(settings, db, read_catalogue(settings.plans_file), providers)
    finally:
        await db.close()


def database_of(settings: Settings) -> Database:
    """The database that the settings name, not yet opened. Raises ``InvalidRequest`` for an address we cannot use."""
    secret = settings.database_url
    try:
        url = database_url(settings.data_dir, secret.get_secret_value() if secret else None)
    except ValueError as error:
        raise InvalidRequest(f"{error}.") from error
    return Database(url, settings.sqlite_synchronous)


def open_database(settings: Settings) -> Database:
    """The database, up to date.

    Raises ``Unavailable`` for a PostgreSQL whose schema is not: with several nodes on it, when to change it is the
    operator's decision. An embedded database is created and updated without asking.
    """
    db = database_of(settings)
    if db.dialect == "sqlite":
        schema.upgrade(db.url)
    elif not schema.is_current(db.url):
        raise Unavailable("The database is not up to date. Run `ownkey migrate` first.")
    return db
