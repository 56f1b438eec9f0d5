"""What a call costs as organizations grow: 10, 1,000 and 100,000 of them, all of them calling."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, func, insert, select

from ownkey import clock, credentials
from ownkey.db import schema
from ownkey.db.tables import allowances, api_tokens, organizations, subscriptions, users, workspaces
from ownkey.ids import new_id
from scripts.bench.contest import Entrant, Round, answered, compete, middle_cpu, rate, ratios
from scripts.bench.installation import Installation, install
from scripts.bench.load import load
from scripts.bench.nginx import REQUEST
from scripts.bench.plan import Plan
from scripts.bench.report import Report
from scripts.bench.throughput import Track, track

_CONNECTIONS = 64
_AT_ONCE = 5000


@dataclass
class Sized:
    """An installation with so many organizations, being served; counts its calls."""

    size: int
    here: Installation
    entrant: Entrant
    answered: int = 0
    broken_off: int = 0

    def call_all(self) -> None:
        """Have every organization call once, so that its month is there and its token known."""
        engine = create_engine(self.here.database)
        called = 0
        while called < self.size:
            one = load(self.entrant.url, self.entrant.tokens, REQUEST, _CONNECTIONS, 3, first=called, patient=True)
            self.answered += one.requests
            # Refused ones, while the disk stood still, may have come so far as to be charged.
            self.broken_off += one.refused + _CONNECTIONS
            with engine.connect() as connection:
                before, called = called, connection.scalar(select(func.count()).select_from(allowances)) or 0
            if called == before:
                raise RuntimeError(f"{called:,} of {self.size:,} organizations have called, and no more")
        engine.dispose()

    def check(self, rounds: Sequence[Round]) -> None:
        """Raise ``RuntimeError`` unless all was metered; each load may have broken off one call a connection."""
        answers = self.answered + answered([rounds])
        self.here.check_metered(answers, self.broken_off + _CONNECTIONS * len(rounds))


def run(report: Report, plan: Plan) -> None:
    """Measure installations of different sizes in turns."""
    table = report.table(
        "As organizations grow, on the allowance",
        "organizations",
        "requests/s",
        "times the cost of 10",
        "of the rounds",
        "CPU µs",
        "of nginx's requests/s",
    )
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(track(plan.folder / "organizations", "plain"))
        installations = [_sized(stack, there, size) for size in (10, 1000, 10_000 if plan.quick else 100_000)]
        results = compete([there.nginx, *(one.entrant for one in installations)], plan.load(REQUEST, _CONNECTIONS))
        fewest = results[installations[0].entrant.name]
        for one in installations:
            rounds = results[one.entrant.name]
            costs = ratios(fewest, rounds)
            report.figures[f"organizations/{one.size}"] = statistics.median(costs)
            table.row(
                one.entrant.name,
                f"{rate(rounds):,.0f}",
                f"**{statistics.median(costs):.2f}**",
                ", ".join(f"{cost:.2f}" for cost in costs),
                f"{middle_cpu(rounds).total:.1f}",
                f"{statistics.median(ratios(rounds, results['nginx'])):.2f}",
            )
            one.check(rounds)
    table.remark("Each organization has called before, so that its month is there; each request takes one by chance.")


def _sized(stack: contextlib.ExitStack, there: Track, size: int) -> Sized:
    here = install(there.folder / f"ownkey-{size}", there.provider)
    tokens = fill(here, size)
    url, pid = stack.enter_context(here.serving())
    one = Sized(size, here, Entrant(f"{size:,}", url, tokens, pid))
    one.call_all()
    return one


def fill(here: Installation, count: int) -> Path:
    """Write so many organizations as the operator's commands make them; returns the file with their tokens.

    Only their audit entries and the owners' links are left out, which no call reads.
    """
    schema.upgrade(here.database)
    engine = create_engine(here.database)
    tokens = here.folder / "all.tokens"
    with engine.begin() as connection, tokens.open("w") as file:
        for start in range(0, count, _AT_ONCE):
            made = [_organization(number) for number in range(start, min(count, start + _AT_ONCE))]
            for table in (users, organizations, workspaces, subscriptions, api_tokens):
                _insert(connection, table, [rows[table] for rows, _ in made])
            file.writelines(f"{token}\n" for _, token in made)
    engine.dispose()
    return tokens


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(insert(table), list(rows))


def _organization(number: int) -> tuple[Mapping[Table, Mapping[str, Any]], str]:
    """The rows of one, by their table, and the text of its token."""
    now, token, name = clock.now(), credentials.new_api_token(), f"bench-{number}"
    user, organization, workspace = new_id("usr"), new_id("org"), new_id("wsp")
    its = {"organization_id": organization}
    rows: Mapping[Table, Mapping[str, Any]] = {
        users: {"id": user, "email": f"{name}@bench.test", "name": "", "created_at": now},
        organizations: {"id": organization, "name": name, "slug": name, "owner_id": user, "created_at": now},
        workspaces: {"id": workspace, **its, "name": "General", "slug": "general", "created_at": now},
        subscriptions: {**its, "plan": "free", "interval": "month", "started_at": now},
        api_tokens: {
            "id": new_id("tok"),
            **its,
            "workspace_id": workspace,
            "name": "bench",
            "hint": credentials.hint(token),
            "token_hash": credentials.token_hash(token),
            "scopes": "gateway",
            "created_at": now,
        },
    }
    return rows, token
