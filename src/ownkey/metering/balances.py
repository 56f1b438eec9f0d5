"""The numbers of an allowance inside the writer's transaction."""

from __future__ import annotations


class Balance:
    """An allowance row inside the writer's transaction, which holds it locked: plain arithmetic is exact here.

    ``entries`` counts what changed it: the usage events and ledger entries of the month, which carry this number and
    what is used after them.
    """

    __slots__ = ("entries", "excess", "granted", "key", "reserved", "touched", "used")

    def __init__(self, key: tuple[str, str], granted: int, used: int, reserved: int, excess: int, entries: int) -> None:
        self.key = key
        self.granted = granted
        self.used = used
        self.reserved = reserved
        self.excess = excess
        self.entries = entries
        self.touched = False

    @property
    def remaining(self) -> int:
        """What can still be reserved; never negative."""
        return max(0, self.granted - self.used - self.reserved)

    def grant(self, granted: int) -> int:
        """Change what the plan grants; returns the difference. What is used already stays used."""
        difference = granted - self.granted
        self.granted = granted
        self._explain_excess()
        return difference

    def reserve(self, tokens: int) -> None:
        """Hold tokens. The database's own check refuses the batch if this ever passed what is granted."""
        self.reserved += tokens
        self.touched = True

    def settle(self, released: int, charged: int) -> None:
        """Replace a hold by what was really used, which a provider may have made more than its limit."""
        self.reserved -= released
        self.used += charged
        self._explain_excess()

    def _explain_excess(self) -> None:
        self.excess = max(0, self.used + self.reserved - self.granted)
        self.touched = True
