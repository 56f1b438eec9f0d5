"""What may go wrong between a node and the database: at every statement, and before and after every commit."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from ownkey.metering.store import Contended, Foretold, Moment, Store, StoreFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS = ("lost", "unacknowledged", "contended", "refused", "killed", "killed_after_commit", "slow")


class Killed(BaseException):
    """kill -9 of the node that was at work. No ``except`` of ours may stop it."""


@dataclass(slots=True)
class Weather:
    """How often each kind of fault comes, as a chance at each point where it may."""

    lost: float = 0.0
    unacknowledged: float = 0.0
    contended: float = 0.0
    refused: float = 0.0
    killed: float = 0.0
    killed_after_commit: float = 0.0
    slow: float = 0.0

    @classmethod
    def drawn(cls, draw: random.Random) -> Weather:
        """A seed's weather: calm for a quarter of them, and never every kind at once, so that none hides another."""
        if draw.random() < 0.25:
            return cls()
        return cls(**{kind: draw.choice((0.002, 0.02)) for kind in KINDS if draw.random() < 0.4})


class FaultyStore:
    """A real store whose connection fails when the draw says so. ``may_refuse``: a statement may be refused."""

    def __init__(
        self,
        store: Store,
        world: World,
        *,
        is_away: Callable[[], bool],
        troubled: Callable[[], None],
        tell: Callable[[], None],
        committed: Callable[[], None],
        kill: Callable[[], None],
    ) -> None:
        self._store = store
        self._world = world
        self.is_local = store.is_local
        self._is_away = is_away
        self._troubled = troubled
        self._tell = tell
        self._committed = committed
        self._kill = kill
        self.is_local = store.is_local
        self._lost = False
        self._dead = False
        self.may_refuse = False

    def begin(self, foretell: Callable[[], Foretold], reads_only: bool) -> Moment:
        """Open the transaction at the virtual time."""
        if self._is_away():
            self._lose()
            raise StoreFailed("away")
        self._reach()
        self._tell()
        return self._store.begin(foretell, reads_only)

    def commit(self) -> None:
        """Make it durable, and perhaps not live to tell."""
        self._reach()
        self._store.commit()
        self._committed()
        if self._happens(self._world.weather.killed_after_commit):
            self._die()
        if self._happens(self._world.weather.unacknowledged):
            self._lose()
            raise StoreFailed("the connection was lost after the commit")

    def rollback(self) -> None:
        """What the server does by itself when the connection is lost."""
        if not self._lost:
            self._store.rollback()

    def close(self) -> None:
        """Give the connection back."""
        if not self._dead:
            self._store.close()
            self._dead = True

    def __getattr__(self, name: str) -> Any:
        """Every statement of a batch."""
        statement = getattr(self._store, name)

        def reached(*arguments: Any) -> Any:
            self._reach()
            return statement(*arguments)

        setattr(self, name, reached)
        return reached

    def _reach(self) -> None:
        """A point where anything may happen."""
        weather = self._world.weather
        if self._happens(weather.killed):
            self._die()
        if self._happens(weather.lost):
            self._lose()
            raise StoreFailed("the connection was lost")
        if self._happens(weather.contended):
            raise Contended("deadlock")
        if self.may_refuse and self._happens(weather.refused):
            self.may_refuse = False
            kind = sqlite3.IntegrityError if self.is_local else psycopg.IntegrityError
            raise kind("refused")

    def _happens(self, chance: float) -> bool:
        if chance and self._world.draw.random() < chance:
            self._troubled()
            return True
        return False

    def _lose(self) -> None:
        self._lost = True
        self.close()

    def _die(self) -> None:
        self._lose()
        self._kill()
        raise Killed
