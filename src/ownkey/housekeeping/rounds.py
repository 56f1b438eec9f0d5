"""A round of a periodic job, which is finished even when the job is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_GRACE_SECONDS = 5


async def whole(job: Coroutine[Any, Any, object]) -> None:
    """Do a round; raises what it raises.

    Cancelled meanwhile, it first lets the round end, for a few seconds: a connection to the database that is broken
    off while it opens is closed by nobody.
    """
    task = asyncio.create_task(job)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        task.cancel()
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise
