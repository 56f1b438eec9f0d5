"""The command tree.

A group's module is imported when one of its commands is called: ``ownkey --help`` loads no database.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from ownkey.cli.demo import demo
from ownkey.cli.ending import BadUsage, exit_code_of
from ownkey.cli.migrate import migrate
from ownkey.cli.serve import build, serve
from ownkey.cli.settings import settings

app = App(
    name="ownkey",
    help="AI for a whole organization, on a monthly token allowance or on the organization's own provider keys.",
    version=lambda: f"{version('ownkey')} ({build()})",
    default_parameter=Parameter(negative=()),
    help_format="markdown",
    result_action="return_none",
    exit_on_error=False,
    print_error=False,
)
app.command(serve)
app.command(demo)
app.command(migrate)
app.command(settings)
app.command("ownkey.cli.organizations:app", name="organizations", help="The customers: create and list them.")
app.command("ownkey.cli.members:app", name="members", help="An organization's people.")
app.command("ownkey.cli.tokens:app", name="tokens", help="API tokens, which programs use to call the gateway.")
app.command("ownkey.cli.caps:app", name="caps", help="The most tokens of a month that a member or a workspace may use.")
app.command("ownkey.cli.keys:app", name="keys", help="An organization's own provider keys.")
app.command("ownkey.cli.plans:app", name="plans", help="What there is to subscribe to, and who is on what.")
app.command("ownkey.cli.usage:app", name="usage", help="What an organization has used of its allowance.")
app.command("ownkey.cli.vault:app", name="vault", help="The keys that encrypt the provider keys.")
app.command("ownkey.cli.audit:app", name="audit", help="Who did, or was refused, what and when.")
app.command("ownkey.cli.ledger:app", name="ledger", help="The token bookkeeping.")


def main() -> None:
    """Run the command of the process's arguments and end the process with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command. Returns 0, or 1 for a refusal, or 2 for bad usage, after one sentence on standard error."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    try:
        app(arguments)
    except CycloptsError as error:
        raise BadUsage(f"{error} Try `ownkey --help`.") from error
