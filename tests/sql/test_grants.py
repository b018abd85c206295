"""The SQL account of docs/hardening.md: its grants are enough for everything that the gateway does, and for no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.sql.migrator import Migrator
from services.sql.schema import HEAD
from tests.support.batches.shelf import Shelf
from tests.support.schema import migrated
from tests.support.servers.processes import MariaServer

HARDENING = Path(__file__).parents[2] / "docs" / "hardening.md"
PASSWORD = "not-a-real-password"
ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "zhangsan", "zhangsan", "dify", "m1", "c1")


@pytest.fixture
def granted(maria_server: MariaServer) -> Iterator[str]:
    """The URL of a database with all tables, for the documented account."""
    url = migrated(maria_server.fresh_database("company"))
    maria_server.execute("CREATE TABLE company.users (code INT)")
    (block,) = re.findall(r"^```sql\n(.*?)^```", HARDENING.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for statement in block.replace("10.0.%", "%").strip().splitlines():
        maria_server.execute(statement.rstrip(";"))
    yield url.replace("root@", f"laibao:{PASSWORD}@")
    maria_server.execute("DROP USER 'laibao'@'%'")


@pytest.mark.full
def test_the_documented_grants_are_enough(granted: str, maria_server: MariaServer) -> None:
    """Batches are worked on and removed, ratings are kept, users are read; the user table cannot be written."""
    with Shelf(granted) as shelf:
        assert shelf.ends(shelf.submits(2)).status == "completed"
        assert shelf.store.expire(-1) == 1
    with closing(Migrator(granted)) as migrator:
        assert migrator.revision() == HEAD
    ratings = SqlFeedbackStore(granted)
    ratings.save("s1", ANSWER, [("p1", 1, Rating("like", at=1_700_000_000))])
    ratings.close()

    with (
        pymysql.connect(host="127.0.0.1", port=maria_server.port, user="laibao", password=PASSWORD) as account,
        account.cursor() as cursor,
    ):
        assert cursor.execute("SELECT code FROM company.users") == 0
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute("DELETE FROM company.users")
