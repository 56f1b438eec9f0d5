"""Other gateways beside ours and nginx: plain JSON and whole streams at 64 connections."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from scripts.bench.contest import (
    WARM_CONNECTIONS,
    Entrant,
    Load,
    Round,
    answered,
    compete,
    middle_cpu,
    rate,
    ratios,
    warm_up,
)
from scripts.bench.installation import install
from scripts.bench.peers import FOLDER, PEERS, Peer
from scripts.bench.plan import Plan
from scripts.bench.processes import GATEWAY_CORE, free_port, memory_of, running
from scripts.bench.report import Report, Table
from scripts.bench.throughput import BODIES, track

_CONNECTIONS = 64
_PATIENCE = 15.0
_LAST_WORD = {"plain": "word word", "stream": "word099"}
_NAMES = {"plain": "plain JSON", "stream": "whole streams"}


def run(report: Report, plan: Plan) -> None:
    """Measure those that are installed; what fails is shown with its error."""
    there = [peer for peer in PEERS if peer.installed]
    table = report.table(
        f"Other gateways, {_CONNECTIONS} connections",
        "gateway, load",
        "requests/s",
        "of nginx's",
        "CPU µs",
        "MiB",
        "Ownkey beside it, requests/s",
        "of nginx's",
        "times theirs",
    )
    for kind in () if not there else ("plain",) if plan.quick else BODIES:
        _measure(report, table, plan, kind, there)
    for peer in PEERS:
        if peer in there:
            table.remark(f"{peer.name} {peer.version(FOLDER / peer.folder)}.")
        else:
            table.remark(f"{peer.name} is not installed here; `make bench-peers` installs it where it can be had.")


def _measure(report: Report, table: Table, plan: Plan, kind: str, peers: Sequence[Peer]) -> None:
    body = BODIES[kind]
    how = Load(body, _CONNECTIONS, min(2, plan.rounds), min(3.0, plan.seconds))
    with track(plan.folder / f"peers-{kind}", kind) as there:
        here = install(there.folder / "ownkey", there.provider)
        tokens = here.organization("allowance", own_key=False)
        with here.serving() as (url, pid):
            ours = Entrant("Ownkey", url, tokens, pid)
            calls, broken_off = warm_up([ours], body), float(WARM_CONNECTIONS)
            warm_up([there.nginx], body)
            for peer in peers:
                try:
                    with _started(peer, there.folder / peer.folder, there.provider) as theirs:
                        alone = min(_try(theirs, kind) for _ in range(3))
                        # Time for each connection to be served a few times, as far as one has the patience.
                        theirs = replace(theirs, at_least=min(_PATIENCE, 3 * _CONNECTIONS * alone))
                        warm_up([theirs], body, _CONNECTIONS)
                        results = compete([there.nginx, ours, theirs], how)
                        memory = memory_of(theirs.pid)
                except (RuntimeError, OSError, httpx.HTTPError) as error:
                    table.row(f"{peer.name}, {_NAMES[kind]}", f"failed: {_one_line(error)}", *[""] * 6)
                    broken_off = math.inf  # how many of our calls a contest counted that broke off is not known
                    continue
                _show(report, table, kind, peer, results, memory)
                calls += answered([results["Ownkey"]])
                broken_off += _CONNECTIONS * how.rounds
        here.check_metered(calls, broken_off)


def _show(
    report: Report, table: Table, kind: str, peer: Peer, results: Mapping[str, Sequence[Round]], memory: float
) -> None:
    nginx, ours, theirs = results["nginx"], results["Ownkey"], results[peer.name]
    times = statistics.median(ratios(ours, theirs))
    report.figures[f"peers/{kind}/{peer.name}"] = times
    table.row(
        f"{peer.name}, {_NAMES[kind]}",
        f"{rate(theirs):,.0f}",
        f"{statistics.median(ratios(theirs, nginx)):.3f}",
        f"{middle_cpu(theirs).total:,.0f}",
        f"{memory:.0f}",
        f"{rate(ours):,.0f}",
        f"{statistics.median(ratios(ours, nginx)):.2f}",
        f"**{times:,.1f}**",
    )


@contextmanager
def _started(peer: Peer, folder: Path, provider: str) -> Iterator[Entrant]:
    """Another gateway, running alone with nginx and ours."""
    folder.mkdir()
    port = free_port()
    setup = peer.set_up(folder, port, provider)
    tokens, log = folder / "tokens", folder / "output.log"
    tokens.write_text(f"{setup.token}\n")
    with running(setup.command, GATEWAY_CORE, port, setup.environment, log=log, seconds=90) as pid:
        address = setup.address.read_text().strip() if setup.address else f"http://127.0.0.1:{port}"
        yield Entrant(peer.name, f"{address}{setup.path}", tokens, pid, headers=setup.headers, fields=setup.fields)


def _try(entrant: Entrant, kind: str) -> float:
    """The seconds that one call takes. Raises ``RuntimeError`` with what came instead of the provider's words."""
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {entrant.tokens.read_text().strip()}",
        **entrant.headers,
    }
    for last in (False, True):  # some listen a moment before they can answer
        before = time.monotonic()
        answer = httpx.post(entrant.url, json={**BODIES[kind], **entrant.fields}, headers=headers, timeout=30)
        if answer.status_code == httpx.codes.OK and _LAST_WORD[kind] in answer.text:
            break
        if last:
            raise RuntimeError(f"HTTP {answer.status_code}: {answer.text}")
        time.sleep(3)
    return time.monotonic() - before


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace("|", "/")[:200]
