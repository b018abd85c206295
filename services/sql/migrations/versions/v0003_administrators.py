"""The tables of administrators' tokens and of the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from services.sql.migrations.steps import create_table
from services.sql.schema import BIG, WORD, Name, Utc, Words, optional, required, table

revision = "0003"
down_revision = "0002"

METADATA = sa.MetaData()
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


def upgrade(op: Operations) -> None:
    for each in (TOKENS, AUDIT):
        create_table(op, each)
