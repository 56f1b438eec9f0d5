"""A connection to PostgreSQL that takes several statements in one round trip.

It speaks to libpq through the driver's own thin wrapper: what the driver's cursors do for a statement costs as much as
the statement. Every statement is prepared where it is first used, and takes at most one parameter, a JSON document:
that is faster to write here and to read there than an array for each column.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec
import psycopg
from psycopg import errors, pq
from sqlalchemy import URL

from ownkey.db.engine import CONNECT_OPTIONS
from ownkey.metering.store import Contended, Rows, StoreFailed

Asked = tuple[str, object]
_SETTINGS = (
    # A statement must see what was committed while it waited for a lock, whatever the server's default is.
    "SET default_transaction_isolation = 'read committed'",
    # Every statement finds its rows through a key. A plan made while a table was small would scan it for ever after,
    # so scans and the joins that need them are off on this connection; and then one plan is as good as another, so
    # none is made again for the next parameter.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
    "SET bytea_output = 'hex'",
)
# The server ends a statement within less (see CONNECT_OPTIONS): what is silent for longer will not answer any more.
_SILENCE_MS = 8_000
_encode = msgspec.json.Encoder().encode
# By the number PostgreSQL gives a type; "void" is a function's that returns nothing.
_READ: dict[int, Callable[[bytes], Any]] = {
    16: b"t".__eq__,
    17: lambda value: bytes.fromhex(value[2:].decode()),
    20: int,
    23: int,
    25: bytes.decode,
    2278: bytes.decode,
}
_OK, _ROWS, _SYNCED = pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.PIPELINE_SYNC


class Link:
    """The connection. Raises ``StoreFailed`` when the database is away or refuses to work."""

    def __init__(self, url: URL) -> None:
        address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            self._driver = psycopg.connect(
                address,
                autocommit=True,
                application_name="ownkey metering",
                client_encoding="utf8",
                # The driver would prepare what it is asked for the sixth time, and after a rollback have the server
                # forget all that is prepared, ours included.
                prepare_threshold=None,
                **CONNECT_OPTIONS,
            )
        except psycopg.OperationalError as error:
            raise StoreFailed(type(error).__name__) from error
        self._connection = self._driver.pgconn
        self._prepared: dict[str, bytes] = {}
        self._readable, self._either = select.poll(), select.poll()
        self._readable.register(self._connection.socket, select.POLLIN)
        self._either.register(self._connection.socket, select.POLLIN | select.POLLOUT)
        self.trip(*[(setting, None) for setting in _SETTINGS])

    def trip(self, *asked: Asked) -> list[Rows]:
        """Have statements done one after the other, each with its parameter (None: it has none); give their rows.

        None after one that fails is done. Raises ``Contended`` when another node was in the way, and the driver's own
        error for what the database refuses.
        """
        sent = [(statement, None if value is None else [_encode(value)]) for statement, value in asked]
        try:
            self._connection.enter_pipeline_mode()
            prepared = self._send(sent)
            results = self._receive()
            self._connection.exit_pipeline_mode()
        except psycopg.Error as error:
            raise StoreFailed(type(error).__name__) from error
        rows: list[Rows] = []
        for result, statement in zip(results, prepared, strict=True):
            if result.status not in (_OK, _ROWS):
                _refuse(result)
            if statement is None:
                rows.append(_rows(result))
            else:
                self._prepared[statement] = _name(len(self._prepared))
        return rows

    def _send(self, asked: Sequence[tuple[str, list[bytes] | None]]) -> list[str | None]:
        """Send it all; give what each result will be for: a statement that was prepared, or None for its rows."""
        connection, new = self._connection, dict[str, bytes]()
        results: list[str | None] = []
        for statement, values in asked:
            name = self._prepared.get(statement) or new.get(statement)
            if name is None:
                name = new[statement] = _name(len(self._prepared) + len(new))
                connection.send_prepare(name, statement.encode())
                results.append(statement)
            connection.send_query_prepared(name, values)
            results.append(None)
        connection.pipeline_sync()
        while connection.flush():
            # What it answers must be taken meanwhile, or it would stop to read.
            if any(event & select.POLLIN for _, event in self._wait(self._either)):
                connection.consume_input()
        return results

    def _receive(self) -> list[pq.abc.PGresult]:
        connection = self._connection
        results: list[pq.abc.PGresult] = []
        while True:
            while connection.is_busy():
                self._wait(self._readable)
                connection.consume_input()
            result = connection.get_result()
            if result is None:  # the end of one statement's answer
                if connection.status != pq.ConnStatus.OK:
                    raise psycopg.OperationalError
            elif result.status == _SYNCED:
                return results
            else:
                results.append(result)

    def _wait(self, poll: select.poll) -> list[tuple[int, int]]:
        """Wait until there is something to do; a connection that stays silent is given up, another may work."""
        if events := poll.poll(_SILENCE_MS):
            return events
        self.close()
        raise StoreFailed("silence")

    def rollback(self) -> None:
        """Give the open transaction up, if there is one; never raises."""
        with contextlib.suppress(psycopg.Error, StoreFailed):
            self.trip(("ROLLBACK", None))

    def close(self) -> None:
        """End the connection; never raises."""
        with contextlib.suppress(psycopg.Error):
            self._driver.close()


def _name(number: int) -> bytes:
    return b"metering_%d" % number


def _rows(result: pq.abc.PGresult) -> Rows:
    value = result.get_value
    columns = [(column, _READ[result.ftype(column)]) for column in range(result.nfields)]
    return [
        tuple([None if (got := value(row, column)) is None else read(got) for column, read in columns])
        for row in range(result.ntuples)
    ]


def _refuse(result: pq.abc.PGresult) -> NoReturn:
    """Raise what a failed statement means: something in the way, something gone, or a refusal."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
    try:
        kind = errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError
    if issubclass(kind, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable):
        raise Contended(kind.__name__)
    if issubclass(kind, psycopg.IntegrityError | psycopg.DataError | psycopg.ProgrammingError):
        raise kind(message)
    raise StoreFailed(kind.__name__)  # hanging, shutting down, read-only after a failover
