"""Somebody with the database in hand: what they change opens nothing, is recorded, and is paid by nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from sqlalchemy import select, update

from ownkey import audit
from ownkey.audit import AuditEntry
from ownkey.db.tables import provider_keys
from tests.fakes.provider import FakeProvider
from tests.gateway.service import Customer, Service, new_customer
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
FIRST, SECOND = "sk-first-0123456789-abcdefghijkl", "sk-second-0123456789-abcdefghijk"


def ask(service: Service, customer: Customer) -> tuple[int, bytes]:
    """A small call: its status and body."""
    with Wire(service.url) as wire:
        wire.send(post(CHAT, customer.token, chat(max_tokens=5)))
        reply = wire.reply()
        return reply.status, reply.body


async def change(service: Service, customers: list[Customer], column: str) -> None:
    """Swap a column of two rows, or point one at an address of the attacker's."""
    db, table = service.node.db, provider_keys.c
    mine = [table.organization_id == customer.actor.organization_id for customer in customers]
    async with db.transaction() as tx:
        rows = [(await tx.execute(select(provider_keys).where(own))).one() for own in mine]
        for own, other in zip(mine, reversed(rows), strict=True):
            names = ["ciphertext", "wrapped_data_key"] if column == "both" else [column]
            values = {name: other._mapping[name] for name in names}
            if column == "base_url":
                values = {"base_url": service.provider.url}
            await tx.execute(update(provider_keys).where(own).values(**values))


def refusals(service: Service, customer: Customer) -> Sequence[AuditEntry]:
    """What the audit log says of the organization's keys not opening, as soon as it does."""
    for _ in range(200):
        entries = service.do(
            lambda: audit.entries(service.node.db, customer.actor.organization_id, action="provider_key.check")
        )
        if entries:
            return entries
        time.sleep(0.01)
    return ()


@pytest.mark.parametrize("column", ["ciphertext", "wrapped_data_key", "both", "base_url"])
def test_a_changed_row_serves_nobody(service: Service, provider: FakeProvider, column: str) -> None:
    """Two rows' ciphertexts swapped, or an address edited: 503, an audit entry, nothing sent, nothing charged."""
    customers = [new_customer(service), new_customer(service)]
    for customer, key in zip(customers, (FIRST, SECOND), strict=True):
        customer.connect("openai", key)
        assert ask(service, customer)[0] == 200
    assert [one.key for one in provider.requests] == [FIRST, SECOND]
    provider.clear()
    service.do(lambda: change(service, customers, column))
    for customer in customers:
        for _ in range(3):
            status, body = ask(service, customer)
            assert status == 503
            assert b"cannot be opened" in body
        assert (customer.allowance().used, customer.allowance().reserved) == (0, 0)
        customer.check_ledger()
    assert provider.requests == []
    for customer in customers:
        entries = refusals(service, customer)
        assert {(entry.allowed, entry.detail["provider"]) for entry in entries} == {(False, "openai")}
        customer.connect("openai", FIRST)
        assert ask(service, customer)[0] == 200
