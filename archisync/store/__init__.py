"""Everything that archisync keeps in PostgreSQL: one module a table, its SQL beside the functions that run it.

Statements are module constants named `SQL_…`, each with its purpose, caller and locks; a test prepares every one of them on
a real server. No function here commits: each is one statement in autocommit mode, or runs in its caller's transaction.
"""
