"""The versions of rules that administrators have saved, for MySQL, MariaDB and SQLite.

laibao_rules   one row per version of a kind, numbered from 1; the newest is in force, and the newest `KEPT` stay
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa

from services.admin.sql_store import Act, record_act
from services.rules.stored_rules import Version
from services.sql.database import SqlDatabase, SqlFailed
from services.sql.schema import METADATA, WORD, Name, ShortText, Utc, Words, optional, required, table

#: Versions of a kind that are kept.
KEPT = 200
#: Error numbers of a table that is not there, or that this login may not read: MySQL's, and SQLite's.
ABSENT = (1146, 1142, 1)
#: Seconds of a wait for the database: questions wait for a replica's first look.
WAIT_SECONDS = 2.0

RULES = table(
    "laibao_rules",
    METADATA,
    required("kind", WORD, primary_key=True),
    required("number", sa.Integer, primary_key=True, autoincrement=False),
    required("text", Words),
    required("saved_at", Utc),
    required("saved_by", Name),
    optional("note", ShortText),
    optional("restores", sa.Integer),
)
_VERSION = tuple(RULES.c[name] for name in Version._fields)


class RulesStore:
    """Owns the table above. Every method raises `StoreUnavailable` while the database is away."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        wait = WAIT_SECONDS
        self._database = SqlDatabase(url, pool_size=2, pool_timeout=wait, connect_timeout=wait, read_timeout=wait)
        self._writer = SqlDatabase(url, pool_size=1, writes=True)
        self._clock = clock

    def newest(self) -> Mapping[str, Version] | None:
        """Return the newest version of each kind that has one; None where the table is not there (yet)."""
        newest = sa.select(RULES.c.kind, sa.func.max(RULES.c.number).label("number")).group_by(RULES.c.kind).subquery()
        same = sa.and_(RULES.c.kind == newest.c.kind, RULES.c.number == newest.c.number)
        asked = sa.select(RULES.c.kind, *_VERSION).join(newest, same)
        try:
            rows = self._database.read(lambda connection: connection.execute(asked).all())
        except SqlFailed as exc:
            if exc.number in ABSENT:
                return None
            raise
        return {kind: Version(*version) for kind, *version in rows}

    def page(self, kind: str, before: int | None, most: int) -> list[Version]:
        """Return the newest versions of a kind, those before a number."""
        older = [RULES.c.number < before] if before is not None else []
        asked = sa.select(*_VERSION).where(RULES.c.kind == kind, *older).order_by(RULES.c.number.desc()).limit(most)
        rows = self._database.read(lambda connection: connection.execute(asked).all())
        return [Version(*row) for row in rows]

    def text(self, kind: str, number: int) -> str | None:
        """Return the text of a version; None for one that is not there."""
        asked = sa.select(RULES.c.text).where(RULES.c.kind == kind, RULES.c.number == number)
        text: str | None = self._database.read(lambda connection: connection.scalar(asked))
        return text

    def save(
        self,
        kind: str,
        text: str,
        *,
        by: Act,
        base: int | None = None,
        note: str | None = None,
        restores: int | None = None,
    ) -> Version | None:
        """Store a version with its row of the audit, and drop the oldest ones.

        Return None, and store nothing, where `base` is given and not the newest version: somebody else was quicker.
        """
        now = datetime.fromtimestamp(self._clock(), UTC)
        version = Version(0, now, by.name, note, restores)
        return self._writer.transact(partial(_save, kind=kind, text=text, version=version, base=base, by=by))

    def close(self) -> None:
        self._database.close()
        self._writer.close()


def _save(
    connection: sa.Connection, kind: str, text: str, version: Version, base: int | None, by: Act
) -> Version | None:
    newest = connection.scalar(sa.select(sa.func.max(RULES.c.number)).where(RULES.c.kind == kind)) or 0
    if base not in (None, newest):
        return None
    made = version._replace(number=newest + 1)
    # A concurrent insert of the number makes `transact` run this again.
    connection.execute(RULES.insert().values(kind=kind, text=text, **made._asdict()))
    connection.execute(RULES.delete().where(RULES.c.kind == kind, RULES.c.number <= made.number - KEPT))
    after = f"{made.number}" if made.restores is None else f"{made.number}, as {made.restores}"
    assert made.saved_at
    record_act(connection, by._replace(before=str(newest), after=after), made.saved_at)
    return made
