"""The statements that create the batches' tables, for an administrator to run where the service's own user may not."""

from __future__ import annotations

from services.batches.sql.tables import statements


def print_tables(kind: str = "mysql") -> int:
    """Print what creates the missing tables; `kind` is sqlite, or mysql for MariaDB too. Return 0."""
    print(*statements(kind), sep=";\n\n", end=";\n")
    return 0
