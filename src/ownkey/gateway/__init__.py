"""The data plane: an AI request in, the provider's reply out, bytes unchanged, and the books right.

Owns reading a request, choosing the provider and the key that pays, the connection to the provider, watching
the reply for its usage, and the one place where an exchange ends. Does not own the allowance and its books
(``metering``), the sealed keys (``vault``), or what is known about a provider (``providers``).

Always true:

- nothing is sent to a provider before the reservation is committed;
- an exchange is settled exactly once, whatever ends it, and before the last bytes of the reply leave;
- reply bytes are the provider's own, but for the few exceptions that the documentation lists;
- no response to a caller contains a provider key.
"""
