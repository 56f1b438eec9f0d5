"""A provider that answers with the very bytes it is told, for what no honest one would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from tests.gateway.service import Customer
from tests.gateway.wire import Reply, Wire

PLANS = '[plans.tested]\nname = "Tested"\nmonthly_tokens = 1000000\napi_access = true\n'
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\n{}"
CHAT = "/openai/v1/chat/completions"


class RawProvider:
    """Answers the requests of each connection with what ``script`` says; counts connections and requests."""

    def __init__(self, listening: socket.socket | None = None) -> None:
        self.script: list[bytes | Callable[[socket.socket], None]] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 20):
                    self.requests.append(data)
                    reply = self.script.pop(0) if self.script else WHOLE
                    if callable(reply):
                        reply(connection)
                        return
                    connection.sendall(reply)
            except OSError:
                pass

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()


def ask(customer: Customer, request: bytes, *, headless: bool = False) -> Reply:
    """One request on a connection of its own."""
    with Wire(customer.service.url) as wire:
        wire.send(request)
        return wire.reply(headless=headless)
