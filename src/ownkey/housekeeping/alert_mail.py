"""Mail the alerts about the allowance to the owner and the admins of an organization."""

from __future__ import annotations

import structlog

from ownkey import clock
from ownkey.access import Actor
from ownkey.accounts import managers, organizations, subscriptions
from ownkey.metering import alerts, allowances
from ownkey.metering.alerts import Alert
from ownkey.metering.allowances import Allowance
from ownkey.node import Node
from ownkey.settings import Settings
from ownkey.vault import provider_keys

log = structlog.get_logger(__name__)


async def mail_alerts(node: Node) -> None:
    """Mail what is due. Without a mail server nothing is: the page shows the alerts anyway.

    An alert that the server takes for nobody is tried again later; one that it takes for somebody is done.
    """
    if not node.mailer.can_send:
        return
    for _ in range(alerts.MAILS_A_ROUND):
        if (alert := await alerts.claim_unmailed(node.db)) is None:
            return
        try:
            await _mail(node, alert)
        except Exception as error:  # one organization's trouble must not be everybody's
            log.warning("an alert was not mailed", organization=alert.organization_id, error=repr(error))


async def _mail(node: Node, alert: Alert) -> None:
    actor = Actor.operator(alert.organization_id)
    organization = await organizations.by_reference(node.db, alert.organization_id)
    plan = await subscriptions.plan_of(node.db, actor, node.catalogue)
    allowance = await allowances.current(node.db, actor, plan, alert.period)
    if alerts.passed(allowance.granted, allowance.used) < alert.threshold:
        return  # a larger plan, chosen meanwhile
    keys = {key.provider for key in await provider_keys.list_keys(node.db, actor)}
    own_keys = [provider.name for slug, provider in node.providers.items() if slug in keys]
    subject = f"{organization.name} has used {_share(alert)} its AI tokens of {_month(alert)}"
    text = _text(node.settings, alert, organization.name, plan.name, allowance, own_keys)
    people = await managers.list_everywhere(node.db, actor)
    mailed = sum([await node.mailer.send(person.email, subject, text) for person in people])
    if mailed:
        await alerts.note_mailed(node.db, alert, mailed)
    log.info("alert", organization=alert.organization_id, threshold=alert.threshold, people=len(people), mailed=mailed)


def _share(alert: Alert) -> str:
    return "all" if alert.threshold == alerts.THRESHOLDS[-1] else f"{alert.threshold} % of"


def _month(alert: Alert) -> str:
    return f"{clock.period_start(alert.period):%B %Y}"


def _text(
    settings: Settings, alert: Alert, organization: str, plan: str, allowance: Allowance, own_keys: list[str]
) -> str:
    used_up = alert.threshold == alerts.THRESHOLDS[-1]
    reset = f"{clock.period_end(alert.period):%-d %B %Y}, 00:00 UTC"
    stops = "have stopped until then" if used_up else "stop when they are used up, until then"
    who = settings.key_managers.capitalize()
    parts = [
        f"{organization} has used {allowance.used:,} of the {allowance.granted:,} AI tokens that its {plan} plan "
        f"includes for {_month(alert)}.",
        f"New tokens come on {reset}. AI features that run on these tokens {stops}.",
        f"Requests to {', '.join(own_keys)} run on your own key and go on." if own_keys else "",
        "To have more before that:\n"
        f"- {who} can connect your own AI provider key: {settings.public_url}/settings/integrations\n"
        f"- The owner can choose a larger plan: {settings.public_url}/settings/billing",
        f"Who used how much: {settings.public_url}/settings/usage",
        f"The owner and the admins of {organization} on {settings.app_name} get this message once a month each when "
        "50, 80 and 100 % of the tokens are used.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
