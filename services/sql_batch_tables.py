"""Former name, for one release: administrators print the tables' statements by `python -m tools.batch tables`."""

from services.batches.sql.tables import statements

__all__ = ["statements"]
