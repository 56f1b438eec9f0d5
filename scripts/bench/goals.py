"""The goals of the relay's speed, and what a run's figures say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float]
MISSING = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """A row of the table. ``figure`` takes what it is about from a run's figures, or None if they lack it."""

    what: str
    floor: float
    goal: float
    figure: Callable[[Figures], float | None]
    shown: str
    less_is_better: bool = False

    def reaches(self, measured: float, bound: float) -> bool:
        """Whether a figure, as it is printed, is as good as a bound."""
        printed = round(measured, _decimals(self.shown))
        return printed <= bound if self.less_is_better else printed >= bound

    def verdict(self, measured: float | None) -> str:
        """In a few words: which of the two bounds the figure reaches, or what it lacks of the floor."""
        if measured is None:
            return MISSING
        if self.reaches(measured, self.goal):
            return "meets the goal"
        if self.reaches(measured, self.floor):
            return "meets the floor"
        lacks = abs(measured - self.floor) / self.floor
        return f"short of the floor by {lacks:.0%}"

    def bound(self, value: float) -> str:
        """A bound as the table has it."""
        return f"{'≤' if self.less_is_better else '≥'} {self.shown.format(value)}"


def _decimals(shown: str) -> int:
    return int(shown.partition(".")[2][0])


def _one(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.get(name)


def _least(start: str) -> Callable[[Figures], float | None]:
    """The least favourable of several figures whose names begin alike, where more is better."""
    return lambda figures: min((value for name, value in figures.items() if name.startswith(start)), default=None)


def _quotient(above: str, below: str) -> Callable[[Figures], float | None]:
    def figure(figures: Figures) -> float | None:
        return figures[above] / figures[below] if figures.get(below) and above in figures else None

    return figure


def _twice_the_compiled(figures: Figures) -> float | None:
    found = [figures[name] for name in ("peers/plain/TensorZero", "peers/plain/Ferro") if name in figures]
    return min(found, default=None)


GOALS: Sequence[Goal] = (
    Goal("plain JSON on the allowance, of nginx's requests/s", 0.20, 0.45, _one("plain/allowance/64"), "{:.2f}"),
    Goal("the same, times the Rust and Go gateways (the slower ratio)", 2, 2, _twice_the_compiled, "{:.1f}"),
    Goal("the same, times LiteLLM", 100, 200, _one("peers/plain/LiteLLM"), "{:.0f}"),
    Goal("plain JSON on an own key, of nginx's requests/s", 0.30, 0.50, _one("plain/own key/64"), "{:.2f}"),
    Goal("whole streams of 102 events on the allowance, of nginx's", 0.20, 0.50, _one("stream/allowance/64"), "{:.2f}"),
    Goal(
        "open streams of 100 chunks/s within 3 % of direct, of nginx's number",
        0.70,
        0.95,
        _quotient("paced/Ownkey", "paced/nginx"),
        "{:.2f}",
    ),
    Goal(
        "added median latency beyond nginx's, without the database's commits, µs",
        200,
        100,
        _one("latency/allowance"),
        "{:.0f}",
        less_is_better=True,
    ),
    Goal("memory of an idle worker, MiB", 100, 70, _one("memory/Ownkey/idle"), "{:.0f}", less_is_better=True),
    Goal("memory with 500 open streams, MiB", 150, 90, _one("memory/Ownkey/streams"), "{:.0f}", less_is_better=True),
    Goal("PostgreSQL, one node, of the embedded figure", 0.6, 1.0, _one("postgresql/allowance/64"), "{:.2f}"),
    Goal(
        "cost of a call with 100,000 organizations, times that with 10",
        1.30,
        1.05,
        _one("organizations/100000"),
        "{:.2f}",
        less_is_better=True,
    ),
)


def rows(figures: Figures) -> Sequence[Sequence[str]]:
    """The table's rows: what, floor, goal, measured, verdict."""
    found = []
    for goal in GOALS:
        measured = goal.figure(figures)
        shown = MISSING if measured is None else f"**{goal.shown.format(measured)}**"
        found.append((goal.what, goal.bound(goal.floor), goal.bound(goal.goal), shown, goal.verdict(measured)))
    return found
