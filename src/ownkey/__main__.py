"""``python -m ownkey`` is ``ownkey``."""

from __future__ import annotations

from ownkey.cli.main import main

if __name__ == "__main__":
    main()
