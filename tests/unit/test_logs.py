"""Log lines: one JSON object each, on standard error, and nothing in them that looks like a credential."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ownkey import errors, logs
from ownkey.errors import InvalidRequest, OwnkeyError
from ownkey.mail import Mailer
from ownkey.providers.registry import PROVIDERS
from ownkey.settings import read_settings

CREDENTIALS = (
    "ownkey_" + "aB3" * 13 + "z",
    "sk-proj-canary0123456789",
    "sk-ant-api03-canary_0123",
    "gsk_canary0123456789",
    "xai-canary0123456789",
    "AIzaSyCanary0123456789",
    "ABSKcanary0123456789",
)


OWN_SENTENCES = (
    *(kind.sentence for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OwnkeyError)),
    *(f"It looks like {hint.example}, not." for p in PROVIDERS.values() for hint in p.key_hints if not hint.admin),
)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leave this process's logging as it was."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines on standard error since the last look; standard output stays empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Our own lines and a library's have the same members: event, level, timestamp; the level is obeyed."""
    logs.set_up("INFO")
    structlog.get_logger("ours").info("started", port=8000)
    logging.getLogger("theirs").warning("careful with %s", "that")
    structlog.get_logger("ours").debug("too much")
    logging.getLogger("theirs").debug("too much")
    logging.getLogger("httpx").info("a line for each request")
    ours, theirs = written(capsys)
    assert (ours["event"], ours["level"], ours["port"]) == ("started", "info", 8000)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("careful with that", "warning", "theirs")
    assert ours["timestamp"].endswith("Z")


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a reader that is gone, a closed or no standard error at all: whoever logs hears nothing of it."""
    logs.set_up("INFO")
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w", 1) as full, open(writing, "w", 1) as unread, open(os.devnull, "w") as closed:
        closed.close()
        for broken in (full, unread, closed, None):
            monkeypatch.setattr(sys, "stderr", broken)
            structlog.get_logger().warning("ours")
            logging.getLogger("theirs").warning("theirs")
        monkeypatch.undo()
        for file in (full, unread):
            with suppress(OSError):  # what is left of the lines
                file.close()


def test_a_traceback_has_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback names files and lines; local variables, and credentials in its message, are not in it."""
    logs.set_up("INFO")

    def broken() -> None:
        local = "canary-" + "in-a-variable"
        raise ValueError(f"{CREDENTIALS[1]} is wrong" if local else "")

    for log in (structlog.get_logger(), logging.getLogger("theirs")):
        try:
            broken()
        except ValueError:
            log.exception("failed")
    for line in written(capsys):
        assert "test_logs.py" in line["exception"]
        assert "canary" not in json.dumps(line)


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_credentials_are_blanked_wherever_they_are(capsys: pytest.CaptureFixture[str], credential: str) -> None:
    """In the event, in a value, in a nested value, in bytes, in a header or an address: none is written."""
    logs.set_up("INFO")
    log = structlog.get_logger()
    log.info(f"refused {credential}, sorry", value=credential, deep={"list": [credential, {"x": credential.encode()}]})
    log.info("request", url=f"https://host/v1?key={credential}&x=1", header=f"Bearer {credential}")
    logging.getLogger("theirs").error("refused %s", credential)
    lines = written(capsys)
    assert credential not in json.dumps(lines)
    assert "sorry" in lines[0]["event"]
    assert "x=1" in lines[1]["url"]


def test_what_we_say_ourselves_is_not_blanked() -> None:
    """Errors, and examples of what to write, are read as they were written, at the command line, too."""
    with pytest.raises(InvalidRequest) as wrong:
        Mailer(read_settings(smtp_url=SecretStr("mail.example")))
    for sentence in (*OWN_SENTENCES, wrong.value.message):
        assert logs.blank(sentence) == sentence


def test_secret_fields_are_blanked_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A field that holds a credential by its name is not written, whatever it looks like; counts of tokens are."""
    logs.set_up("INFO")
    structlog.get_logger().info(
        "x",
        headers={"Authorization": "canary", "X-Api-Key": "canary", "cookie": "canary"},
        password="canary",
        api_token="canary",
        url="postgresql://someone:canary@host/db",
        link="/sign-in/canaryCanaryCanary01",
        tokens=7,
        api_token_id="tok_1",
    )
    [line] = written(capsys)
    assert "canary" not in json.dumps(line).lower()
    assert (line["tokens"], line["api_token_id"]) == (7, "tok_1")


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_token_is_found_in_any_text(before: str, after: str) -> None:
    """However it is surrounded, our own token's random part is not left whole, unless a letter is glued before it."""
    token = "ownkey_" + "aB3" * 13 + "z"
    blanked = logs.blank(f"{before} {token}{after}")
    assert token not in blanked
