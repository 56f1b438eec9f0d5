"""Have the prices of the models that are used, from the price list, which is read by a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from ownkey.errors import Unavailable
from ownkey.metering import prices
from ownkey.metering.new_rows import NewRows
from ownkey.metering.prices import Pair, RateRow
from ownkey.node import Node

_PROGRAM = "ownkey.metering.price_list"
_PATIENCE_SECONDS = 30
_AT_ONCE = 1000


class Pricing:
    """Notes the price of a model when it is first used, and now and then whether it has changed."""

    def __init__(self) -> None:
        self._events = NewRows(back=100_000)
        # Providers that no price list exists for.
        self._unlisted: set[str] = set()

    async def note_new(self, node: Node) -> None:
        """Note the prices of models that have been used and have none yet. Raises ``Unavailable``."""
        while pairs := await prices.without_price(node.db, self._events, self._unlisted):
            await self._note(node, pairs)

    async def compare(self, node: Node) -> None:
        """Note the prices that differ from what is noted. Raises ``Unavailable``."""
        pairs = await prices.to_compare(node.db, version("genai-prices"))
        for start in range(0, len(pairs), _AT_ONCE):
            await self._note(node, pairs[start : start + _AT_ONCE])

    async def _note(self, node: Node, pairs: Sequence[Pair]) -> None:
        listed = await ask_list(pairs)
        self._unlisted |= {provider for provider, model in pairs if (provider, model) not in listed}
        await prices.save(node.db, version("genai-prices"), listed)


async def ask_list(pairs: Sequence[Pair]) -> Mapping[Pair, Sequence[RateRow]]:
    """What the price list says of these models, without those whose provider has none. Raises ``Unavailable``."""
    # None of our settings: among them are secrets, and the program needs none.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            answer, _ = await program.communicate(json.dumps(pairs).encode())
    except BaseException as error:
        if program.returncode is None:
            program.kill()
        if isinstance(error, TimeoutError):
            raise Unavailable("The price list did not answer.") from error
        raise
    if program.returncode != 0:
        raise Unavailable("The price list could not be read.")
    return {(provider, model): rates for provider, model, rates in json.loads(answer)}
