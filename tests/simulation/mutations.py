"""Faults put into the product on purpose: each breaks one promise, and the simulator must notice."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ownkey.gateway.dialects.anthropic import AnthropicDialect
from ownkey.gateway.dialects.reported import Reported
from ownkey.metering import batch
from ownkey.metering.batch import Batch, Command
from ownkey.metering.capped import Capped
from ownkey.metering.copies import Copies
from ownkey.metering.reservations import Admit, Hold
from ownkey.metering.settlement import Renew, Settle
from ownkey.metering.sqlite_store import SqliteStore
from ownkey.metering.store import EVENT_COLUMNS, Moment, StoreFailed
from ownkey.metering.writer import Done, OnAdmit, Writer

Mutation = Callable[[pytest.MonkeyPatch, Path], None]


def _alter(file: Path, table: str, pattern: str) -> None:
    """Make a table of an empty database anew, without the one constraint that fits."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        ((created,),) = db.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
        rest = db.execute(
            "SELECT sql FROM sqlite_master WHERE type != 'table' AND tbl_name = ? AND sql != ''", (table,)
        )
        others = [row[0] for row in rest]
        altered, times = re.subn(r",\s*(CONSTRAINT \w+ )?" + pattern, "", created)
        assert times == 1, f"{table} has {times} constraints like {pattern}"
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(f"DROP TABLE {table}")
        for statement in (altered, *others):
            db.execute(statement)


def guard_removed(patch: pytest.MonkeyPatch, file: Path) -> None:
    """A call is admitted whether there is room for it or not, and the table does not mind."""

    def always(command: Admit, remaining: int, weights: object = None) -> Hold:
        wanted = command.output_maximum if command.output_limit is None else command.output_limit
        return Hold(command.input_ceiling + wanted * command.choices, None)

    patch.setattr(batch, "hold_for", always)
    _alter(file, "allowances", r"CHECK \(used_tokens \+ reserved_tokens <= [^)]*\)")


def unique_index_dropped(patch: pytest.MonkeyPatch, file: Path) -> None:
    """A usage event can be written twice."""
    _alter(file, "usage_events", r"UNIQUE \(request_id\)")

    def add(self: SqliteStore, rows: Sequence[Settle]) -> None:
        self._insert(f"usage_events ({EVENT_COLUMNS})", rows)

    patch.setattr(SqliteStore, "add_events_once", add)


def summed_instead_of_last(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Cumulative usage is added up."""

    def merged(self: AnthropicDialect, earlier: Reported | None, later: Reported | None) -> Reported | None:
        if earlier is None or later is None:
            return later or earlier
        both = earlier.updated_by(later)
        total = (earlier.output_tokens or 0) + (later.output_tokens or 0)
        return Reported(both.input_tokens, total, final=both.final, provisional=both.provisional)

    patch.setattr(AnthropicDialect, "merged", merged)


def lease_not_renewed(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Live calls are not noted."""

    def nothing(self: Writer, commands: Sequence[Renew]) -> None: ...

    patch.setattr(Writer, "renew", nothing)


def charged_at_settlements_month(patch: pytest.MonkeyPatch, file: Path) -> None:
    """A call is charged to the month in which it ends."""
    original = Batch._charge

    def charge(self: Batch, period: str, held: int, event: Settle) -> None:
        self._lock([(event.organization_id, self.moment.period)])
        self.balances[event.organization_id, period].settle(held, 0)
        original(self, self.moment.period, 0, event._replace(period=self.moment.period))

    patch.setattr(Batch, "_charge", charge)


def copies_kept(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Who may call and with which key is read once and believed for ever."""

    def keep(self: Copies, moment: Moment) -> None:
        self.version, self.period = moment.version, moment.period

    patch.setattr(Copies, "good_for", keep)


def others_not_noticed(patch: pytest.MonkeyPatch, file: Path) -> None:
    """What a store has read or written is believed whatever other nodes have committed since."""
    original = SqliteStore._value

    def value(self: SqliteStore, query: str) -> int:
        return 1 if query == "PRAGMA data_version" else original(self, query)

    patch.setattr(SqliteStore, "_value", value)


def caps_not_shared(patch: pytest.MonkeyPatch, file: Path) -> None:
    """What others hold under a cap is not counted."""
    patch.setattr(SqliteStore, "held_by", lambda self, organization_id, period: [])


def cap_counts_no_batch(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Calls of one batch do not see each other under a cap."""
    patch.setattr(Capped, "reserved", lambda self, organization_id, caps, tokens: None)


def settlement_forgotten(patch: pytest.MonkeyPatch, file: Path) -> None:
    """A settlement that failed is not asked again."""

    def forget(self: Writer, command: object, answer: Callable[[], None], outcome: object) -> None:
        answer()

    patch.setattr(Writer, "_settled", forget)


def reply_before_settlement(patch: pytest.MonkeyPatch, file: Path) -> None:
    """The last bytes of a reply leave before what it used is durable."""
    original = Writer.settle

    def settle(self: Writer, command: Settle, answer: Callable[[], None]) -> None:
        answer()
        original(self, command, lambda: None)

    patch.setattr(Writer, "settle", settle)


def answer_forgotten(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Who asked while the database went away is never told."""
    original = Writer._admitted

    def admitted(self: Writer, command: Command, answer: OnAdmit, outcome: Done) -> None:
        if not isinstance(outcome, StoreFailed):
            original(self, command, answer, outcome)

    patch.setattr(Writer, "_admitted", admitted)


def late_settlement_charged_again(patch: pytest.MonkeyPatch, file: Path) -> None:
    """A call that was taken for dead and ends after all is charged in full on top."""
    original = Batch._adjust

    def adjust(self: Batch, late: Sequence[tuple[Any, int]]) -> None:
        original(self, [(row, charged + row.charged_tokens) for row, charged in late])

    patch.setattr(Batch, "_adjust", adjust)


SEEDED: Mapping[str, Mutation] = {
    "guard removed": guard_removed,
    "unique index dropped": unique_index_dropped,
    "sum instead of last": summed_instead_of_last,
    "lease not renewed": lease_not_renewed,
    "charged at the settlement's month": charged_at_settlements_month,
}
MORE: Mapping[str, Mutation] = {
    "copies kept": copies_kept,
    "others not noticed": others_not_noticed,
    "caps not shared": caps_not_shared,
    "a cap counts no batch": cap_counts_no_batch,
    "settlement forgotten": settlement_forgotten,
    "reply before settlement": reply_before_settlement,
    "answer forgotten": answer_forgotten,
    "late settlement charged again": late_settlement_charged_again,
}
__all__ = ["MORE", "SEEDED", "Mutation"]
