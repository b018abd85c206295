"""Checks SQL in every AUTH_MODE: that the login works, and that batches and ratings have their tables and rights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from config.settings import Settings
from services.batches.tables import SCHEMA as BATCHES
from services.errors import StoreUnavailable
from services.feedback.sql_store import SCHEMA as RATINGS
from services.sql.database import SqlDatabase
from services.sql.schema import Schema
from tools._doctor.checks import Finding, explained

#: Remedies of a failed connection, by MySQL's error numbers.
CONNECTING = (
    ("1045", "correct MYSQL_USER and MYSQL_PASSWORD, and let the user log in from this host"),
    ("1698", "let MYSQL_USER log in with a password"),
    ("1130", "let MYSQL_USER log in from this host"),
    ("1044", "give MYSQL_USER its rights in MYSQL_DATABASE"),
    ("1049", "correct MYSQL_DATABASE: there is no such database"),
    ("2003", "start MySQL, or correct MYSQL_HOST (MYSQL_READ_HOST) and MYSQL_PORT"),
    ("2006", "see that MySQL is not hung, and its log"),
    ("2013", "see that MySQL is not hung, and its log"),
)
#: Rights on existing tables.
ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<where>\S+) TO ")


def check_sql(settings: Settings, url: str) -> Iterator[Finding]:
    """Yield the findings on the database of batches and ratings; only one if it does not answer."""
    if settings.database_path and not Path(settings.database_path).is_file():
        # Opening it would create an empty file.
        yield Finding("sql", "ok", f"the first start creates {settings.database_path}")
        return
    with closing(SqlDatabase(url, pool_size=1, writes=True)) as database:
        try:
            grants = database.read(lambda connection: _grants(connection, database.kind))
        except StoreUnavailable as exc:
            text = cause(exc)
            yield Finding("sql", "failed", text, explained(text, CONNECTING, "see the settings of SQL"))
            return
        yield Finding("sql", "ok", "answers")
        rights = granted(grants, settings.mysql_database)
        if settings.batch_enabled:
            yield _tables("batch tables", BATCHES, database, rights)
        yield _tables("ratings table", RATINGS, database, rights)


def cause(exc: StoreUnavailable) -> str:
    """Return the error and the database's own message, which names the table or the host."""
    words = getattr(getattr(exc.__cause__, "orig", None), "args", ())
    return f"{exc} ({words[-1]})" if words else str(exc)


def _grants(connection: sa.Connection, kind: str) -> list[str]:
    if kind == "sqlite":
        connection.execute(sa.select(1))
        return []
    return [str(line) for line in connection.execute(sa.text("SHOW GRANTS")).scalars()]


def granted(grants: Iterable[str], database: str) -> Collection[str] | None:
    """Return the rights in a database by the lines of SHOW GRANTS; None if they cannot be told: roles, no lines."""
    found: set[str] = set()
    for line in grants:
        grant = _GRANT.match(line)
        if grant is None:
            return None
        if grant["where"] == "*.*" or grant["where"].replace("\\", "") == f"`{database}`.*":
            found.update(right.strip() for right in grant["rights"].split(","))
    if not found or "ALL PRIVILEGES" in found:
        return None
    return found


def _tables(check: str, schema: Schema, database: SqlDatabase, rights: Collection[str] | None) -> Finding:
    """Judge the tables of a feature. Nothing is created here."""
    lacking = schema.lacking(database)
    needed = [*ROWS, "CREATE"] if lacking else ROWS
    if missing := [right for right in needed if rights is not None and right not in rights]:
        text = f"{lacking} is missing or of another version, and " if lacking else ""
        remedy = f"GRANT {', '.join(missing)} ON MYSQL_DATABASE.* TO MYSQL_USER"
        return Finding(
            check, "failed", f"{text}MYSQL_USER may not {', '.join(missing)}", f"{remedy}; or {schema.remedy}"
        )
    return Finding(check, "ok", "the first start creates them" if lacking else "complete")
