"""Tables that mean the same in MySQL, MariaDB and SQLite: their column types, and how missing ones are created."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

from config.errors import SettingsError
from services.sql.database import SqlDatabase, SqlFailed

#: Error numbers of a missing table or column: MySQL's, those of its missing rights to look, and SQLite's only one.
MISSING = (1146, 1054, 1142, 1143, 1)

_MYSQL = ("mysql", "mariadb")
_ascii = {"charset": "ascii", "collation": "ascii_bin"}

ID = sa.Text().with_variant(mysql.CHAR(36, **_ascii), *_MYSQL)
WORD = sa.Text().with_variant(mysql.VARCHAR(64, **_ascii), *_MYSQL)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Exact(TypeDecorator[str]):
    """Text compared byte for byte: a collation could take the names of two persons for equal."""

    impl = sa.LargeBinary().with_variant(mysql.VARBINARY(512), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.decode()


class Words(TypeDecorator[str]):
    """Text of any length; a half surrogate pair becomes a question mark."""

    impl = sa.UnicodeText().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else self.written(value)

    @staticmethod
    def written(text: str) -> str:
        return text.encode("utf-8", "replace").decode()


class ShortText(Words):
    """Text of at most 2,000 characters."""

    impl = sa.UnicodeText().with_variant(mysql.VARCHAR(2000), *_MYSQL)
    cache_ok = True


class Json(TypeDecorator[Any]):
    """A value as JSON; NULL is an empty object."""

    impl = Words.impl
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        # A half surrogate pair could be stored escaped, but not be written into a file or reply.
        return Words.written(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return json.loads(value) if value else {}


class Utc(TypeDecorator[datetime]):
    """An aware time, stored in UTC without a time zone."""

    impl = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


@compiles(Utc, "sqlite")
def _sqlite_time(_time: Utc, _compiler: Any, **_options: Any) -> str:
    # SQLAlchemy stores it as text; its column type DATETIME would have numeric affinity in SQLite.
    return "TEXT"


#: Columns and tables with the properties that all of ours share.
required = partial(sa.Column, nullable=False)
optional = partial(sa.Column, nullable=True)
count = partial(sa.Column, type_=sa.Integer, nullable=False, server_default=sa.text("0"))
table = partial(
    sa.Table,
    mysql_engine="InnoDB",
    mysql_row_format="DYNAMIC",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)


class _MysqlTables(mysql.dialect.ddl_compiler):  # type: ignore[misc, name-defined]
    """Puts indexes into CREATE TABLE: MySQL has no CREATE INDEX IF NOT EXISTS."""

    def __init__(self, *args: Any, indexes: Collection[sa.Index], **options: Any) -> None:
        # Before super().__init__, which compiles.
        self._indexes = indexes
        super().__init__(*args, **options)

    def create_table_constraints(self, table: sa.Table, **options: Any) -> str:
        keys = [self._key(index) for index in self._indexes if index.table is table]
        return ", \n\t".join([super().create_table_constraints(table, **options), *keys])

    def _key(self, index: sa.Index) -> str:
        columns = ", ".join(map(self.preparer.quote, index.columns.keys()))
        return f"{'UNIQUE ' if index.unique else ''}KEY {index.name} ({columns})"


class Schema(NamedTuple):
    """The tables of one feature in the order of creation, and the words about them in errors."""

    tables: Sequence[sa.Table]
    indexes: Sequence[sa.Index]
    #: With its verb, for an error: "batch tables are".
    name: str
    #: Begins an error: the setting or the feature.
    subject: str
    #: The action for an administrator.
    remedy: str

    def statements(self, kind: str) -> list[str]:
        """Return the statements that create missing tables and indexes; `kind` is "mysql" or "sqlite"."""
        created: list[sa.schema.ExecutableDDLElement] = [CreateTable(each, if_not_exists=True) for each in self.tables]
        if kind == "sqlite":
            dialect: Dialect = sqlite.dialect()
            created += [CreateIndex(each, if_not_exists=True) for each in self.indexes]
        else:
            dialect = mysql.dialect()
            dialect.ddl_compiler = partial(_MysqlTables, indexes=self.indexes)  # type: ignore[assignment]
        return [str(each.compile(dialect=dialect)).strip() for each in created]

    def create_missing(self, database: SqlDatabase) -> None:
        """Create missing tables; safe to run again, and in many processes at once.

        It checks first: MySQL rejects CREATE TABLE IF NOT EXISTS, even for an existing table, without the right to
        create.

        Raises:
            SettingsError: tables are missing or of another version, and this SQL user cannot create or change them.
            StoreUnavailable: the database is away.
        """
        if not self.lacking(database):
            return
        self._create(database)
        if lacking := self.lacking(database):
            raise SettingsError(f"{self.subject}: the table {lacking} is not as this version needs it ({self.remedy})")

    def lacking(self, database: SqlDatabase) -> str:
        """Return the name of the first table that lacks columns or does not exist; "" if there is none."""
        for table in self.tables:
            nothing = sa.select(table).where(sa.false())
            try:
                database.read(lambda connection, nothing=nothing: connection.execute(nothing).all())  # type: ignore[misc]
            except SqlFailed as exc:
                if exc.number not in MISSING:
                    raise
                return table.name
        return ""

    def _create(self, database: SqlDatabase) -> None:
        def create(connection: sa.Connection) -> None:
            for statement in self.statements(database.kind):
                connection.exec_driver_sql(statement)

        try:
            database.transact(create)
        except SqlFailed as exc:
            if exc.number not in MISSING:
                raise
            missing = f"the {self.name} missing and this SQL user may not create them"
            raise SettingsError(f"{self.subject}: {missing} ({self.remedy})") from exc
