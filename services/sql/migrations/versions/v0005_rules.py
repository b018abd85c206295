"""The table of the rules that administrators save."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from services.sql.migrations.steps import create_table
from services.sql.schema import WORD, Name, ShortText, Utc, Words, optional, required, table

revision = "0005"
down_revision = "0004"

RULES = table(
    "laibao_rules",
    sa.MetaData(),
    required("kind", WORD, primary_key=True),
    required("number", sa.Integer, primary_key=True, autoincrement=False),
    required("text", Words),
    required("saved_at", Utc),
    required("saved_by", Name),
    optional("note", ShortText),
    optional("restores", sa.Integer),
)


def upgrade(op: Operations) -> None:
    create_table(op, RULES)
