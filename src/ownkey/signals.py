"""The signals that stop us."""

from __future__ import annotations

import signal
from collections.abc import Sequence


def stop_signals() -> Sequence[signal.Signals]:
    """SIGTERM, Ctrl-C, and the end of the terminal; not the last if whoever started us ignores it (``nohup``)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT) if ignored else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
