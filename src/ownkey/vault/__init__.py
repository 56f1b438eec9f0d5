"""Provider keys at rest.

Owns: the key encryption keys a node holds, the envelope, the rows of provider keys and their health.
Does not own: whether a provider accepts a key (``providers``), whose key serves a call (``gateway``).

Invariants
- A secret is in the database sealed or not at all; replaced and removed ones are deleted, not hidden.
- Each secret has its own data key, and both layers are bound to the row: organization, provider, address, id.
- A locked vault says why and refuses; it never makes a new key beside rows sealed with another.
- Only ``provider_keys.use`` turns a sealed row into a secret.
"""
