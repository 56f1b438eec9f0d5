"""The one place where a failure becomes a sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from ownkey.errors import OwnkeyError

REFUSED, BAD_USAGE = 1, 2


class BadUsage(Exception):
    """The command line was not understood; the text says why."""


def exit_code_of(command: Callable[[], None]) -> int:
    """Run it. Returns 0, or 1 for a refusal, or 2 for bad usage, after one sentence on standard error."""
    try:
        command()
        sys.stdout.flush()
    except BadUsage as error:
        _say(str(error))
        return BAD_USAGE
    except OwnkeyError as error:
        _say(error.message)
        return REFUSED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        return REFUSED
    except Exception as error:
        if os.environ.get("OWNKEY_LOG_LEVEL") == "DEBUG":
            raise
        _say(f"Something went wrong ({type(error).__name__}). With OWNKEY_LOG_LEVEL=DEBUG the command says where.")
        return REFUSED
    return 0


def _say(sentence: str) -> None:
    from ownkey.logs import blank  # costs a tenth of a second, which only a failure should pay

    print(blank(" ".join(sentence.split())), file=sys.stderr)
