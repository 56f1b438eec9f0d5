"""A writer on a real database, and one organization to meter; asks as the exchange does, and waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from sqlalchemy import insert, select, update

from ownkey import clock
from ownkey.access import Actor
from ownkey.credentials import token_hash
from ownkey.db import tables
from ownkey.db.engine import Database
from ownkey.errors import OwnkeyError
from ownkey.ids import new_id
from ownkey.metering.postgres_store import PostgresStore
from ownkey.metering.reservations import Admission, Admit, Caller
from ownkey.metering.settlement import Outcome, Settle
from ownkey.metering.sqlite_store import SqliteStore
from ownkey.metering.store import Store
from ownkey.metering.writer import Writer
from ownkey.plans import Plan

INPUT = 500


def open_store(db: Database) -> Store:
    """The writer's own connection to this database."""
    return SqliteStore(str(db.url.database), "OFF") if db.dialect == "sqlite" else PostgresStore(db.url)


@dataclass
class Desk:
    """One organization, its owner, a workspace and an API token, and the writer that meters them."""

    db: Database
    writer: Writer
    plans: dict[str, Plan]
    organization_id: str
    workspace_id: str
    user_id: str
    token: str

    @property
    def actor(self) -> Actor:
        """The operator, looking at this organization."""
        return Actor.operator(self.organization_id)

    def command(self, **changes: object) -> Admit:
        """A call of up to 500 input and 1,000 output tokens."""
        command = Admit(
            request_id=new_id("req"),
            caller=Caller(token_hash(self.token)),
            provider="openai",
            model="a-model",
            dialect="openai",
            has_platform_key=True,
            generates=True,
            own_key_only="",
            key_managers="an admin or the owner",
            input_ceiling=INPUT,
            input_estimate=100,
            output_limit=1_000,
            output_maximum=4_000,
            least_output=16,
            choices=1,
            can_limit=True,
        )
        return msgspec.structs.replace(command, **changes)

    async def ask(self, command: Admit | None = None) -> Admission | OwnkeyError:
        """Admit a call, or hear why not."""
        future: asyncio.Future[Admission | OwnkeyError] = asyncio.get_running_loop().create_future()
        self.writer.admit(command or self.command(), future.set_result)
        return await future

    async def admitted(self, command: Admit | None = None) -> Admission:
        """Admit a call that must be admitted."""
        outcome = await self.ask(command)
        assert isinstance(outcome, Admission), outcome
        return outcome

    def settlement(self, admission: Admission, output: int, outcome: Outcome = "finished") -> Settle:
        """What the exchange would settle for 100 input tokens and this many output tokens."""
        key = admission.key.id if admission.key else None
        return Settle(
            request_id=admission.request_id,
            organization_id=admission.organization_id,
            workspace_id=admission.workspace_id,
            period=admission.period,
            provider="openai",
            model="a-model",
            dialect="openai",
            billed_to=admission.billed_to,
            provider_key_id=key,
            api_token_id=admission.api_token_id,
            user_id=admission.user_id,
            input_tokens=100,
            cached_input_tokens=0,
            cache_write_tokens=0,
            output_tokens=output,
            reasoning_tokens=0,
            charged_tokens=0 if key else 100 + output,
            estimated=False,
            outcome=outcome,
            started_at=1_795_000_000_000,
            duration_ms=12,
        )

    async def settle(self, admission: Admission, output: int, outcome: Outcome = "finished") -> None:
        """Settle an admitted call and wait until it is durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writer.settle(self.settlement(admission, output, outcome), lambda: future.set_result(None))
        await future

    async def balance(self, period: str | None = None) -> tuple[int, int, int]:
        """Granted, used and reserved, as the row has them."""
        table = tables.allowances.c
        query = select(table.granted_tokens, table.used_tokens, table.reserved_tokens).where(
            table.organization_id == self.organization_id, table.period == (period or clock.period_of(clock.now()))
        )
        async with self.db.read() as tx:
            row = (await tx.execute(query)).one()
        return row[0], row[1], row[2]

    async def subscribe(self, plan: str) -> None:
        """Put the organization on another plan."""
        async with self.db.transaction() as tx:
            await tx.execute(
                update(tables.subscriptions)
                .where(tables.subscriptions.c.organization_id == self.organization_id)
                .values(plan=plan)
            )

    async def expire_leases(self) -> None:
        """Make every open reservation's node look dead."""
        async with self.db.transaction() as tx:
            await tx.execute(update(tables.reservations).values(lease_until=clock.period_start("2026-01")))

    async def add_key(self, provider: str = "openai") -> str:
        """Give the organization an own key (sealed with nothing: these tests never open it)."""
        key_id = new_id("key")
        async with self.db.transaction() as tx:
            await tx.execute(
                insert(tables.provider_keys).values(
                    id=key_id,
                    organization_id=self.organization_id,
                    provider=provider,
                    preview="sk-…",
                    fingerprint="00",
                    ciphertext=b"c",
                    wrapped_data_key=b"k",
                    kek_id="none",
                    created_at=clock.now(),
                )
            )
        return key_id


@asynccontextmanager
async def open_desk(db: Database, monthly_tokens: int = 10_000, **plan: object) -> AsyncIterator[Desk]:
    """A desk for an organization on a plan of this many tokens."""
    plans = {"tested": Plan(code="tested", name="Tested", monthly_tokens=monthly_tokens, api_access=True, **plan)}  # type: ignore[arg-type]
    ids = {name: new_id(name) for name in ("org", "wsp", "usr", "tok")}
    token = new_id("ownkey")
    now = clock.now()
    async with db.transaction() as tx:
        await tx.execute(insert(tables.users).values(id=ids["usr"], email=f"{ids['usr']}@acme.test", created_at=now))
        await tx.execute(
            insert(tables.organizations).values(
                id=ids["org"], name="Acme", slug=ids["org"].lower(), owner_id=ids["usr"], created_at=now
            )
        )
        await tx.execute(
            insert(tables.workspaces).values(
                id=ids["wsp"], organization_id=ids["org"], name="General", slug="general", created_at=now
            )
        )
        await tx.execute(insert(tables.subscriptions).values(organization_id=ids["org"], plan="tested", started_at=now))
        await tx.execute(
            insert(tables.api_tokens).values(
                id=ids["tok"],
                organization_id=ids["org"],
                workspace_id=ids["wsp"],
                name="a program",
                hint="ownkey_…",
                token_hash=token_hash(token),
                scopes="gateway",
                created_by=ids["usr"],
                created_at=now,
            )
        )
    writer = Writer(lambda: open_store(db), plans, "node_1")
    await writer.start()
    db.turn = writer.turn
    try:
        yield Desk(db, writer, plans, ids["org"], ids["wsp"], ids["usr"], token)
    finally:
        await writer.stop()
