"""Mail: sent through a real server, or said that it was not."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path

import pytest
from aiosmtpd.smtp import LoginPassword
from pydantic import SecretStr

from ownkey.errors import InvalidRequest
from ownkey.mail import Mailer
from ownkey.settings import read_settings
from tests.fakes.post import Post, serving

pytestmark = pytest.mark.anyio

WITH_PASSWORD = "user%40acme.example:p%40ss@"


@pytest.fixture(autouse=True)
def no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's ``.env`` is not read."""
    monkeypatch.chdir(tmp_path)


def mailer(url: str | None) -> Mailer:
    """The mailer of an installation that people reach at acme.example."""
    settings = read_settings(
        smtp_url=SecretStr(url) if url else None, public_url="https://acme.example", app_name="Acme, Inc."
    )
    return Mailer(settings)


async def test_a_message_arrives_as_written() -> None:
    """With sender, subject and text in any script."""
    post = Post()
    async with serving(post) as address:
        assert await mailer(f"smtp://{address}").send("ann@example.com", "Einladung für Ann", "Grüße 👋\n")
    [envelope] = post.received
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@acme.example", ["ann@example.com"])
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content, policy=policy.default)
    assert message["From"] == '"Acme, Inc." <no-reply@acme.example>'
    assert (message["To"], message["Subject"]) == ("ann@example.com", "Einladung für Ann")
    assert message.get_content().strip() == "Grüße 👋"
    assert message["Date"]
    assert message["Message-ID"].endswith("@acme.example>")
    assert post.signed_in == []


async def test_it_signs_in_with_the_decoded_name_and_password() -> None:
    """The user name is the sender if it is an address, unless the URL names another."""
    post = Post()
    async with serving(post) as address:
        assert await mailer(f"smtp://{WITH_PASSWORD}{address}").send("a@b.example", "x", "x")
        assert await mailer(f"smtp://{WITH_PASSWORD}{address}?from=ai@acme.example").send("a@b.example", "x", "x")
    assert post.signed_in == [LoginPassword(b"user@acme.example", b"p@ss")] * 2
    assert [envelope.mail_from for envelope in post.received] == ["user@acme.example", "ai@acme.example"]


async def test_a_password_never_goes_over_an_open_line() -> None:
    """A server elsewhere that offers no encryption gets neither password nor message."""
    post = Post()
    async with serving(post, "127.0.0.2") as address:
        assert not await mailer(f"smtp://{WITH_PASSWORD}{address}").send("a@b.example", "x", "x")
    assert (post.received, post.signed_in) == ([], [])


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("ann@example.com\r\nBcc: all@example.com", "x"),
        ("ann@example.com", "x\r\nBcc: all@example.com"),
        ("ann@example.com", "x\n\nfalse body"),
    ],
)
async def test_a_line_break_makes_no_header(to: str, subject: str) -> None:
    """A message with a line break in an address or subject is not sent at all."""
    post = Post()
    async with serving(post) as address:
        assert not await mailer(f"smtp://{address}").send(to, subject, "x")
    assert post.received == []


async def test_a_server_that_is_away_is_said_and_not_raised(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever sends shows the link instead; the log names neither address nor text."""
    async with serving(Post()) as address:
        pass
    assert not await mailer(f"smtp://{WITH_PASSWORD}{address}").send("ann@example.com", "secret subject", "secret text")
    shown = "".join(capsys.readouterr())
    assert "mail_not_sent" in shown
    assert not any(word in shown for word in ("ann@", "secret", "p@ss", "p%40ss"))


async def test_without_a_server_it_says_so() -> None:
    """Nothing is set, so nothing is tried."""
    nobody = mailer(None)
    assert not nobody.can_send
    assert not await nobody.send("ann@example.com", "x", "x")


@pytest.mark.parametrize(
    "url", ["mail.example.com:587", "https://mail.example.com", "smtp://", "smtp://h:canary", "smtp://u:canary@h:99999"]
)
async def test_an_unusable_address_is_refused_without_showing_it(url: str) -> None:
    """A typing error in the setting is told at the start, not when the first mail is lost."""
    with pytest.raises(InvalidRequest) as refused:
        mailer(url)
    assert "canary" not in str(refused.value)
