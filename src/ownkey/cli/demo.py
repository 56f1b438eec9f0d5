"""``ownkey demo``: everything on this machine, with a simulated provider, kept nowhere."""

from __future__ import annotations

from typing import Annotated

from ownkey.cli.numbers import whole


def demo(
    *,
    port: Annotated[int | None, whole("The port; without it 8000, or a free one.", most=65535)] = None,
) -> None:
    """Try everything on this machine: no account, no provider key and no network needed.

    Starts the whole product in a throw-away folder with a simulated AI provider and an organization, Acme, and
    prints where it is, who can sign in and what to try. Ctrl-C stops it and nothing stays behind.
    """
    from ownkey.demo.run import run

    run(port)
