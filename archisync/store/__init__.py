"""What archisync keeps in PostgreSQL: one module for each noun, its SQL beside the functions that run it.

Statements are module constants named `SQL_…`, each with its purpose, its caller and the locks it takes; a test prepares every one of
them on a real server. No function here commits: each is one statement in autocommit mode, or runs in its caller's transaction.
"""
