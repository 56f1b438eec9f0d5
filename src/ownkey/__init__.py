"""Ownkey: AI for a whole organization, on a monthly token allowance or on the organization's own provider keys.

Four surfaces (``gateway``, ``web``, ``api``, ``cli``) call three domains (``accounts``, ``vault``, ``metering``),
which stand on a small foundation; imports point down. Each package says in its own docstring what it owns,
what it does not, and what always holds. ``app.py`` puts everything together.
"""
