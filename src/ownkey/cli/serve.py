"""``ownkey serve``: gateway, pages and management API on one port, in one process or several.

Everything heavy is imported by the functions: ``ownkey --help`` reads this module for its docstrings.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ownkey import ids
from ownkey.cli.numbers import whole
from ownkey.errors import InvalidRequest

Host = Annotated[str, Parameter(help="The address to listen on; `0.0.0.0` is every one of this machine.")]
Port = Annotated[int, whole("The port; 0 takes a free one.", most=65535)]
Workers = Annotated[int, whole("How many processes; more than one needs PostgreSQL.", least=1, most=256)]


def build() -> str:
    """``compiled`` if the modules that a request passes through are (``setup.py``), else ``interpreted``."""
    return "interpreted" if str(ids.__file__).endswith(".py") else "compiled"


def serve(*, host: Host = "127.0.0.1", port: Port = 8000, workers: Workers = 1) -> None:
    """Run it: gateway, pages and management API on one port.

    SIGTERM, Ctrl-C and SIGHUP stop it: it takes no more requests, lets running replies finish for up to
    `OWNKEY_DRAIN_TIMEOUT` seconds, settles them all and exits; a second signal, more than a second later, does not
    wait. Of several workers, number `n` serves `/metrics` on the port of `OWNKEY_METRICS_ADDRESS` plus `n`, counted
    from 0.
    """
    import structlog

    from ownkey import logs
    from ownkey.cli.configuration import configured
    from ownkey.cli.installation import database_of, open_database
    from ownkey.cli.worker import become
    from ownkey.cli.workers import supervise
    from ownkey.gateway.sockets import address_of, listen, reserve

    settings = configured()
    logs.set_up(settings.log_level)
    if database_of(settings).dialect == "sqlite" and workers > 1:
        raise InvalidRequest("More than one worker needs PostgreSQL: set OWNKEY_DATABASE_URL, or leave out --workers.")
    if not host:
        raise InvalidRequest("The host is empty. Write 0.0.0.0 to listen on every address of this machine.")
    log = structlog.get_logger(__name__)
    # Before an embedded database is updated: is the port free?
    with listen(host, port) if workers == 1 else reserve(host, port) as held:
        public = settings.public_url
        log.info("starting", address=address_of(held), public_url=public, workers=workers, relay=build())
        open_database(settings)
        if workers == 1:
            become(held)
        supervise(host, held.getsockname()[1], workers)
