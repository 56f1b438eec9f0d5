"""The process that serves: ``python -m ownkey.cli.worker``, which ``ownkey serve`` becomes, or starts several of.

It begins anew, so that it holds nothing of what reading the command line and updating the database took: that would
be a tenth of its memory. What it must not import is listed in ``tests/architecture/test_memory.py``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import NoReturn

from ownkey.cli.ending import exit_code_of


def become(listening: socket.socket) -> NoReturn:
    """Turn this process into the one that serves on a listening socket; does not return."""
    listening.set_inheritable(True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(
            OSError, AttributeError
        ):  # a full disk, a reader that is gone, none at all: we serve all the same
            stream.flush()
    program, *arguments = _command(str(listening.fileno()))
    os.execv(program, [program, *arguments])  # noqa: S606 - our own program, without a shell


def command(host: str, port: int, number: int) -> Sequence[str]:
    """What starts one of several processes on a port; it ends when its standard input does."""
    return _command(host, str(port), str(number))


def _command(*arguments: str) -> Sequence[str]:
    # -P: a module in the folder that it is started from is not ours.
    return (sys.executable, "-P", "-m", "ownkey.cli.worker", *arguments)


def spare_colours() -> None:
    """Keep structlog from loading rich, where that is installed, to colour lines: ours are JSON, and it is 5 MB."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]


def _serve(arguments: Sequence[str]) -> None:
    spare_colours()
    from ownkey import app, logs
    from ownkey.cli.configuration import configured
    from ownkey.gateway.sockets import listen

    settings = configured()
    logs.set_up(settings.log_level)
    if len(arguments) == 1:
        app.run(settings, socket.socket(fileno=int(arguments[0])))
        return
    host, port, number = arguments
    address, _, metrics_port = settings.metrics_address.rpartition(":")
    if metrics_port.isdecimal():
        settings = settings.model_copy(update={"metrics_address": f"{address}:{int(metrics_port) + int(number)}"})
    Thread(target=_stop_with_parent, name="parent-watch", daemon=True).start()
    app.run(settings, listen(host, int(port), reuse_port=True))


def _stop_with_parent() -> None:
    # The parent holds the other end of our standard input for as long as it lives, however it dies.
    # Not through sys.stdin, whose lock this thread would hold while the interpreter shuts down.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: _serve(sys.argv[1:])))
