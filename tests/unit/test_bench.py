"""The parts of the benchmark that compute: nothing here is timed, and no figure depends on the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.bench import contest, goals, nginx, paced, paced_provider, page, processes
from scripts.bench.contest import Round
from scripts.bench.load import Counted
from scripts.bench.processes import Cpu
from scripts.bench.report import Report

NAMES = ("plain/allowance/64", "memory/Ownkey/idle", "paced/Ownkey", "paced/nginx")


def rounds(*requests: int) -> Sequence[Round]:
    """Rounds of two seconds each in which so many requests were answered."""
    return [Round(Counted(number, 2.0, 100.0), Cpu(number, 0, 1), 3.0) for number in requests]


def verdicts(**figures: float) -> dict[str, str]:
    """What the goals' table says of figures, named by their position in ``NAMES``, by the row's first words."""
    table = goals.rows({NAMES[int(key[1:])]: value for key, value in figures.items()})
    return {row[0]: row[4] for row in table}


def test_ratios_are_those_of_each_round() -> None:
    """Who is compared is compared round by round, and the middle of the ratios is not the ratio of the middles."""
    ours, theirs = rounds(100, 300, 200), rounds(200, 400, 800)
    assert list(contest.ratios(ours, theirs)) == [0.5, 0.75, 0.25]
    assert contest.rate(ours) == 100.0
    assert contest.middle_cpu(ours).total == 201
    assert contest.beside_cpu(ours) == 3.0
    assert contest.answered([ours, theirs]) == 2000


def test_a_verdict_names_the_better_bound_that_is_reached() -> None:
    """A figure meets the goal, or the floor, or falls short of the floor by a part of it; as it is printed."""
    plain = "plain JSON on the allowance, of nginx's requests/s"
    assert verdicts(n0=0.45)[plain] == "meets the goal"
    assert verdicts(n0=0.447)[plain] == "meets the goal"  # prints as 0.45
    assert verdicts(n0=0.2)[plain] == "meets the floor"
    assert verdicts(n0=0.1)[plain] == "short of the floor by 50%"
    assert verdicts()[plain] == goals.MISSING


def test_less_is_better_where_it_is() -> None:
    """Memory meets its bounds from below."""
    memory = "memory of an idle worker, MiB"
    assert verdicts(n1=70)[memory] == "meets the goal"
    assert verdicts(n1=100.4)[memory] == "meets the floor"
    assert verdicts(n1=125)[memory] == "short of the floor by 25%"


def test_a_quotient_needs_both_figures() -> None:
    """Open streams are compared with nginx's number of the same run, and with nothing else."""
    streams = "open streams of 100 chunks/s within 3 % of direct, of nginx's number"
    assert verdicts(n2=380, n3=400)[streams] == "meets the goal"
    assert verdicts(n2=280, n3=400)[streams] == "meets the floor"
    assert verdicts(n2=380)[streams] == goals.MISSING
    assert verdicts(n2=380, n3=0)[streams] == goals.MISSING


@pytest.mark.parametrize("limit", [100, 137, 399, 400, 1000, 1599])
def test_the_search_finds_the_largest_number(limit: int) -> None:
    """The search ends within a twentieth, or 25, below the true limit, and never above it."""
    found = paced.most_that_fit(lambda count: count <= limit, 100, 1600)
    assert found <= limit <= found + max(25, found // 20)


def test_the_search_stays_between_its_bounds() -> None:
    """Nothing fits: zero. Everything fits: the last step that was asked for."""
    assert paced.most_that_fit(lambda count: False, 100, 1600) == 0
    assert paced.most_that_fit(lambda count: True, 100, 1600) == 1600


def test_streams_are_what_they_are_said_to_be() -> None:
    """A hundred words, the usage and the end make 102 events; a paced stream is a whole chunked reply."""
    events = nginx.stream_events(100)
    assert len(events) == 102
    pieces = paced_provider.pieces(50)
    assert len(pieces) == 50
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert body.count(b"data: ") == 50


def test_processes_are_read() -> None:
    """Our own process has used some time, holds some memory, and is the first of its tree."""
    used = processes.cpu_of(os.getpid())
    assert used.main > 0
    assert used.total >= used.main
    assert used.since(used) == Cpu(0, 0, 0)
    assert processes.memory_of(os.getpid()) > 1
    assert processes.tree(os.getpid())[0] == os.getpid()


def test_a_server_that_ends_is_noticed(tmp_path: Path) -> None:
    """A program that ends instead of listening is an error with its command line, not a long wait."""
    with (
        pytest.raises(RuntimeError, match="did not listen"),
        processes.running(["true"], processes.LOAD_CORE, processes.free_port(), log=tmp_path / "log"),
    ):
        pass


def test_the_page_begins_with_the_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goals, then the run's tables with their remarks, the machine, the method."""
    monkeypatch.setenv("PATH", "/nowhere")  # versions of programs that are not here
    report = Report(figures={"plain/allowance/64": 0.31})
    table = report.table("Plain JSON", "connections", "ratio")
    table.row("64", "**0.31**")
    table.remark("All of it was metered.")
    text = page.write(report, "3 rounds of 4 seconds each.")
    places = [text.index(part) for part in ("## Goals", "| **0.31** | meets the floor |", "## Plain JSON")]
    places += [text.index(part) for part in ("| 64 | **0.31** |", "All of it was metered.", "## Machine", "## Method")]
    assert places == sorted(places)
    assert "no nginx" in text
    assert text.endswith("\n")
