"""The administrators' tokens that were made by the tool, and the audit, for MySQL, MariaDB and SQLite.

laibao_admin_tokens   one row per name; a revoked one stays, and its name can be given again
laibao_audit          one row per change, export and look at words, in their order; deleted after AUDIT_DAYS
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa

from services.admin.tokens import Administrator, Role
from services.sql.database import SqlDatabase
from services.sql.schema import BIG, METADATA, WORD, Name, Utc, Words, optional, required, table

#: Rows deleted in one transaction, and rows that one read of the audit returns.
AT_ONCE = 500

TOKENS = table(
    "laibao_admin_tokens",
    METADATA,
    required("name", WORD, primary_key=True),
    required("role", WORD),
    required("digest", WORD),
    required("created_at", Utc),
    required("created_by", Name),
    optional("revoked_at", Utc),
    sa.Index("laibao_admin_tokens_digest", "digest", unique=True),
)
AUDIT = table(
    "laibao_audit",
    METADATA,
    required("id", BIG, primary_key=True, autoincrement=True),
    required("time", Utc),
    required("name", Name),
    required("role", WORD),
    required("address", Name),
    required("action", WORD),
    required("object", Name),
    optional("before", Words),
    optional("after", Words),
    sa.Index("laibao_audit_time", "time"),
)


class AdminToken(NamedTuple):
    """A row of the tokens, without the digest."""

    name: str
    role: Role
    created_at: datetime
    created_by: str
    revoked_at: datetime | None


class Act(NamedTuple):
    """What somebody did: `action` is a stable word such as `socket.disconnect`, `object` its object's name or id.

    `before` and `after` are what a change replaced; `address` is "" for tools.
    """

    name: str
    role: str
    address: str
    action: str
    object: str
    before: str | None = None
    after: str | None = None


class Audited(NamedTuple):
    """A row of the audit."""

    id: int
    time: datetime
    act: Act


class AuditFilter(NamedTuple):
    """Which rows of the audit; "" and None are all. `until` is exclusive."""

    since: datetime | None = None
    until: datetime | None = None
    name: str = ""
    action: str = ""
    object: str = ""

    @property
    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The conditions on rows of the audit."""
        made = [AUDIT.c[name] == value for name, value in self._asdict().items() if value and isinstance(value, str)]
        made += [AUDIT.c.time >= self.since] if self.since else []
        return [*made, AUDIT.c.time < self.until] if self.until else made


EVERY = AuditFilter()


class AdminStore:
    """Owns the tables above. Every method raises `StoreUnavailable` while the database is away."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = SqlDatabase(url, pool_size=2, writes=True)
        self._clock = clock

    def check(self) -> None:
        """Check that the database answers."""
        self._database.check()

    def find(self, digest: str) -> Administrator | None:
        """Return the administrator of a token that is not revoked."""
        mine = sa.select(TOKENS.c.name, TOKENS.c.role).where(TOKENS.c.digest == digest, TOKENS.c.revoked_at.is_(None))
        row = self._database.read(lambda connection: connection.execute(mine).first())
        return Administrator(*row) if row else None

    def create(self, name: str, role: Role, digest: str, *, by: Act) -> bool:
        """Store a token with its row of the audit; return False if the name has a valid one already."""
        return self._database.transact(partial(_create, name=name, role=role, digest=digest, by=by, now=self._now()))

    def revoke(self, name: str, *, by: Act) -> bool:
        """Revoke the token of a name with its row of the audit; return False if it has no valid one."""
        return self._database.transact(partial(_revoke, name=name, by=by, now=self._now()))

    def tokens(self) -> list[AdminToken]:
        """Return all tokens, revoked ones too, by name."""
        columns = (TOKENS.c.name, TOKENS.c.role, TOKENS.c.created_at, TOKENS.c.created_by, TOKENS.c.revoked_at)
        rows = self._database.read(lambda one: one.execute(sa.select(*columns).order_by(TOKENS.c.name)).all())
        return [AdminToken(*row) for row in rows]

    def record(self, act: Act) -> None:
        """Add a row to the audit."""
        self._database.transact(partial(record_act, act=act, now=self._now()))

    def audit(self, chosen: AuditFilter = EVERY) -> Iterator[Audited]:
        """Yield the rows, the newest first."""
        last: int | None = None
        while rows := self.audit_page(chosen, last):
            yield from rows
            last = rows[-1].id

    def audit_page(self, chosen: AuditFilter, last: int | None = None, most: int = AT_ONCE) -> list[Audited]:
        """Return the newest rows; with `last`, the id of the last row of a page, those of the next page."""
        older = [AUDIT.c.id < last] if last is not None else []
        page = sa.select(AUDIT).where(*chosen.clauses, *older).order_by(AUDIT.c.id.desc()).limit(most)
        rows = self._database.read(lambda connection: connection.execute(page).all())
        return [Audited(row.id, row.time, Act._make(row[2:])) for row in rows]

    def delete_audit(self, before: datetime) -> int:
        """Delete some rows of the audit that are older; return how many."""
        return self._database.transact(partial(_delete, before=before))

    def close(self) -> None:
        self._database.close()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _create(connection: sa.Connection, name: str, role: Role, digest: str, by: Act, now: datetime) -> bool:
    mine = TOKENS.c.name == name
    found = connection.execute(sa.select(TOKENS.c.revoked_at).where(mine).with_for_update()).first()
    if found and found.revoked_at is None:
        return False
    row = {"role": role, "digest": digest, "created_at": now, "created_by": by.name, "revoked_at": None}
    # A concurrent insert makes `transact` fail or retry: a name is there once.
    connection.execute(TOKENS.update().where(mine).values(row) if found else TOKENS.insert().values(name=name, **row))
    record_act(connection, by, now)
    return True


def _revoke(connection: sa.Connection, name: str, by: Act, now: datetime) -> bool:
    valid = sa.and_(TOKENS.c.name == name, TOKENS.c.revoked_at.is_(None))
    if not connection.execute(TOKENS.update().where(valid).values(revoked_at=now)).rowcount:
        return False
    record_act(connection, by, now)
    return True


def record_act(connection: sa.Connection, act: Act, now: datetime) -> None:
    connection.execute(AUDIT.insert().values(time=now, **act._asdict()))


def _delete(connection: sa.Connection, before: datetime) -> int:
    found = connection.scalars(sa.select(AUDIT.c.id).where(AUDIT.c.time < before).limit(AT_ONCE)).all()
    if found:
        connection.execute(AUDIT.delete().where(AUDIT.c.id.in_(found)))
    return len(found)
