"""Canary keys, and the search for them in everything that somebody else might read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.gateway.installation import free_port

SHOWN = 10
"""So many characters of a canary may be read: a preview has eight."""


def canaries(number: int) -> Sequence[str]:
    """So many keys, shaped like OpenAI's, of which none is part of another."""
    return [f"sk-canary{n:03d}-{'q7Zk' * 3}-{(n + 1) * 7919:08d}-xYw" for n in range(number)]


def forms(key: str) -> Mapping[str, bytes]:
    """A key's tail in eight ways of writing it down; base64 depends on where in a group of three it begins."""
    tail = key[SHOWN:].encode()
    encoded = {f"base64 from {n}": base64.b64encode(b"x" * n + tail)[4 if n else 0 : -4] for n in range(3)}
    return {
        "plain": tail,
        "hexadecimal": tail.hex().encode(),
        "capital hexadecimal": tail.hex().upper().encode(),
        "percent": b"".join(b"%%%02X" % byte for byte in tail),
        "UTF-16": tail.decode().encode("utf-16-le"),
        **encoded,
    }


def found(key: str, sinks: Mapping[str, bytes]) -> list[str]:
    """Where a key can be read, and in which form."""
    written = forms(key)
    return [f"{name} ({form})" for name, data in sinks.items() for form, text in written.items() if text in data]


class Inbox:
    """A mail server that keeps what it gets; ``with`` starts and stops it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message, as it came and as a reader sees it: an encoded line may break anywhere."""
        raw = envelope.original_content or b""
        self.messages.append(raw + message_from_bytes(raw, policy=policy.default).get_content().encode())
        return "250 OK"

    def __enter__(self) -> Inbox:
        self._controller.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._controller.stop()

    def sinks(self) -> Mapping[str, bytes]:
        """Every message."""
        return {f"mail {number}": message for number, message in enumerate(self.messages)}
