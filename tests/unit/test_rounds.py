"""A round that has begun is finished, whoever is in a hurry."""

from __future__ import annotations

import asyncio

import pytest

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
