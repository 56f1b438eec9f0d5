"""What was used, and what may still be used.

Owns usage and its charge, usage events, plans and subscriptions, the monthly allowance, reservations, settlement
and the ledger. Does not own who is asking (``accounts``, ``access.py``) or how tokens are read from a reply
(``gateway``).

Always true, after every transaction, for each organization and month:

- its usage events of the allowance and its ledger entries are one chain, in which each says what is used after it;
- granted = the sum of its grants, used = what the last entry says, reserved = the sum of its reservations;
- used + reserved never grows past granted;
- a call is charged once, to the month of its admission by the database's clock in UTC;
- a call that the organization's own key served is recorded and charged nothing.

Events and ledger entries are never changed; balances can be computed from them again.
"""
