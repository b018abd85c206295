"""Access to the SQL server or the SQLite file: a bounded pool, timeouts, one tree of errors.

Imports only floor 2. Tables and queries are in the stores that own them; `migrator.py` leads a database to these tables
at the start, by the steps in `migrations/`.
"""
