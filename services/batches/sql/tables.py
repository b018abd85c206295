"""The tables of batches, for MySQL, MariaDB and SQLite.

    laibao_batch_tasks   one row per task; `served` orders the queue of tasks that are worked on
    laibao_batch_items   one row per text; `due` is when it may be asked (again), `lane` the lane that asks it
    laibao_batch_gates   one row, `submit`: submissions update it, and so wait for each other

`due` and `served` are microseconds since 1970, `paused` is the sum of finished pauses in microseconds; datetimes are in
UTC.

A transaction that changes a task or one of its items locks the task's row first. Therefore an item is claimed once, the
last one ends the task once, and ended ones do not change. Counts are computed from the items, and stored only when the
task ends. In a cancelled task, items whose status is still `pending` count as cancelled, which saves an update of ten
thousand rows. Two statuses are never shown: `arriving`, some texts are still missing, and `expiring`, the rows are
being removed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

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


_required = partial(sa.Column, nullable=False)
_optional = partial(sa.Column, nullable=True)
_count = partial(sa.Column, type_=sa.Integer, nullable=False, server_default=sa.text("0"))
_table = partial(
    sa.Table,
    mysql_engine="InnoDB",
    mysql_row_format="DYNAMIC",
    mysql_default_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
METADATA = sa.MetaData()

TASKS = _table(
    "laibao_batch_tasks",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _required("owner", Exact),
    _optional("idempotency_key", Exact),
    _required("digest", Exact),
    _required("name", ShortText),
    _required("description", ShortText),
    _required("options", Words),
    _required("credential", Words),
    _required("status", WORD),
    _optional("max_concurrent", sa.Integer),
    _required("total", sa.Integer),
    _count("completed"),
    _count("failed"),
    _required("served", BIG),
    _count("stored"),
    _count("paused", type_=BIG),
    _optional("paused_at", Utc),
    _required("created_at", Utc),
    _optional("started_at", Utc),
    _optional("ended_at", Utc),
    _required("error_message", Words),
)
ITEMS = _table(
    "laibao_batch_items",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _required("item_index", sa.Integer, primary_key=True),
    _required("question", Words),
    _required("status", WORD, server_default="pending"),
    _count("due", type_=BIG),
    _optional("lane", sa.Integer),
    _count("attempts"),
    _optional("started_at", Utc),
    _optional("ended_at", Utc),
    _optional("answer", Words),
    _optional("metadata", Json),
    _optional("sources", Json),
    _optional("spent", Json),
    _optional("error_code", WORD),
    _optional("error_message", Words),
)
GATES = _table("laibao_batch_gates", METADATA, _required("name", WORD, primary_key=True), _required("passed", BIG))


#: In the order of creation.
INDEXES = (
    sa.Index("laibao_batch_tasks_key", TASKS.c.owner, TASKS.c.idempotency_key, unique=True),
    sa.Index("laibao_batch_tasks_line", TASKS.c.status, TASKS.c.served),
    sa.Index("laibao_batch_tasks_owner", TASKS.c.owner, TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_created", TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_ended", TASKS.c.ended_at),
    sa.Index("laibao_batch_tasks_stored", TASKS.c.stored, TASKS.c.ended_at),
    sa.Index("laibao_batch_items_next", ITEMS.c.task_id, ITEMS.c.status, ITEMS.c.due, ITEMS.c.item_index),
    # Unique: a lane has one item at a time. Any number of items has NULL.
    sa.Index("laibao_batch_items_lane", ITEMS.c.lane, unique=True),
)


class _MysqlTables(mysql.dialect.ddl_compiler):  # type: ignore[misc, name-defined]
    """Puts indexes into CREATE TABLE: MySQL has no CREATE INDEX IF NOT EXISTS."""

    def create_table_constraints(self, table: sa.Table, **options: Any) -> str:
        keys = [self._key(index) for index in INDEXES if index.table is table]
        return ", \n\t".join([super().create_table_constraints(table, **options), *keys])

    def _key(self, index: sa.Index) -> str:
        columns = ", ".join(map(self.preparer.quote, index.columns.keys()))
        return f"{'UNIQUE ' if index.unique else ''}KEY {index.name} ({columns})"


def statements(kind: str) -> list[str]:
    """Return the statements that create missing tables; `kind` is "mysql" or "sqlite".

    Administrators of earlier versions call it by a documented command line; it stays for one release.
    """
    created: list[sa.schema.ExecutableDDLElement] = [
        CreateTable(each, if_not_exists=True) for each in (TASKS, ITEMS, GATES)
    ]
    if kind == "sqlite":
        dialect: Dialect = sqlite.dialect()
        created += [CreateIndex(each, if_not_exists=True) for each in INDEXES]
    else:
        dialect = mysql.dialect()
        dialect.ddl_compiler = _MysqlTables
    return [str(each.compile(dialect=dialect)).strip() for each in created]
