"""Which passwords are good enough, and how they are kept."""

from __future__ import annotations

from typing import Literal

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from ownkey.accounts import passwords
from ownkey.errors import InvalidRequest

GOOD = "violet tram under rain"


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "fifteen letters",
        "köln döner 東京 🚀 mit",
        "only lower case words",
        "long " * 2 + "sentence " * 20,
        "    spaces count as well    ",
    ],
)
def test_any_long_text_is_a_password(password: str) -> None:
    """From 15 to 200 characters of any kind are accepted; nobody is told to mix in a digit."""
    passwords.check(password)


@pytest.mark.parametrize("password", ["", "fourteen chars", "é" * 3, "a" * 201])
def test_too_short_and_too_long_are_refused(password: str) -> None:
    """Fewer than 15 or more than 200 characters are refused, not cut off."""
    with pytest.raises(InvalidRequest):
        passwords.check(password)


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword",
        "Password-Password-Password",
        "correct horse battery staple",
        "Welcome.1234567890",
        "iloveyou12345678",
        "aaaaaaaaaaaaaaaaaaaa",
        "abababababababab",
        "summersummersummer",
        "123456789012345",
        "abcdefghijklmnop",
        "qwertyuiopasdfghjkl",
        "ponmlkjihgfedcba",
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    """Common ones, something short over and over, and runs of the keyboard are no passwords, however long."""
    with pytest.raises(InvalidRequest):
        passwords.check(password)


@pytest.mark.parametrize(
    "password", ["my ACME login for work", "hello rosalind whatever", "rosalind.f forever", "example forever and ever"]
)
def test_words_of_the_context_are_refused(password: str) -> None:
    """The person's name, the parts of their address and the application's name are not in the password."""
    with pytest.raises(InvalidRequest):
        passwords.check(password, context=("rosalind.f@example.com", "Rosalind F", "Acme"))


def test_short_context_words_are_left_alone() -> None:
    """A name of three letters is in too many good passwords by chance."""
    passwords.check("an annual banner day", context=("Ann", "ann@b.io"))


def test_passwords_are_kept_with_argon2id_at_full_strength() -> None:
    """What production uses is argon2id with at least 64 MiB and three passes."""
    kept = extract_parameters(PasswordHasher().hash("x"))
    made = passwords.hasher
    assert kept.type is Type.ID
    assert (made.type, made.memory_cost, made.time_cost) == (Type.ID, 65536, 3)


@pytest.mark.anyio
async def test_only_the_right_password_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every character counts, also the last of 200; the same text in another Unicode form is the same."""
    monkeypatch.setattr(passwords, "hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    kept = await passwords.hash_password("é" * 199 + "x")
    assert await passwords.verify(kept, "e\u0301" * 199 + "x")
    assert not await passwords.verify(kept, "é" * 199 + "y")
    assert not await passwords.verify(kept, "é" * 199)
    assert not await passwords.verify("not a hash", "x")
    assert not await passwords.verify(kept, "\ud800")


@pytest.mark.anyio
async def test_nobody_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an unknown person a hash is computed as for a known one, and the answer is no."""
    computed: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            computed.append(str(hash))
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "hasher", Counting(time_cost=1, memory_cost=8, parallelism=1))
    kept = await passwords.hash_password(GOOD)
    assert not await passwords.verify(None, "the password of somebody who does not exist")
    assert not await passwords.verify(kept, "something else altogether")
    assert len(computed) == 2
    assert extract_parameters(computed[0]) == extract_parameters(computed[1])


def test_a_hash_of_weaker_parameters_is_outdated() -> None:
    """A hash made with other parameters is made anew at the next sign-in."""
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    assert passwords.is_outdated(weak.hash(GOOD))
    assert not passwords.is_outdated(passwords.hasher.hash(GOOD))
