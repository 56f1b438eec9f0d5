"""The AI companies: one row each, what their refusals mean, and how to ask about a key.

Owns the addresses, credential headers and key formats of providers, the classification of their failures, and
the check of a key that spends no token. Does not own a stored key (``vault``) or the relay (``gateway``).

Always true: adding a provider is adding a row; a key leaves this package only towards its own provider, and is
removed from whatever the provider says about it.
"""
