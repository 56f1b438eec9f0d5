"""``ownkey demo``: the whole product in a throw-away folder, with a provider that is made up.

Owns the simulated provider and the seeded organization. Does not own a special way through the product: the seed
is made by the functions the pages use, and the provider is reached over HTTP like any other.

Always true: no account, no key and no network is needed, and nothing stays behind.
"""
