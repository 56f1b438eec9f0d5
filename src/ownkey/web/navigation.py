"""What the settings navigation lists, and who sees which line of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ownkey.access import Action, Actor


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the navigation: shown to whoever may do ``needs``, which is what the page itself asks for."""

    label: str
    path: str
    icon: str
    needs: Action


SETTINGS: Sequence[tuple[str, Sequence[Entry]]] = (
    (
        "You",
        (
            Entry("Account", "/settings/account", "user", Action.ACCOUNT_UPDATE),
            Entry("Security", "/settings/security", "shield", Action.PASSWORD_CHANGE),
        ),
    ),
    (
        "Workspace",
        (
            Entry("Workspace", "/settings/workspace", "layers", Action.WORKSPACE_READ),
            Entry("Members", "/settings/members", "users", Action.MEMBERSHIP_READ),
            Entry("Integrations", "/settings/integrations", "plug", Action.WORKSPACE_READ),
            Entry("Usage", "/settings/usage", "chart", Action.USAGE_READ),
            Entry("Developer", "/settings/developer", "code", Action.API_TOKEN_READ),
        ),
    ),
    (
        "Organization",
        (
            Entry("Organization", "/settings/organization", "building", Action.ORGANIZATION_UPDATE),
            Entry("Audit", "/settings/audit", "list", Action.AUDIT_READ),
            Entry("Billing", "/settings/billing", "card", Action.BILLING_READ),
        ),
    ),
)


def settings_for(actor: Actor) -> list[tuple[str, list[Entry]]]:
    """The groups and lines this actor may open."""
    groups = [(title, [entry for entry in entries if actor.may(entry.needs)]) for title, entries in SETTINGS]
    return [(title, entries) for title, entries in groups if entries]
