"""A round that has begun is finished, whoever is in a hurry."""

from __future__ import annotations

import asyncio

import pytest

from ownkey.housekeeping import jobs
from ownkey.housekeeping.rounds import whole

pytestmark = pytest.mark.anyio


async def test_a_round_ends_before_its_job_does() -> None:
    """A job that is cancelled in the middle of a round ends after it, even if that fails."""
    steps: list[str] = []

    async def work(fails: bool) -> None:
        steps.append("begun")
        await asyncio.sleep(0.05)
        steps.append("done")
        if fails:
            raise OSError

    for fails in (False, True):
        task = asyncio.create_task(whole(work(fails)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["begun", "done"]
        steps.clear()


async def test_what_a_round_raises_is_raised() -> None:
    """The job hears of what went wrong."""

    async def work() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await whole(work())


async def test_a_job_says_once_what_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log names the job and each new reason that it fails for, and says when it works again."""
    monkeypatch.setattr(jobs, "_ROUND_SECONDS", 0)
    reasons: list[str] = ["away", "away", "away", "full", "", ""]

    async def look_around(rounds: int) -> None:
        if reasons and (reason := reasons.pop(0)):
            raise OSError(reason)

    task = asyncio.create_task(jobs._again_and_again(look_around))
    while reasons:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    said = "".join(capsys.readouterr())
    assert [said.count(reason) for reason in ("away", "full", "works again", "look_around")] == [1, 1, 1, 3]
