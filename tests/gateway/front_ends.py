"""A real nginx or HAProxy before a service, with the very lines that README.md recommends; TLS left out."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.gateway.installation import free_port

README = Path(__file__).parents[2] / "README.md"
FRONT_ENDS = ("nginx", "haproxy")


def program(name: str) -> str | None:
    """Where nginx or HAProxy is; Debian keeps them out of an ordinary user's path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def recommended(name: str) -> str:
    """The block of README.md for this front end."""
    found = re.search(rf"```{name}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, f"README.md has no block for {name}"
    return re.sub("^  ", "", found[1], flags=re.MULTILINE)


def _nginx(port: int, upstream: str, folder: Path) -> list[str]:
    # Temporary files go where the test may write, whoever runs it.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    block = recommended("nginx").replace("http://127.0.0.1:8000", upstream)
    assert upstream in block
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn; events {{}}\n"
        f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port};\n{block}}} }}\n"
    )
    return ["-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]


def _haproxy(port: int, upstream: str, folder: Path) -> list[str]:
    block = recommended("haproxy").replace("127.0.0.1:8000", upstream.removeprefix("http://"))
    block, lines = re.subn(r"bind .*", f"bind 127.0.0.1:{port}", block)
    assert lines == 1
    (folder / "haproxy.cfg").write_text(block)
    return ["-f", str(folder / "haproxy.cfg")]


_COMMANDS: dict[str, Callable[[int, str, Path], list[str]]] = {"nginx": _nginx, "haproxy": _haproxy}


@contextmanager
def before(name: str, upstream: str, folder: Path) -> Iterator[str]:
    """The address of a front end that leads to ``upstream``, for as long as the block lasts."""
    port = free_port()
    path = program(name)
    assert path
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen([path, *_COMMANDS[name](port, upstream, folder)], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / f"{name}.log").read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
