"""Sealing and opening."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownkey.credentials import Secret
from ownkey.vault import envelope
from ownkey.vault.envelope import EnvelopeBroken, Sealed
from ownkey.vault.kek import Kek, new_kek
from ownkey.vault.keyring import KeyRing, VaultLocked

OLD, NEW = Kek.parse(new_kek()), Kek.parse(new_kek())
RING = KeyRing([OLD])
ROW = b"provider_key/v1/key_1/org_1/openai/"


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary())
def test_what_was_sealed_opens(text: str, bound_to: bytes) -> None:
    """Every text opens again where it was sealed for, and stands nowhere in the envelope."""
    sealed = envelope.seal(RING, Secret(text), bound_to)
    assert envelope.open_sealed(RING, sealed, bound_to).reveal() == text
    assert len(text) < 4 or text.encode() not in sealed.ciphertext + sealed.wrapped_data_key


def test_the_same_secret_never_looks_the_same() -> None:
    """Each sealing has its own data key: equal secrets cannot be told from unequal ones."""
    one, two = (envelope.seal(RING, Secret("sk-same"), ROW) for _ in range(2))
    assert one.ciphertext != two.ciphertext
    assert one.wrapped_data_key != two.wrapped_data_key


@pytest.mark.parametrize(
    "row",
    [
        b"provider_key/v1/key_2/org_1/openai/",
        b"provider_key/v1/key_1/org_2/openai/",
        b"provider_key/v1/key_1/org_1/groq/",
        b"provider_key/v1/key_1/org_1/openai/https://evil.example",
        b"",
    ],
)
def test_a_sealed_secret_opens_in_its_own_row_only(row: bytes) -> None:
    """Another id, organization, provider or address does not open it, nor rewrap it."""
    sealed = envelope.seal(RING, Secret("sk-secret"), ROW)
    with pytest.raises(EnvelopeBroken):
        envelope.open_sealed(RING, sealed, row)
    with pytest.raises(EnvelopeBroken):
        envelope.rewrap(RING, sealed, row)


def test_parts_of_two_envelopes_do_not_fit() -> None:
    """A ciphertext opens with its own data key only, even within one row."""
    one, two = envelope.seal(RING, Secret("sk-one"), ROW), envelope.seal(RING, Secret("sk-two"), ROW)
    with pytest.raises(EnvelopeBroken):
        envelope.open_sealed(RING, Sealed(one.ciphertext, two.wrapped_data_key, one.kek_id), ROW)


def tampered(sealed: Sealed, part: str, changed: bytes) -> Sealed:
    """An envelope with one part exchanged."""
    return replace(sealed, ciphertext=changed) if part == "ciphertext" else replace(sealed, wrapped_data_key=changed)


@pytest.mark.parametrize("part", ["ciphertext", "wrapped_data_key"])
def test_a_changed_byte_anywhere_is_noticed(part: str) -> None:
    """Each single flipped byte of either part, a missing one and nothing at all are refused."""
    sealed = envelope.seal(RING, Secret("sk-secret"), ROW)
    good: bytes = getattr(sealed, part)
    flipped = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(len(good))]
    for changed in (b"", good[:-1], *flipped):
        with pytest.raises(EnvelopeBroken):
            envelope.open_sealed(RING, tampered(sealed, part, changed), ROW)


def test_rewrapping_leaves_the_secret_closed_and_the_old_key_useless() -> None:
    """After rewrapping the new key alone opens, and the ciphertext is untouched."""
    sealed = envelope.seal(RING, Secret("sk-secret"), ROW)
    rewrapped = envelope.rewrap(KeyRing([NEW, OLD]), sealed, ROW)
    assert rewrapped.ciphertext == sealed.ciphertext
    assert rewrapped.kek_id == NEW.id
    assert envelope.open_sealed(KeyRing([NEW]), rewrapped, ROW).reveal() == "sk-secret"
    with pytest.raises(VaultLocked):
        envelope.open_sealed(RING, rewrapped, ROW)
    with pytest.raises(EnvelopeBroken):
        envelope.open_sealed(RING, replace(rewrapped, kek_id=OLD.id), ROW)


def test_a_locked_vault_neither_seals_nor_opens() -> None:
    """Without a key there is no second way: not plain text, not a key made up."""
    sealed = envelope.seal(RING, Secret("sk-secret"), ROW)
    locked = KeyRing([], locked_reason="gone")
    with pytest.raises(VaultLocked):
        envelope.seal(locked, Secret("sk-secret"), ROW)
    with pytest.raises(VaultLocked):
        envelope.open_sealed(locked, sealed, ROW)


def test_an_envelope_prints_only_which_key_it_needs() -> None:
    """Neither part of an envelope shows when it is printed."""
    sealed = envelope.seal(RING, Secret("sk-secret"), ROW)
    assert repr(sealed) == f"Sealed(kek_id={OLD.id!r})"
