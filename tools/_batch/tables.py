"""The SQL statements that create the batch tables, for administrators whose service user may not create tables."""

from __future__ import annotations

from services.batches.sql.tables import statements


def print_tables(kind: str = "mysql") -> int:
    """Print the statements that create missing tables; `kind` is sqlite or mysql (also for MariaDB). Return 0."""
    print(*statements(kind), sep=";\n\n", end=";\n")
    return 0
