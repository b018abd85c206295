"""Access to the SQL server or the SQLite file: a bounded pool, bounded waits, our errors.

Imports floor 0 alone. Tables and queries are in the stores that own them (`services.identity`, `services.batches.sql`).
"""
