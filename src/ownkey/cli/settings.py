"""``ownkey settings``: what is in force, and why."""

from __future__ import annotations

from dataclasses import asdict

from ownkey.cli.output import Json, show


def settings(*, json: Json = False) -> None:
    """Print every setting, its value and where it comes from.

    Secrets are masked.
    """
    from ownkey.cli.configuration import configured, in_force

    show([asdict(setting) for setting in in_force(configured())], json)
