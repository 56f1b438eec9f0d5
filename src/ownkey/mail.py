"""Send a message, or say that we cannot."""

from __future__ import annotations

from email.utils import formataddr, formatdate, make_msgid
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import structlog

from ownkey.errors import InvalidRequest
from ownkey.settings import Settings

_TIMEOUT_SECONDS = 15
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

log = structlog.get_logger(__name__)


class Mailer:
    """Sends plain text through the server in ``OWNKEY_SMTP_URL``.

    ``smtp://user:password@host:587`` (STARTTLS, required as soon as there is a password) or ``smtps://…:465``;
    ``?from=address`` names the sender, else the user name if it is an address, else ``no-reply@`` and the host that
    people reach us at. Values in the URL are percent-encoded. Raises ``InvalidRequest`` for any other URL.
    """

    def __init__(self, settings: Settings) -> None:
        parts = _parts(settings.smtp_url.get_secret_value() if settings.smtp_url else "")
        self.can_send = bool(parts.hostname)
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "smtps"
        self._port = parts.port or (465 if self._tls else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        our_host = urlsplit(settings.public_url).hostname or "localhost"
        from_user = self._user if self._user and "@" in self._user else f"no-reply@{our_host}"
        address = parse_qs(parts.query).get("from", [from_user])[0]
        self._sender = formataddr((settings.app_name, address))
        self._domain = address.rpartition("@")[2]

    async def send(self, to: str, subject: str, text: str) -> bool:
        """Send a message. Returns whether the server took it; never raises, and logs neither address nor text."""
        if not self.can_send:
            return False
        # Of no use to a process that sends none.
        from email.message import EmailMessage

        import aiosmtplib

        try:
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = self._sender, to, subject
            message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self._domain)
            message.set_content(text)
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls,
                start_tls=self._must_start_tls(),
                timeout=_TIMEOUT_SECONDS,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # A header with a line break is a ValueError. The error's text may hold the address, so only its kind.
            log.warning("mail_not_sent", host=self._host, error=type(error).__name__)
            return False
        return True

    def _must_start_tls(self) -> bool | None:
        if self._tls:
            return False
        # None: if the server offers it. A password never goes over an open line, except on this machine.
        return True if self._password and self._host not in _LOOPBACK else None


def _parts(url: str) -> SplitResult:
    # The message never shows the URL: there is a password in it. An example with one would be blanked.
    example = "Write smtp://host:587 or smtps://host:465; user:password@ stands before the host."
    sentence = f"OWNKEY_SMTP_URL is not an address of a mail server. {example}"
    try:
        parts = urlsplit(url)
        usable = not url or (parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0)
    except ValueError:
        raise InvalidRequest(sentence) from None
    if not usable:
        raise InvalidRequest(sentence)
    return parts
