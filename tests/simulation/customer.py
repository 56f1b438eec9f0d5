"""A customer of a world: an organization, who may call for it, its plan and keys, with their history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, delete, insert, update

from ownkey.credentials import Secret, token_hash
from ownkey.db import tables
from ownkey.db.usage_tables import caps
from ownkey.metering.reservations import Caller
from ownkey.vault import envelope
from ownkey.vault.keyring import KeyRing
from ownkey.vault.provider_keys import SealedKey
from tests.simulation.clock import Clock
from tests.simulation.node import PLATFORM_KEYS

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Customer:
    """The truth about one organization. What changes it writes to the database and notes here in the same moment."""

    def __init__(self, number: int, engine: Engine, clock: Clock, keyring: KeyRing, plans: Mapping[str, int]) -> None:
        self.id = f"org_{number}"
        self.workspace_id = f"wsp_{number}"
        self.owner_id = f"usr_{number}"
        self.plan = next(iter(plans))
        self.token_active = True
        # The most that its people may use in a month, of the allowance and on own keys; None: as much as there is.
        self.allowance_cap: int | None = None
        self.own_key_cap: int | None = None
        self._token = f"ownkey_token_of_{number}"
        self._member = f"usr_member_{number}"
        self._has_member = False
        self._engine = engine
        self._clock = clock
        self._keyring = keyring
        self._plans = plans
        self._made = 0
        # For each provider: since when, the id of the key (None: the platform's) and its text.
        self._keys: dict[str, list[tuple[float, str | None, str]]] = {
            slug: [(float("-inf"), None, text)] for slug, text in PLATFORM_KEYS.items()
        }
        with engine.begin() as tx:
            self._create(tx)

    # What is true

    @property
    def tokens(self) -> int:
        """What its plan grants a month."""
        return self._plans[self.plan]

    def caller(self, *, by_token: bool) -> Caller:
        """A program with the API token, or the owner."""
        if by_token:
            return Caller(token_hash(self._token))
        return Caller(user_id=self.owner_id, workspace_id=self.workspace_id)

    def may_call(self, *, by_token: bool) -> bool:
        """Whether this caller may call now."""
        return self.token_active or not by_token

    def key_id(self, slug: str) -> str | None:
        """The id of its own key for a provider."""
        return self._keys[slug][-1][1]

    def carried(self, slug: str, text: str, since: float, until: float) -> bool:
        """Whether this key was the one to use at some moment in between."""
        history = self._keys[slug]
        ends = [begun for begun, _, _ in history[1:]] + [float("inf")]
        return any(
            key == text and begun <= until and end >= since for (begun, _, key), end in zip(history, ends, strict=True)
        )

    @staticmethod
    def is_platform(slug: str, text: str) -> bool:
        """Whether this is the operator's key."""
        return PLATFORM_KEYS[slug] == text

    # What changes

    def change_plan(self, plan: str) -> Callable[[], None]:
        """Another plan."""

        def apply() -> None:
            with self._engine.begin() as tx:
                mine = tables.subscriptions.c.organization_id == self.id
                tx.execute(update(tables.subscriptions).where(mine).values(plan=plan))
            self.plan = plan

        return apply

    def set_key(self, slug: str) -> Callable[[], None]:
        """Connect an own key, or replace the one there is."""

        def apply() -> None:
            self._made += 1
            text = f"own-key-{self.id}-{slug}-{self._made}"
            key = SealedKey(f"key_{self.id}_{self._made}", self.id, slug, "", b"", b"", "")
            sealed = envelope.seal(self._keyring, Secret(text), key.bound_to)
            with self._engine.begin() as tx:
                self._delete_key(tx, slug)
                tx.execute(
                    insert(tables.provider_keys).values(
                        id=key.id,
                        organization_id=self.id,
                        provider=slug,
                        preview="own…",
                        fingerprint="00",
                        ciphertext=sealed.ciphertext,
                        wrapped_data_key=sealed.wrapped_data_key,
                        kek_id=sealed.kek_id,
                        created_at=_BEGAN,
                    )
                )
            self._keys[slug].append((self._clock.now, key.id, text))

        return apply

    def remove_key(self, slug: str) -> Callable[[], None]:
        """Back to the allowance."""

        def apply() -> None:
            with self._engine.begin() as tx:
                self._delete_key(tx, slug)
            self._keys[slug].append((self._clock.now, None, PLATFORM_KEYS[slug]))

        return apply

    def change_cap(self, scope: str, allowance: int | None, own_key: int | None) -> Callable[[], None]:
        """Cap the owner, who makes all calls, or the workspace, in which all are made; two times None: neither."""

        def apply() -> None:
            with self._engine.begin() as tx:
                tx.execute(delete(caps).where(caps.c.organization_id == self.id))
                if allowance is not None or own_key is not None:
                    subject = self.owner_id if scope == "member" else self.workspace_id
                    of = {"organization_id": self.id, "scope": scope, "subject_id": subject}
                    most = {"allowance_tokens": allowance, "own_key_tokens": own_key}
                    tx.execute(insert(caps).values(**of, **most, created_at=_BEGAN, updated_at=_BEGAN))
            self.allowance_cap, self.own_key_cap = allowance, own_key

        return apply

    def toggle_token(self) -> Callable[[], None]:
        """Revoke the API token, or take that back."""

        def apply() -> None:
            revoked = _BEGAN if self.token_active else None
            with self._engine.begin() as tx:
                mine = tables.api_tokens.c.organization_id == self.id
                tx.execute(update(tables.api_tokens).where(mine).values(revoked_at=revoked))
            self.token_active = not self.token_active

        return apply

    def toggle_member(self) -> Callable[[], None]:
        """Add a member and rename the organization, or take both back: nothing that metering may notice."""

        def apply() -> None:
            membership = tables.memberships
            with self._engine.begin() as tx:
                if self._has_member:
                    tx.execute(delete(membership).where(membership.c.user_id == self._member))
                else:
                    values = {"organization_id": self.id, "workspace_id": self.workspace_id, "user_id": self._member}
                    tx.execute(insert(membership).values(**values, role="user", created_at=_BEGAN))
                name = f"Renamed {self._has_member}"
                tx.execute(update(tables.organizations).where(tables.organizations.c.id == self.id).values(name=name))
            self._has_member = not self._has_member

        return apply

    def _delete_key(self, tx: Connection, slug: str) -> None:
        keys = tables.provider_keys.c
        tx.execute(delete(tables.provider_keys).where(keys.organization_id == self.id, keys.provider == slug))

    def _create(self, tx: Connection) -> None:
        for person in (self.owner_id, self._member):
            tx.execute(insert(tables.users).values(id=person, email=f"{person}@acme.test", created_at=_BEGAN))
        organization = {"id": self.id, "name": "Acme", "slug": self.id, "owner_id": self.owner_id}
        tx.execute(insert(tables.organizations).values(**organization, created_at=_BEGAN))
        workspace = {"id": self.workspace_id, "organization_id": self.id, "name": "General", "slug": "general"}
        tx.execute(insert(tables.workspaces).values(**workspace, created_at=_BEGAN))
        tx.execute(insert(tables.subscriptions).values(organization_id=self.id, plan=self.plan, started_at=_BEGAN))
        tx.execute(
            insert(tables.api_tokens).values(
                id=f"tok_{self.id}",
                organization_id=self.id,
                workspace_id=self.workspace_id,
                name="a program",
                hint="ownkey_…",
                token_hash=token_hash(self._token),
                scopes="gateway",
                created_by=self.owner_id,
                created_at=_BEGAN,
            )
        )
