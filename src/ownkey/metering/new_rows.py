"""Which rows of a table that only grows a periodic job has not looked at yet."""

from __future__ import annotations


class NewRows:
    """Walks up the numbers of a table: each round looks at the rows after ``after`` up to ``upto``, and at none twice.

    A number is given out before its transaction ends, so a lower one can appear after a higher one. Therefore a round
    looks only at what was seen in the round before: a transaction takes a moment, a round seconds. ``after`` is None
    before the first round; the second begins ``back`` rows before what the first has seen.
    """

    def __init__(self, back: int) -> None:
        self.after: int | None = None
        self.upto = 0
        self._back = back

    def seen(self, newest: int) -> None:
        """A round is done, in which this was the highest number."""
        self.after = max(0, newest - self._back) if self.after is None else self.upto
        self.upto = newest
