"""Where an organization stands with AI this month, and what this person can do when it stops: for several pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ownkey.access import Action
from ownkey.accounts import managers, subscriptions
from ownkey.accounts.sessions import SignedIn
from ownkey.metering import alerts, allowances
from ownkey.metering.allowances import Allowance
from ownkey.node import Node
from ownkey.plans import Plan
from ownkey.providers.provider import Provider
from ownkey.vault import provider_keys
from ownkey.vault.provider_keys import ProviderKey


@dataclass(frozen=True, slots=True)
class Standing:
    """The plan, this month's allowance, the providers that own keys serve, and the way out for this person.

    ``is_offered`` is whether the operator still has the plan; without it nothing is served, on own keys neither.
    ``managers`` are the people to ask; empty for somebody who can act alone. ``failing`` are the keys that such a
    somebody should look at, each with its provider.
    """

    plan: Plan
    is_offered: bool
    allowance: Allowance
    own_keys: Sequence[str]
    may_connect_key: bool
    may_change_plan: bool
    managers: Sequence[str]
    failing: Sequence[tuple[Provider, ProviderKey]]

    @property
    def threshold(self) -> int:
        """The highest threshold of use that is passed, in per cent; 0 below the first."""
        return alerts.passed(self.allowance.granted, self.allowance.used)

    @property
    def is_without_tokens(self) -> bool:
        """Whether AI waits for another plan or a key: the plan has no tokens in any month, and no own key serves."""
        return not self.is_offered or (not self.plan.monthly_tokens and not self.own_keys)

    @property
    def is_stopped(self) -> bool:
        """Whether AI waits for the reset: the allowance is used up, and no own key serves anything."""
        return self.allowance.exhausted and not self.own_keys


async def of(node: Node, signed_in: SignedIn) -> Standing:
    """The standing of the active workspace's organization."""
    actor, managed_by = signed_in.actor, node.settings.keys_managed_by
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    keys = {key.provider: key for key in await provider_keys.list_keys(node.db, actor)}
    may_connect_key = provider_keys.may_manage(actor, managed_by)
    people = [] if may_connect_key else await managers.list_managers(node.db, actor, owner_only=managed_by == "owner")
    return Standing(
        plan=plan,
        is_offered=plan.code in node.catalogue,
        allowance=await allowances.current(node.db, actor, plan),
        own_keys=[provider.name for slug, provider in node.providers.items() if slug in keys],
        may_connect_key=may_connect_key,
        may_change_plan=actor.may(Action.SUBSCRIPTION_CHANGE),
        managers=[person.label for person in people],
        failing=[
            (node.providers[slug], key)
            for slug, key in keys.items()
            if may_connect_key and key.health.is_trouble and slug in node.providers
        ],
    )
