"""The steps of migrations. Each can be run again: it passes over what is there already.

Printed as SQL they cannot look; there MySQL's `ADD COLUMN` has no "if not exists".
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from config.errors import SettingsError


def create_table(op: Operations, table: sa.Table) -> None:
    """Create a table and its indexes.

    Raises:
        SettingsError: a table of this name exists and lacks columns.
    """
    if missing := {column.name for column in table.columns} - (_columns(op, table.name) or set(table.columns.keys())):
        raise SettingsError(
            f"SQL: the table {table.name} is of another origin, and lacks {', '.join(sorted(missing))} (rename it)"
        )
    for statement in statements(table, op.get_context().dialect.name):
        op.execute(statement)


def add_column(op: Operations, table: str, column: sa.Column[Any]) -> None:
    """Add a column to the end of a table; it may be NULL or has a server default."""
    if column.name not in _columns(op, table):
        op.add_column(table, column)


def create_index(op: Operations, index: sa.Index) -> None:
    """Create an index of a table that was made without it."""
    context = op.get_context()
    table = str(index.table.name)  # type: ignore[union-attr]
    is_sqlite = context.dialect.name == "sqlite"
    statement = CreateIndex(index, if_not_exists=is_sqlite)
    if context.as_sql and not is_sqlite:
        # MySQL has no CREATE INDEX IF NOT EXISTS.
        made = str(statement.compile(dialect=mysql.dialect()))
        here = f"table_schema = DATABASE() AND table_name = '{table}' AND index_name = '{index.name}'"
        missing = f"SELECT IF(COUNT(*) = 0, '{made}', 'DO 0') FROM information_schema.statistics WHERE {here}"  # nosec B608
        for line in (f"SET @step = ({missing})", "PREPARE step FROM @step", "EXECUTE step", "DEALLOCATE PREPARE step"):
            op.execute(line)
        return
    known = () if context.as_sql else sa.inspect(op.get_bind()).get_indexes(table)
    if index.name not in {each["name"] for each in known}:
        op.execute(statement)


def statements(table: sa.Table, kind: str) -> list[str]:
    """Return the statements that create a missing table with its indexes; `kind` is "mysql" or "sqlite"."""
    created: list[sa.schema.ExecutableDDLElement] = [CreateTable(table, if_not_exists=True)]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    if kind == "sqlite":
        dialect: Dialect = sqlite.dialect()
        created += [CreateIndex(each, if_not_exists=True) for each in indexes]
    else:
        dialect = mysql.dialect()
        dialect.ddl_compiler = partial(_MysqlTables, indexes=indexes)  # type: ignore[assignment]
    return [str(each.compile(dialect=dialect)).strip() for each in created]


def _columns(op: Operations, table: str) -> set[str]:
    """Return the columns that a table has; none if it does not exist, or if the migration is only printed."""
    bind = None if op.get_context().as_sql else op.get_bind()
    if bind is None or not sa.inspect(bind).has_table(table):
        return set()
    return {column["name"] for column in sa.inspect(bind).get_columns(table)}


class _MysqlTables(mysql.dialect.ddl_compiler):  # type: ignore[misc, name-defined]
    """Puts indexes into CREATE TABLE: MySQL has no CREATE INDEX IF NOT EXISTS."""

    def __init__(self, *args: Any, indexes: Collection[sa.Index], **options: Any) -> None:
        # Before super().__init__, which compiles.
        self._indexes = indexes
        super().__init__(*args, **options)

    def create_table_constraints(self, table: sa.Table, **options: Any) -> str:
        keys = [self._key(index) for index in self._indexes]
        return ", \n\t".join([super().create_table_constraints(table, **options), *keys])

    def _key(self, index: sa.Index) -> str:
        columns = ", ".join(map(self.preparer.quote, index.columns.keys()))
        return f"{'UNIQUE ' if index.unique else ''}KEY {index.name} ({columns})"
