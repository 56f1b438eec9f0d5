"""The command line: ``ownkey serve`` and what an operator does beside it.

Owns the command tree, its tables for people and its JSON for programs. Does not own a rule: commands call the
domains as ``Actor.operator()`` and are audited like anyone.

Always true: exit 0 on success, 1 on a refusal in one sentence on standard error, 2 on bad usage; with ``--json``
exactly one JSON document on standard output, or a line for each usage event; a secret is read from standard input,
never from an argument.
"""
