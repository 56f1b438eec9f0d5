"""Node: what one running process holds."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from ownkey.db.engine import Database
from ownkey.mail import Mailer
from ownkey.plans import Catalogue
from ownkey.providers.addresses import Lookup, look_up
from ownkey.providers.directory import Directory
from ownkey.settings import Settings
from ownkey.vault.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a surface needs, constructed once in ``app.py``.

    ``lookup`` resolves the host names of addresses that organizations gave. Raises ``InvalidRequest`` for a setting
    about providers that cannot be used.
    """

    settings: Settings
    db: Database
    keyring: KeyRing
    catalogue: Catalogue
    mailer: Mailer
    lookup: InitVar[Lookup] = look_up
    providers: Directory = field(init=False)

    def __post_init__(self, lookup: Lookup) -> None:
        object.__setattr__(self, "providers", Directory(self.settings, lookup))
