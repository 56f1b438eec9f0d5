"""Key encryption keys: their text, and what is no key."""

from __future__ import annotations

import base64
import os

import pytest

from ownkey.vault.kek import BadKek, Kek, new_kek


def test_a_new_key_is_taken_back() -> None:
    """What the command prints is what the setting takes, each time another one."""
    texts = [new_kek() for _ in range(50)]
    assert len({Kek.parse(text).id for text in texts}) == 50


def test_both_alphabets_of_base64_are_one_key() -> None:
    """The same bytes in standard or URL-safe base64, padded or not, are the same key."""
    key = os.urandom(32)
    forms = [
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
        f" {base64.b64encode(key).decode()}\n",
    ]
    assert len({Kek.parse(form).id for form in forms}) == 1


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\xff" * 32,
        bytes(range(32)),
        bytes(range(255, 223, -1)),
        b"0123456789abcdef" * 2,
        bytes.fromhex("deadbeef") * 8,
        b"changeme-changeme-changeme-12345",
        b"correct horse battery staple 123",
    ],
)
def test_known_and_weak_keys_are_refused(key: bytes) -> None:
    """Zeros, patterns and typed text are no keys, though they have 32 bytes."""
    assert len(key) == 32
    with pytest.raises(BadKek):
        Kek.parse(base64.b64encode(key).decode())


@pytest.mark.parametrize("size", [0, 1, 16, 24, 31, 33, 64])
def test_a_key_has_32_bytes(size: int) -> None:
    """Another length is refused, longer ones too."""
    with pytest.raises(BadKek):
        Kek.parse(base64.b64encode(os.urandom(size)).decode())


@pytest.mark.parametrize("text", ["secret!", "ключ", "a b c", "\x00" * 43])
def test_what_is_not_base64_is_refused_without_showing_it(text: str) -> None:
    """The refusal does not repeat the text: it may be a key with a typing error."""
    with pytest.raises(BadKek) as refused:
        Kek.parse(text)
    assert text not in str(refused.value)


def test_each_use_has_a_key_of_its_own() -> None:
    """Keys derived for different uses differ, from each other and between two keys; for one use they are the same."""
    text = new_kek()
    kek, other = Kek.parse(text), Kek.parse(new_kek())
    assert kek.derive(b"a") == Kek.parse(text).derive(b"a")
    assert len({kek.derive(b"a"), kek.derive(b"b"), other.derive(b"a"), base64.b64decode(text)}) == 4


def test_a_key_never_prints() -> None:
    """Printing a key shows its id, which does not contain any of it."""
    text = new_kek()
    kek = Kek.parse(text)
    key = base64.b64decode(text)
    shown = f"{kek} {kek!r} {[kek]}"
    assert kek.id in shown
    assert text not in shown
    assert not any(key[n : n + 3].hex() in shown for n in range(30))
