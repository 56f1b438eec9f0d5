"""What is known about a stored provider key: the six states a section of the Integrations page can show."""

from __future__ import annotations

from enum import StrEnum


class Health(StrEnum):
    """The state of a provider key, from its last check or from real traffic."""

    ACTIVE = "active"
    UNVERIFIED = "unverified"
    REJECTED = "rejected"
    OUT_OF_CREDIT = "out_of_credit"
    LIMITED = "limited"
    UNREACHABLE = "unreachable"

    @property
    def label(self) -> str:
        """The badge people see: Active, Out of credit, …"""
        return self.value.replace("_", " ").capitalize()

    @property
    def explanation(self) -> str:
        """One sentence that says what the state means and what to do."""
        return _EXPLANATIONS[self]

    @property
    def is_trouble(self) -> bool:
        """Whether calls on the key fail, as far as is known."""
        return self not in (Health.ACTIVE, Health.UNVERIFIED)

    @property
    def passes(self) -> bool:
        """Whether it may pass by itself, and is over as soon as nothing shows it any more."""
        return self in (Health.LIMITED, Health.UNREACHABLE)

    @property
    def blocks_saving(self) -> bool:
        """Whether a key found in this state is not saved unless the admin insists."""
        return self is Health.REJECTED


_EXPLANATIONS = {
    Health.ACTIVE: "The provider accepts this key.",
    Health.UNVERIFIED: "The provider's answer does not say whether this key works. The next request will show.",
    Health.REJECTED: "The provider refuses this key. Create a new one in the provider's console.",
    Health.OUT_OF_CREDIT: "The key is real, but its account has no credit left. Add credit with the provider.",
    Health.LIMITED: "The key is real, but the provider limits its permissions or its rate. Check it in the console.",
    Health.UNREACHABLE: "The provider could not be reached, so this key was not checked.",
}
