"""Have the prices of the models that are used, from the price list, which is read by a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
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
    # In a thread, which cannot be left in the middle: a loop must not be closed while a process of its own is dying.
    answer = await asyncio.to_thread(_run_program, json.dumps(pairs).encode())
    return {(provider, model): rates for provider, model, rates in json.loads(answer)}


def _run_program(question: bytes) -> bytes:
    # None of our settings: among them are secrets, and the program needs none.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = (sys.executable, "-P", "-m", _PROGRAM)
    try:
        program = subprocess.run(  # noqa: S603 - nothing in it is said by anybody
            command, input=question, stdout=subprocess.PIPE, env=environment, timeout=_PATIENCE_SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("The price list did not answer.") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable("The price list could not be read.") from error
    return program.stdout
