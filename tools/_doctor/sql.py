"""Checks SQL in every AUTH_MODE: that the login works, and that the gateway has its tables and its rights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from config.settings import Settings
from services.errors import StoreUnavailable
from services.ops.remedies import SQL, cause, explained
from services.sql.database import SqlDatabase
from services.sql.migrator import Migrator, remedy, state_of
from services.sql.schema import HEAD
from tools._doctor.checks import Finding

#: Rights on existing tables.
ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
#: Rights that a migration needs beside those.
CHANGES = ("CREATE", "ALTER", "INDEX")

_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<where>\S+) TO ")


def check_sql(settings: Settings, url: str) -> Iterator[Finding]:
    """Yield the findings on the database and its tables; only one if it does not answer."""
    if settings.database_path and not Path(settings.database_path).is_file():
        # Opening it would create an empty file.
        yield Finding("sql", "ok", f"the first start creates {settings.database_path}")
        return
    with closing(SqlDatabase(url, pool_size=1, writes=True)) as database:
        try:
            grants = database.read(lambda connection: _grants(connection, database.kind))
        except StoreUnavailable as exc:
            text = cause(exc)
            yield Finding("sql", "failed", text, explained(text, SQL, "see the settings of SQL"))
            return
        yield Finding("sql", "ok", "answers")
        rights = granted(grants, settings.mysql_database)
        with closing(Migrator(url)) as migrator:
            yield _tables(migrator.revision(), rights)


def _grants(connection: sa.Connection, kind: str) -> list[str]:
    if kind == "sqlite":
        connection.execute(sa.select(1))
        return []
    return [str(line) for line in connection.execute(sa.text("SHOW GRANTS")).scalars()]


def granted(grants: Iterable[str], database: str) -> Collection[str] | None:
    """Return the rights in a database by the lines of SHOW GRANTS.

    None if they cannot be told: roles, rights on single tables, no lines.
    """
    found: set[str] = set()
    for line in grants:
        grant = _GRANT.match(line)
        if grant is None:
            return None
        where = grant["where"].replace("\\", "")
        if where.startswith(f"`{database}`.`"):
            return None
        if where == "*.*" or where == f"`{database}`.*":
            found.update(right.strip() for right in grant["rights"].split(","))
    if not found or "ALL PRIVILEGES" in found:
        return None
    return found


def _tables(revision: str, rights: Collection[str] | None) -> Finding:
    """Judge the tables by their revision. Nothing is created here."""
    state = state_of(revision)
    needed = {"behind": [*ROWS, *CHANGES] if revision else [*ROWS, "CREATE"], "head": ROWS, "newer": ROWS}[state]
    if missing := [right for right in needed if rights is not None and right not in rights]:
        grant = f"GRANT {', '.join(missing)} ON MYSQL_DATABASE.* TO MYSQL_USER"
        other = "" if set(missing) <= set(ROWS) else f"; or {remedy(revision)}"
        return Finding("tables", "failed", f"MYSQL_USER may not {', '.join(missing)}", f"{grant}{other}")
    if state == "behind":
        if not revision:
            return Finding("tables", "ok", "the first start creates them")
        return Finding("tables", "ok", f"of revision {revision}; the next start brings them to {HEAD}")
    return Finding("tables", "ok", "complete" if state == "head" else f"of the newer revision {revision}")
