"""A mail server on this machine that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Post:
    """A mail server's inbox, and who signed in to it. While ``full`` it takes nothing."""

    def __init__(self) -> None:
        self.received: list[Envelope] = []
        self.signed_in: list[LoginPassword] = []
        self.full = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message."""
        if self.full:
            return "452 The inbox is full"
        self.received.append(envelope)
        return "250 OK"

    def let_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        """Everybody may."""
        assert isinstance(data, LoginPassword)
        self.signed_in.append(data)
        return AuthResult(success=True)

    @property
    def messages(self) -> Sequence[EmailMessage]:
        """What was received, read."""
        return [message_from_bytes(_bytes(envelope), policy=policy.default) for envelope in self.received]


def _bytes(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content


@asynccontextmanager
async def serving(post: Post, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Run a server without TLS; yields its ``host:port``."""

    def protocol() -> SMTP:
        return SMTP(post, authenticator=post.let_in, auth_require_tls=False, loop=asyncio.get_running_loop())

    server = await asyncio.get_running_loop().create_server(protocol, host, 0)
    async with server:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
