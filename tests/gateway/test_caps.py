"""A capped member's calls, on the wire."""

from __future__ import annotations

import pytest

from ownkey.accounts import caps
from tests.fakes.provider import FakeProvider
from tests.gateway.service import Customer
from tests.gateway.wire import Wire, chat, post


@pytest.mark.parametrize("own_key", [False, True])
def test_a_call_beyond_a_cap_is_refused_before_it_is_sent(
    customer: Customer, provider: FakeProvider, own_key: bool
) -> None:
    """The refusal has the shape of the provider's errors, says who can lift the cap, and keeps SDKs from trying again.

    As soon as the cap is lifted, calls are served.
    """
    if own_key:
        customer.connect("openai", "sk-own-key-0123456789-abcdefghijklmnop")
    node, actor = customer.service.node, customer.actor

    def set_cap(tokens: int | None) -> None:
        pair = (None, tokens) if own_key else (tokens, None)
        customer.service.do(lambda: caps.set_cap(node.db, actor, "workspace", customer.created.workspace.id, *pair))

    set_cap(0)
    with Wire(customer.service.url) as wire:
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        refused = wire.reply()
        error = refused.json["error"]
        assert (refused.status, error["code"]) == (429, "cap_reached")
        assert "An admin or the owner of your organization can raise or lift the cap" in error["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert int(refused.headers["retry-after"]) > 0
        assert provider.requests == []
        set_cap(None)
        wire.send(post("/openai/v1/chat/completions", customer.token, chat()))
        assert wire.reply().status == 200
    customer.check_ledger()
