"""What calls that an own key could not serve took of the allowance in a month, inside the writer's transaction.

The transaction holds the month's balance locked, and with it all that is said here: the sum of one connection is exact
on any number of nodes. Only the admission of such a call reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ownkey.metering.reservations import Admit, KeyRow
from ownkey.metering.settlement import Settle
from ownkey.metering.store import EntryRow, Rows, Store

_CHARGED = Settle._fields.index("charged_tokens")


class Taken:
    """Tokens taken and held in place of the key of one organization for one provider in one month.

    Calls that have ended are moved into the month's sum when the next one is admitted, so that a month of many costs no
    more than one of few. One that was taken for abandoned stays outside: it may still be adjusted.
    """

    def __init__(
        self, store: Store, connection: tuple[str, str, str], events: Rows, entries: Sequence[EntryRow]
    ) -> None:
        """``events`` and ``entries`` are those that this transaction has still to write."""
        self.connection = connection
        self.counted: list[str] = []
        self.sum = 0
        self.admitted: list[tuple[object, ...]] = []
        charged = {row[0]: row[_CHARGED] for row in events}
        adjusted = {entry.request_id: entry.tokens for entry in entries if entry.kind == "adjustment"}
        self.used = store.fallback_sum(*connection)
        for request_id, tokens, ended in store.open_fallbacks(*connection):
            if request_id in charged:
                self.used += charged[request_id]
                continue
            self.used += tokens - adjusted.get(request_id, 0)
            if ended:
                self.counted.append(request_id)
                self.sum += tokens

    def room(self, key: KeyRow | None) -> int:
        """What is left of what the organization allows; below zero if it allows nothing.

        An address of the organization's own is another provider, of which the platform has nothing.
        """
        if key is None or key.fallback_tokens is None or key.base_url:
            return -1
        return key.fallback_tokens - self.used

    def admit(self, command: Admit, tokens: int) -> None:
        """A call is admitted, and so many tokens are held for it."""
        assert command.fallback is not None
        self.used += tokens
        self.admitted.append((command.request_id, *self.connection, *command.fallback))

    def write(self, store: Store) -> None:
        """Write what has changed."""
        store.add_fallbacks(self.admitted)
        if self.counted:
            store.count_fallbacks(self.connection, self.sum, self.counted)
