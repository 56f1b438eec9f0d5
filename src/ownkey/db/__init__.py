"""The database: connections, transactions, tables, migrations, and word to other processes of what changed.

Owns the difference between SQLite and PostgreSQL, which shows nowhere above except in the few statements of
``metering``. Does not own any query about a noun: those stand beside the noun's rules, in its domain.

Always true: every tenant-owned table carries ``organization_id``; a row that names a workspace names it together
with its organization; times are UTC; both engines have the same tables, from the same migrations.
"""
