"""``ownkey serve``: gateway, pages and management API on one port, in one process or several.

Everything heavy is imported by the functions: ``ownkey --help`` reads this module for its docstrings.
"""

from __future__ import annotations

import os
import signal
from threading import Thread
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ownkey.errors import InvalidRequest

Host = Annotated[str, Parameter(help="The address to listen on; `0.0.0.0` is every one of this machine.")]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535), help="The port; 0 takes a free one.")]
Workers = Annotated[
    int, Parameter(validator=Number(gte=1, lte=256), help="How many processes; more than one needs PostgreSQL.")
]
# Which of several processes this one is; given by the process that starts them.
WorkerNumber = Annotated[int | None, Parameter(show=False)]


def serve(
    *, host: Host = "127.0.0.1", port: Port = 8000, workers: Workers = 1, worker_number: WorkerNumber = None
) -> None:
    """Run it: gateway, pages and management API on one port.

    SIGTERM and Ctrl-C stop it: it takes no more requests, lets running replies finish for up to
    `OWNKEY_DRAIN_TIMEOUT` seconds, settles them all and exits; a second signal does not wait. Of several workers,
    number `n` serves `/metrics` on the port of `OWNKEY_METRICS_ADDRESS` plus `n`, counted from 0.
    """
    if worker_number is not None:
        _work(host, port, worker_number)
        return
    import structlog

    from ownkey import logs
    from ownkey.cli.configuration import configured
    from ownkey.cli.installation import database_of, open_database

    settings = configured()
    logs.set_up(settings.log_level)
    if database_of(settings).dialect == "sqlite" and workers > 1:
        raise InvalidRequest("More than one worker needs PostgreSQL: set OWNKEY_DATABASE_URL, or leave out --workers.")
    log = structlog.get_logger(__name__)
    log.info("starting", address=f"http://{host}:{port}", public_url=settings.public_url, workers=workers)
    if workers == 1:
        from ownkey import app

        app.run(settings, host, port)
    else:
        from ownkey.cli.workers import supervise

        open_database(settings)  # say once, not in every worker, that it is out of date
        supervise(host, port, workers)


def _work(host: str, port: int, number: int) -> None:
    """Be one of several processes on the port."""
    from ownkey import app, logs
    from ownkey.cli.configuration import configured

    settings = configured()
    address, _, metrics_port = settings.metrics_address.rpartition(":")
    if metrics_port.isdecimal():
        settings = settings.model_copy(update={"metrics_address": f"{address}:{int(metrics_port) + number}"})
    logs.set_up(settings.log_level)
    Thread(target=_stop_with_parent, name="parent-watch", daemon=True).start()
    app.run(settings, host, port, reuse_port=True)


def _stop_with_parent() -> None:
    # The parent holds the other end of our standard input for as long as it lives, however it dies.
    # Not through sys.stdin, whose lock this thread would hold while the interpreter shuts down.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
