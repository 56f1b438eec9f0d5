"""People, organizations, and the credentials we issue.

Owns: users, sessions, one-time links, organizations, workspaces, memberships, invitations, API tokens,
subscriptions. Does not own: provider keys (``vault``), tokens used (``metering``), what a role may do (``access``).

Invariants
- An organization always has exactly one owner, who has no membership: ownership is the organization's, roles are the
  workspace's.
- What somebody may do is read at every request; nothing here is cached.
- Of every credential we issue only a hash is kept. Links and invitations work once.
- Nobody but the operator gets hold of a credential for a person who already stands in another organization.
"""
