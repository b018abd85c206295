"""The SQL statements that create the batch tables, for administrators whose service user may not create tables."""

from __future__ import annotations

import json

from services.batches.tables import SCHEMA


def print_tables(kind: str = "mysql", *, as_json: bool = False) -> int:
    """Print the statements that create missing tables; `kind` is sqlite or mysql (also for MariaDB). Return 0."""
    made = SCHEMA.statements(kind)
    print(json.dumps(made, indent=2) if as_json else ";\n\n".join(made) + ";")
    return 0
