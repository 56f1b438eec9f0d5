"""Who is acting, and the one table of who may do what.

An action is a permission and an audit word at once: ``provider_key.add`` is checked before the change
and written in the audit entry with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Literal


class Role(IntEnum):
    """A person's standing in a workspace; each includes the ones below. Owner is the organization's."""

    USER = 1
    DEVELOPER = 2
    ADMIN = 3
    OWNER = 4

    @property
    def label(self) -> str:
        """The name people see: User, Developer, Admin, Owner."""
        return self.name.capitalize()

    @property
    def word(self) -> str:
        """The name in tables, commands and the management API: user, developer, admin, owner."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """The role with this word; raises ``KeyError`` if there is none."""
        return cls[word.upper()]


class Action(StrEnum):
    """Something an actor may do, and the word the audit log has for it."""

    ASSISTANT_USE = "assistant.use"
    USAGE_READ = "usage.read"
    WORKSPACE_READ = "workspace.read"
    ACCOUNT_UPDATE = "account.update"
    PASSWORD_CHANGE = "password.change"
    SESSION_SIGN_IN = "session.sign_in"
    SESSION_REVOKE = "session.revoke"
    API_TOKEN_READ = "api_token.read"
    API_TOKEN_CREATE = "api_token.create"
    API_TOKEN_RENAME = "api_token.rename"
    API_TOKEN_REVOKE = "api_token.revoke"
    WORKSPACE_UPDATE = "workspace.update"
    WORKSPACE_CREATE = "workspace.create"
    MEMBERSHIP_READ = "membership.read"
    MEMBERSHIP_ADD = "membership.add"
    MEMBERSHIP_CHANGE_ROLE = "membership.change_role"
    MEMBERSHIP_REMOVE = "membership.remove"
    CAP_SET = "cap.set"
    CAP_REMOVE = "cap.remove"
    INVITATION_CREATE = "invitation.create"
    INVITATION_REVOKE = "invitation.revoke"
    PROVIDER_KEY_ADD = "provider_key.add"
    PROVIDER_KEY_REPLACE = "provider_key.replace"
    PROVIDER_KEY_SET_FALLBACK = "provider_key.set_fallback"
    PROVIDER_KEY_REMOVE = "provider_key.remove"
    PROVIDER_KEY_CHECK = "provider_key.check"
    ORGANIZATION_UPDATE = "organization.update"
    AUDIT_READ = "audit.read"
    BILLING_READ = "billing.read"
    SUBSCRIPTION_CHANGE = "subscription.change"
    ORGANIZATION_CREATE = "organization.create"
    VAULT_ROTATE = "vault.rotate"

    @property
    def noun(self) -> str:
        """What the action is about: the part before the dot."""
        return self.value.split(".")[0]


LOWEST_ROLE: Mapping[Action, Role | None] = {
    # None: the operator only.
    Action.ASSISTANT_USE: Role.USER,
    Action.USAGE_READ: Role.USER,
    Action.WORKSPACE_READ: Role.USER,
    Action.ACCOUNT_UPDATE: Role.USER,
    Action.PASSWORD_CHANGE: Role.USER,
    Action.SESSION_SIGN_IN: Role.USER,
    Action.SESSION_REVOKE: Role.USER,
    Action.API_TOKEN_READ: Role.DEVELOPER,
    Action.API_TOKEN_CREATE: Role.DEVELOPER,
    Action.API_TOKEN_RENAME: Role.DEVELOPER,
    Action.API_TOKEN_REVOKE: Role.DEVELOPER,
    Action.WORKSPACE_UPDATE: Role.ADMIN,
    Action.WORKSPACE_CREATE: Role.ADMIN,
    Action.MEMBERSHIP_READ: Role.ADMIN,
    Action.MEMBERSHIP_ADD: Role.ADMIN,
    Action.MEMBERSHIP_CHANGE_ROLE: Role.ADMIN,
    Action.MEMBERSHIP_REMOVE: Role.ADMIN,
    Action.CAP_SET: Role.ADMIN,
    Action.CAP_REMOVE: Role.ADMIN,
    Action.INVITATION_CREATE: Role.ADMIN,
    Action.INVITATION_REVOKE: Role.ADMIN,
    Action.PROVIDER_KEY_ADD: Role.ADMIN,
    Action.PROVIDER_KEY_REPLACE: Role.ADMIN,
    Action.PROVIDER_KEY_SET_FALLBACK: Role.ADMIN,
    Action.PROVIDER_KEY_REMOVE: Role.ADMIN,
    Action.PROVIDER_KEY_CHECK: Role.ADMIN,
    Action.ORGANIZATION_UPDATE: Role.ADMIN,
    Action.AUDIT_READ: Role.ADMIN,
    Action.BILLING_READ: Role.OWNER,
    Action.SUBSCRIPTION_CHANGE: Role.OWNER,
    Action.ORGANIZATION_CREATE: None,
    Action.VAULT_ROTATE: None,
}

ActorKind = Literal["user", "api_token", "operator"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is acting: a signed-in user or an API token in one workspace, or the operator.

    ``organization_id`` bounds everything the actor can see; it is empty for an operator acting on
    the whole installation.
    """

    kind: ActorKind
    id: str
    label: str
    organization_id: str = ""
    workspace_id: str = ""
    role: Role | None = None
    user_id: str | None = None
    scopes: frozenset[str] = frozenset()

    @classmethod
    def operator(cls, organization_id: str = "", workspace_id: str = "") -> Actor:
        """The person at the command line of the machine; may do everything and is audited like anyone."""
        return cls("operator", "operator", "Operator", organization_id, workspace_id)

    def may(self, action: Action) -> bool:
        """Whether this actor's role reaches the action's."""
        if self.kind == "operator":
            return True
        lowest = LOWEST_ROLE[action]
        return lowest is not None and self.role is not None and self.role >= lowest
