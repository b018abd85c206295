"""Databases with the product's tables, for tests of stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import sqlalchemy as sa

from services.sql.migrator import LOCK, Migrator


def migrated(url: str) -> str:
    """Make the tables as a start does; return the URL."""
    with closing(Migrator(url)) as migrator:
        migrator.run(60.0)
    return url


@contextmanager
def migrating(url: str) -> Iterator[None]:
    """Hold the lock of migrations as another process does."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            assert connection.scalar(LOCK, {"seconds": 10}) == 1
        yield
    engine.dispose()
