"""The books of an installation, held against what its clients saw and its provider counted."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import select, text

from ownkey.access import Actor
from ownkey.accounts import subscriptions
from ownkey.credentials import Secret
from ownkey.db import schema
from ownkey.db.engine import Database
from ownkey.db.tables import ledger_entries
from ownkey.metering import allowances, usage_events
from ownkey.metering.allowances import Allowance
from ownkey.metering.reservations import LEASE_SECONDS
from ownkey.metering.usage_events import UsageEvent
from ownkey.plans import read_catalogue
from ownkey.providers.health import Health
from ownkey.providers.registry import find
from ownkey.vault import provider_keys
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing
from tests import build
from tests.fakes.provider import FakeProvider
from tests.fakes.record import Received
from tests.gateway.installation import Installation
from tests.gateway.traffic import Made, number_of

T = TypeVar("T")
# A round of the reaper, and how often a live call notes how far it is (twice: of a young one it does so later).
REAPER_SECONDS, NOTED_SECONDS = 5, 2.0
_MOST_BEYOND = 256
PLATFORM_KEY = "sk-platform-0123456789-abcdefghijklmnop"


class Books:
    """One organization on the installation's first plan, and what is written of it."""

    def __init__(self, here: Installation, tokens: int, **other_plans: int) -> None:
        """Furnish the installation: ``tokens`` a month, a platform key, an organization with an API token."""
        plans = here.folder / "books.toml"
        plans.write_text(
            "".join(
                f'[plans.{code}]\nname = "{code}"\nmonthly_tokens = {number}\napi_access = true\n'
                for code, number in {"free": tokens, **other_plans}.items()
            )
        )
        here.environment |= {"OWNKEY_PLANS_FILE": str(plans), "OWNKEY_PLATFORM_KEY_OPENAI": PLATFORM_KEY}
        here.environment |= {"OWNKEY_LOG_LEVEL": "WARNING", "OWNKEY_VAULT_KEYS": new_kek()}
        self.here, self.catalogue = here, read_catalogue(plans)
        if here.database.get_backend_name() == "sqlite":
            (here.folder / "data").mkdir(exist_ok=True)
            schema.upgrade(here.database)

        async def furnish(db: Database) -> tuple[Actor, str, str]:
            created = await build.organization(db, plan="free", catalogue=self.catalogue)
            actor = Actor.operator(created.organization.id, created.workspace.id)
            return actor, created.organization.slug, await build.api_token(db, created)

        self.actor, self.slug, self.token = self.do(furnish)

    def do(self, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
        """Do something with the database, in a loop of its own."""

        async def with_database() -> T:
            db = Database(self.here.database)
            try:
                return await work(db)
            finally:
                await db.close()

        return asyncio.run(with_database())

    def subscribe(self, plan: str) -> None:
        """Put the organization on another plan."""
        self.do(lambda db: subscriptions.change(db, self.actor, self.catalogue, plan))

    def connect(self, key: str) -> None:
        """Give the organization an own key for the provider, or replace it."""
        ring = KeyRing([Kek.parse(self.here.environment["OWNKEY_VAULT_KEYS"])])
        row, secret = find("openai"), Secret(key)
        self.do(lambda db: provider_keys.save(db, ring, self.actor, row, secret, Health.ACTIVE))

    def disconnect(self) -> None:
        """Remove the own key."""
        self.do(lambda db: provider_keys.remove(db, self.actor, "openai"))

    def allowance(self, plan: str = "free") -> Allowance:
        """The allowance of this month."""
        return self.do(lambda db: allowances.current(db, self.actor, self.catalogue[plan]))

    def events(self) -> Sequence[UsageEvent]:
        """All usage events."""
        return self.do(lambda db: usage_events.events(db, self.actor, limit=10_000_000))

    def adjustments(self) -> Mapping[str, int]:
        """What late settlements have corrected, by request: tokens given back; taken ones are negative."""

        async def read(db: Database) -> Sequence[tuple[str, int]]:
            entry = ledger_entries.c
            query = select(entry.request_id, entry.tokens).where(entry.kind == "adjustment")
            async with db.read() as tx:
                return [(row[0], row[1]) for row in await tx.execute(query)]

        rows = self.do(read)
        found = dict(rows)
        assert len(found) == len(rows), "a call was corrected twice"
        return found

    def let_leases_end(self) -> None:
        """Put all leases back by their length, as if that time had passed: for when no call is under way."""

        async def put_back(db: Database) -> None:
            async with db.transaction() as tx:
                await tx.execute(text(f"UPDATE reservations SET lease_until = lease_until - {LEASE_SECONDS * 1000}"))

        self.do(put_back)

    def wait_until_nothing_is_held(self, seconds: float = LEASE_SECONDS + 2 * REAPER_SECONDS) -> None:
        """Wait for the reaper; a failure if something stays held."""
        deadline = time.monotonic() + seconds
        while held := self.allowance().reserved:
            assert time.monotonic() < deadline, f"{held} tokens are still held after {seconds} s"
            time.sleep(0.2)

    def balance(self) -> None:
        """Nothing is held, what is used is the sum of what was charged, and the operator's check agrees."""
        allowance, charged = self.allowance(), sum(event.charged_tokens for event in self.events())
        assert (allowance.used, allowance.reserved) == (charged - sum(self.adjustments().values()), 0)
        self.here.verify_ledger()


@dataclass
class Verdict:
    """How many calls came to what, and their tokens."""

    whole: int = 0
    whole_tokens: int = 0
    refused: int = 0
    left: int = 0
    interrupted: int = 0
    interrupted_tokens: int = 0
    unsent: int = 0
    most_behind: int = 0
    """Delivered tokens that a killed node had not noted yet, of the stream where they were most."""

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in vars(self).items())


def judge(calls: Sequence[Made], provider: FakeProvider, events: Sequence[UsageEvent]) -> Verdict:
    """Hold every call, its event and the provider's record of it together; a failure where they disagree.

    What the client got whole is charged once and exactly, or nothing if it ran on an own key. What was interrupted is
    charged at least what was delivered (of a killed node: what was delivered until it last noted it), at most what the
    provider gave and a little, never more than was held, never nothing if the provider worked on it. And there is no
    event besides.
    """
    received: dict[int, Received] = {}
    for one in provider.requests:
        number = number_of(one.json["messages"][0]["content"]) if one.json else 0
        assert number not in received, f"call {number} was sent twice"
        received[number] = one
    received.pop(0, None)  # the connection broke before all of it was there
    verdict, events_of = Verdict(), _by_call(calls, events)
    for call in calls:
        try:
            _judge(call, received.get(call.number), events_of.get(call.number), verdict)
        except AssertionError as error:
            raise AssertionError(f"{call}\n{received.get(call.number)}\n{events_of.get(call.number)}") from error
    return verdict


def _by_call(calls: Sequence[Made], events: Sequence[UsageEvent]) -> Mapping[int, UsageEvent]:
    """The event of each call: by its request id; where no head of a reply came, by its client and its time."""
    assert len({event.request_id for event in events}) == len(events)
    known = {call.request_id: call.number for call in calls if call.request_id}
    found = {known[event.request_id]: event for event in events if event.request_id in known}
    headless = defaultdict[str, list[Made]](list)
    for call in sorted(calls, key=lambda call: call.began):
        headless[call.model].append(call)
    for event in events:
        if event.request_id not in known:
            at = event.started_at.timestamp() + 0.001  # whole milliseconds, rounded down
            call = [call for call in headless[event.model] if call.began <= at][-1]
            assert not call.request_id, f"an event that belongs to no call: {event}"
            assert call.number not in found, f"two events of one call: {event}"
            found[call.number] = event
    return found


def _judge(call: Made, received: Received | None, event: UsageEvent | None, verdict: Verdict) -> None:
    asked_provider = received is not None and received.accepted
    exact = received.tokens_in + received.tokens_out if received and received.key == PLATFORM_KEY else 0
    if call.whole and call.status == 200:
        assert event is not None
        assert received is not None
        assert (event.outcome, event.estimated, event.charged_tokens) == ("finished", False, exact)
        assert (event.billed_to == "allowance") == (received.key == PLATFORM_KEY)
        verdict.whole, verdict.whole_tokens = verdict.whole + 1, verdict.whole_tokens + exact
    elif call.status >= 400:
        assert (event, received) == (None, None)
        verdict.refused += 1
    elif event is None:
        assert not asked_provider
        verdict.unsent += 1
    else:
        _judge_interrupted(call, received, event, verdict)


def _judge_interrupted(call: Made, received: Received | None, event: UsageEvent, verdict: Verdict) -> None:
    given = received.tokens_out if received else 0
    if event.outcome == "finished":  # all was settled, and only its end did not arrive
        assert received is not None
        assert event.charged_tokens == received.tokens_in + given
    else:
        assert event.outcome in ("abandoned", "cancelled", "failed")
        assert event.estimated
        assert event.charged_tokens <= given + _MOST_BEYOND + call.size
    assert 0 < event.charged_tokens <= call.ceiling
    noted = call.ended - NOTED_SECONDS - 1 if event.outcome == "abandoned" else None
    assert event.output_tokens >= call.delivered(noted)
    verdict.left += call.left
    verdict.interrupted += not call.left
    verdict.interrupted_tokens += event.charged_tokens
    verdict.most_behind = max(verdict.most_behind, call.delivered() - event.output_tokens)
