"""Node: what one running process holds."""

from __future__ import annotations

from dataclasses import dataclass

from ownkey.db.engine import Database
from ownkey.mail import Mailer
from ownkey.plans import Catalogue
from ownkey.settings import Settings
from ownkey.vault.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a surface needs, constructed once in ``app.py``."""

    settings: Settings
    db: Database
    keyring: KeyRing
    catalogue: Catalogue
    mailer: Mailer
