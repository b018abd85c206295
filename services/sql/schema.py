"""Tables that mean the same in MySQL, MariaDB and SQLite: their column types, and the revision that this version needs.

The stores declare their tables here, in `METADATA`; `migrations/` has the steps that lead a database to them. A type
that a migration uses keeps its meaning: a change of it is a new type and a migration.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator

#: The newest migration. Revisions are numbers of four digits, in order.
HEAD = "0005"
#: The table with the database's revision, in one row.
VERSION_TABLE = "laibao_schema"

#: Bytes of a `Name`.
NAME_BYTES = 255

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


class Name(Exact):
    """A name compared byte for byte, cut to `NAME_BYTES` of UTF-8, so that it fits into a key."""

    impl = sa.LargeBinary().with_variant(mysql.VARBINARY(NAME_BYTES), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        if value is None:
            return None
        return value.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore").encode()


class Money(TypeDecorator[Decimal]):
    """An exact amount with nine decimal places; SQLite has a whole number of billionths."""

    impl = sa.BigInteger().with_variant(mysql.DECIMAL(24, 9), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name != "sqlite" else int(value.scaleb(9))

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return value if value is None or dialect.name != "sqlite" else Decimal(value).scaleb(-9)


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


#: The tables of all stores.
METADATA = sa.MetaData()
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
