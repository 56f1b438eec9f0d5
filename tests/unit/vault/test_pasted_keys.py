"""What is made of a pasted key before anything else, and who may paste one."""

from __future__ import annotations

import pytest

from ownkey.access import Actor, Role
from ownkey.errors import InvalidRequest
from ownkey.vault.provider_keys import LONGEST_KEY, SealedKey, clean, may_manage


@pytest.mark.parametrize("pasted", ["sk-abc", "  sk-abc", "sk-abc\r\n", "\t sk-abc\n\n", "\ufeffsk-abc"])
def test_white_space_around_a_pasted_key_goes(pasted: str) -> None:
    """Copying takes line breaks along; they are not part of the key."""
    assert clean(pasted).reveal() == "sk-abc"


@pytest.mark.parametrize(
    "pasted", ["", "   ", "sk abc", "sk\nabc", "sk\x00abc", "sk\u200babc", "x" * (LONGEST_KEY + 1)]
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(pasted: str) -> None:
    """White space or control characters inside, nothing, or far too much is no key."""
    with pytest.raises(InvalidRequest) as refused:
        clean(pasted)
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("role", "by_admins", "by_owner"),
    [(Role.USER, False, False), (Role.DEVELOPER, False, False), (Role.ADMIN, True, False), (Role.OWNER, True, True)],
)
def test_the_setting_narrows_who_manages_keys(role: Role, by_admins: bool, by_owner: bool) -> None:
    """Admins and the owner manage keys, or with the setting ``owner`` the owner alone; the operator always may."""
    actor = Actor("user", "usr_1", "Somebody", "org_1", "wsp_1", role)
    assert may_manage(actor) is by_admins
    assert may_manage(actor, "owner") is by_owner
    assert may_manage(Actor.operator("org_1"), "owner")


def test_a_sealed_key_prints_neither_part() -> None:
    """A row on its way to a call can be printed by mistake."""
    sealed = SealedKey("key_1", "org_1", "openai", "", b"ciphertext", b"wrapped", "abc")
    assert "ciphertext" not in repr(sealed)
    assert "wrapped" not in repr(sealed)
