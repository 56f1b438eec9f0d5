"""Who may make AI calls, and which calls can be served: what is decided before any token is counted."""

from __future__ import annotations

from ownkey.access import Role
from ownkey.errors import Forbidden, NotAuthenticated, OwnkeyError, ProviderNotAvailable
from ownkey.metering.reservations import Admit
from ownkey.metering.store import CallerRow
from ownkey.plans import Plan

GATEWAY_SCOPE = "gateway"


def refusal_of(row: CallerRow, plan: Plan) -> OwnkeyError | None:
    """Why a known caller may not make AI calls, or None. A token is bound to the rights of the person who made it."""
    if row.revoked or row.user_disabled:
        return NotAuthenticated()
    if row.suspended or row.archived:
        return Forbidden("This organization or workspace is suspended. Ask its owner.")
    role = Role.OWNER if row.is_owner else Role.of(row.role) if row.role else None
    if not row.caller.token_hash:
        return None if role else Forbidden("You are no longer a member of this workspace.")
    if row.user_id is not None and (role is None or role < Role.DEVELOPER):
        return NotAuthenticated("The person who made this API token may no longer use one. Ask an admin for a new one.")
    if GATEWAY_SCOPE not in row.scopes.split():
        return Forbidden(f"This API token lacks the scope {GATEWAY_SCOPE!r}. Generate one that has it.")
    if not plan.api_access:
        return Forbidden(f"The {plan.name} plan does not include API access. The owner can change it under Billing.")
    return None


def not_on_allowance(command: Admit) -> OwnkeyError | None:
    """Why a call without an own key cannot be served at all, whatever is left; None if it can."""
    if not command.has_platform_key:
        return ProviderNotAvailable(
            f"There is no {command.provider} key here; {command.key_managers} of your organization can connect one "
            "under Settings → Integrations."
        )
    if command.own_key_only:
        return Forbidden(
            f"{command.own_key_only} For that, {command.key_managers} of your organization can connect its own key "
            "under Settings → Integrations."
        )
    return None
