"""``ownkey demo``: everything on this machine, with a simulated provider, kept nowhere."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number


def demo(
    *,
    port: Annotated[
        int | None, Parameter(validator=Number(gte=0, lte=65535), help="The port; without it 8000, or a free one.")
    ] = None,
) -> None:
    """Try everything on this machine: no account, no provider key and no network needed.

    Starts the whole product in a throw-away folder with a simulated AI provider and an organization, Acme, and
    prints where it is, who can sign in and what to try. Ctrl-C stops it and nothing stays behind.
    """
    from ownkey.demo.run import run

    run(port)
