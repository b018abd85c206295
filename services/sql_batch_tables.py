"""The tables of the batches, written once for MySQL, MariaDB and SQLite.

    laibao_batch_tasks   one row per task; `served` is its place in the line of those that are worked
    laibao_batch_items   one row per text; `due` is when it may be asked (again), `lane` who asks it
    laibao_batch_gates   one row, `submit`: who adds a task goes through it, one after the other

`due` and `served` are microseconds since 1970, `paused` those of pauses that are over; the times of day are UTC.

Whoever changes a task or one of its items locks the task's row first. All else follows from that one rule: an item is
claimed once, the last one ends the task once, and what has ended stays as it is. Counts are counted, and written down
only when the task ends. In a task that was cancelled, items that still say `pending` count as cancelled: ten thousand
rows need not be written for it. Two statuses are never shown: `arriving`, some of its texts are not here yet, and
`expiring`, its rows are being removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

#: What each database calls the kinds of column.
KINDS = {
    "sqlite": {
        "id": "TEXT", "exact": "BLOB", "word": "TEXT", "line": "TEXT", "text": "TEXT",
        "int": "INTEGER", "big": "INTEGER", "time": "TEXT",
    },
    "mysql": {
        "id": "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin",
        # Bytes: to a collation, other letters may be the same person's.
        "exact": "VARBINARY(512)",
        "word": "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin",
        "line": "VARCHAR(2000)",
        "text": "MEDIUMTEXT",
        "int": "INT", "big": "BIGINT", "time": "DATETIME(6)",
    },
}  # fmt: skip
MYSQL_OPTIONS = " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"


@dataclass(frozen=True)
class Layout:
    """A table: its columns with their kinds and what follows, its primary key, and its indexes by name."""

    name: str
    columns: dict[str, str]
    primary: str
    indexes: dict[str, str]
    unique: tuple[str, ...] = ()

    def statements(self, kind: str) -> Iterator[str]:
        """Yield what creates it where it is missing."""
        lines = [f"  {name} {self._column(kind, rest)}" for name, rest in self.columns.items()]
        lines.append(f"  PRIMARY KEY ({self.primary})")
        if kind == "mysql":
            # In the same statement: MySQL has no CREATE INDEX IF NOT EXISTS.
            lines += [f"  {self._unique(name)}KEY {name} ({columns})" for name, columns in self.indexes.items()]
        options = MYSQL_OPTIONS if kind == "mysql" else ""
        yield f"CREATE TABLE IF NOT EXISTS {self.name} (\n" + ",\n".join(lines) + f"\n){options}"
        if kind == "sqlite":
            for name, columns in self.indexes.items():
                yield f"CREATE {self._unique(name)}INDEX IF NOT EXISTS {name} ON {self.name} ({columns})"

    def _column(self, kind: str, rest: str) -> str:
        word, _, more = rest.partition(" ")
        return f"{KINDS[kind][word]} {more}"

    def _unique(self, index: str) -> str:
        return "UNIQUE " if index in self.unique else ""


LAYOUTS = (
    Layout(
        "laibao_batch_tasks",
        {
            "task_id": "id NOT NULL",
            "owner": "exact NOT NULL",
            "idempotency_key": "exact NULL",
            "digest": "exact NOT NULL",
            "name": "line NOT NULL",
            "description": "line NOT NULL",
            "options": "text NOT NULL",
            "credential": "text NOT NULL",
            "status": "word NOT NULL",
            "max_concurrent": "int NULL",
            "total": "int NOT NULL",
            "completed": "int NOT NULL DEFAULT 0",
            "failed": "int NOT NULL DEFAULT 0",
            "served": "big NOT NULL",
            "stored": "int NOT NULL DEFAULT 0",
            "paused": "big NOT NULL DEFAULT 0",
            "paused_at": "time NULL",
            "created_at": "time NOT NULL",
            "started_at": "time NULL",
            "ended_at": "time NULL",
            "error_message": "text NOT NULL",
        },
        "task_id",
        {
            "laibao_batch_tasks_key": "owner, idempotency_key",
            "laibao_batch_tasks_line": "status, served",
            "laibao_batch_tasks_owner": "owner, created_at",
            "laibao_batch_tasks_created": "created_at",
            "laibao_batch_tasks_ended": "ended_at",
            "laibao_batch_tasks_stored": "stored, ended_at",
        },
        ("laibao_batch_tasks_key",),
    ),
    Layout(
        "laibao_batch_items",
        {
            "task_id": "id NOT NULL",
            "item_index": "int NOT NULL",
            "question": "text NOT NULL",
            "status": "word NOT NULL DEFAULT 'pending'",
            "due": "big NOT NULL DEFAULT 0",
            "lane": "int NULL",
            "attempts": "int NOT NULL DEFAULT 0",
            "started_at": "time NULL",
            "ended_at": "time NULL",
            "answer": "text NULL",
            "metadata": "text NULL",
            "sources": "text NULL",
            "spent": "text NULL",
            "error_code": "word NULL",
            "error_message": "text NULL",
        },
        "task_id, item_index",
        {
            "laibao_batch_items_next": "task_id, status, due, item_index",
            "laibao_batch_items_lane": "lane",
        },
        # A lane has one item at a time; any number has no lane.
        ("laibao_batch_items_lane",),
    ),
    Layout("laibao_batch_gates", {"name": "word NOT NULL", "passed": "big NOT NULL"}, "name", {}),
)


def statements(kind: str) -> list[str]:
    """Return what creates every table that is missing; `kind` is mysql or sqlite."""
    return [statement for layout in LAYOUTS for statement in layout.statements(kind)]


class Exact(TypeDecorator[str]):
    """Text that is the same only byte for byte."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.decode()


class Words(TypeDecorator[str]):
    """Text of any length; half a surrogate pair, which is no character, becomes a question mark."""

    impl = sa.UnicodeText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else self.written(value)

    @staticmethod
    def written(text: str) -> str:
        return text.encode("utf-8", "replace").decode()


class Json(TypeDecorator[Any]):
    """A value as JSON; NULL is an empty object."""

    impl = sa.UnicodeText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        # Half a surrogate pair could be stored escaped, and then not be written into any file or reply.
        return Words.written(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return json.loads(value) if value else {}


class Utc(TypeDecorator[datetime]):
    """An aware time, stored as UTC without saying so."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


_TYPES: dict[str, Any] = {
    "id": sa.String, "word": sa.String, "exact": Exact, "line": Words, "text": Words,
    "int": sa.Integer, "big": sa.BigInteger, "time": Utc,
}  # fmt: skip


def _table(layout: Layout, *json_columns: str) -> sa.TableClause:
    kinds = {name: _TYPES[rest.split()[0]] for name, rest in layout.columns.items()}
    kinds.update(dict.fromkeys(json_columns, Json))
    return sa.table(layout.name, *(sa.column(name, kind()) for name, kind in kinds.items()))


TASKS = _table(LAYOUTS[0])
ITEMS = _table(LAYOUTS[1], "metadata", "sources", "spent")
GATES = _table(LAYOUTS[2])
