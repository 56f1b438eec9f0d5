"""Where a reply goes, and how an error of ours is sent there."""

from __future__ import annotations

from typing import Protocol

from ownkey.errors import OwnkeyError
from ownkey.gateway import headers as header_rules
from ownkey.gateway.call import Call


class Client(Protocol):
    """Where a reply goes: a socket, or the assistant page. What is written is gathered until ``flush``."""

    def begin(self, status: int, headers: bytes, length: int | None) -> None:
        """The head: complete header lines, and the body's length if it is known."""

    def write(self, data: bytes) -> None:
        """Some of the body."""

    def flush(self) -> None:
        """Send what was gathered."""

    def end(self) -> None:
        """The reply is whole: send what was gathered and mark the end."""

    def abort(self) -> None:
        """Break the reply off, so that it cannot be taken for a whole one."""


def refuse(client: Client, call: Call, error: OwnkeyError, request_id: str) -> None:
    """Send an error of ours in the shape of the call's dialect."""
    body = call.endpoint.dialect.error_body(error, request_id)
    client.begin(error.status, header_rules.error_block(error, request_id), len(body))
    client.write(body)
    client.end()
