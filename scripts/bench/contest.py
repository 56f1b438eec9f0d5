"""A contest: gateways take turns under the same load, and what counts is the median of the rounds' ratios.

An absolute figure says more about the machine than about the program, and a machine that others use changes from
one minute to the next; what is compared is therefore measured seconds apart. CPU time a request, of all threads and
processes, is the figure least touched by noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.load import Counted, load
from scripts.bench.processes import Cpu, cpu_of

WARM_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Entrant:
    """A gateway under test: where it takes chat completions, for which tokens, and its process.

    ``beside`` is the process of its database, if that is a server. ``headers`` and ``fields`` of the body are what it
    wants in addition; ``at_least`` is how many seconds a slow one needs for its turns.
    """

    name: str
    url: str
    tokens: Path
    pid: int
    beside: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    at_least: float = 0.0

    def load(self, body: Mapping[str, Any], connections: int, seconds: float) -> Counted:
        """Put it under load. Raises ``RuntimeError`` when it fails to answer."""
        asked = {**body, **self.fields}
        return load(self.url, self.tokens, asked, connections, max(seconds, self.at_least), headers=self.headers)


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of one entrant: what the load counted, and CPU microseconds a request."""

    counted: Counted
    cpu: Cpu
    beside: float


@dataclass(frozen=True, slots=True)
class Load:
    """What all entrants get: the request's body, how many connections, how often and how many seconds."""

    body: Mapping[str, Any]
    connections: int
    rounds: int
    seconds: float


def compete(entrants: Sequence[Entrant], how: Load) -> Mapping[str, Sequence[Round]]:
    """Each entrant's rounds by its name. Who goes first changes from round to round."""
    rounds: dict[str, list[Round]] = {entrant.name: [] for entrant in entrants}
    for number in range(how.rounds):
        first = number % len(entrants)
        for entrant in (*entrants[first:], *entrants[:first]):
            rounds[entrant.name].append(_turn(entrant, how))
    return rounds


def warm_up(entrants: Sequence[Entrant], body: Mapping[str, Any], connections: int = WARM_CONNECTIONS) -> int:
    """Open what is opened once. Returns how many calls were answered."""
    return sum(entrant.load(body, connections, 1).requests for entrant in entrants)


def _turn(entrant: Entrant, how: Load) -> Round:
    before, beside = cpu_of(entrant.pid), _beside(entrant)
    counted = entrant.load(how.body, how.connections, how.seconds)
    cpu = cpu_of(entrant.pid).since(before, counted.requests)
    return Round(counted, cpu, (_beside(entrant) - beside) / counted.requests)


def _beside(entrant: Entrant) -> float:
    return 0.0 if entrant.beside is None else cpu_of(entrant.beside).total


def rate(rounds: Sequence[Round]) -> float:
    """The median of the rounds' requests a second."""
    return statistics.median(one.counted.rate for one in rounds)


def ratios(rounds: Sequence[Round], against: Sequence[Round]) -> Sequence[float]:
    """How many times the other's requests a second, round by round."""
    return [one.counted.rate / other.counted.rate for one, other in zip(rounds, against, strict=True)]


def middle_cpu(rounds: Sequence[Round]) -> Cpu:
    """The medians of CPU microseconds a request."""
    return Cpu(
        statistics.median(one.cpu.main for one in rounds),
        statistics.median(one.cpu.second for one in rounds),
        statistics.median(one.cpu.rest for one in rounds),
    )


def beside_cpu(rounds: Sequence[Round]) -> float:
    """The median of the database server's CPU microseconds a request."""
    return statistics.median(one.beside for one in rounds)


def answered(results: Sequence[Sequence[Round]]) -> int:
    """How many calls were answered in all these rounds."""
    return sum(one.counted.requests for rounds in results for one in rounds)
