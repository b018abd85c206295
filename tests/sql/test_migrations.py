"""The migrations on SQLite and MariaDB: one process makes them, others complete them, and no start waits long."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import bootstrap.container  # noqa: F401 - declares the tables of all stores
from config.errors import SettingsError
from config.settings import load_settings
from services import metrics
from services.errors import StoreRefused, StoreUnavailable
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import FEEDBACK, SqlFeedbackStore
from services.sql.migrations.steps import add_column
from services.sql.migrator import FOLDER, Migrator, printed
from services.sql.schema import HEAD, METADATA, VERSION_TABLE
from services.usage.sql_store import SqlUsageStore
from services.usage.tables import DAYS, MONTHS
from tests.support.replicas import settings_for
from tests.support.schema import migrated, migrating
from tests.support.servers.processes import MariaServer, wait_until
from tests.support.usage import entry, rows
from tools.migrate import main

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0
ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "zhangsan", "zhangsan", "dify", "m1", "c1")
#: Checksums of the printed statements of each migration. A database that has a migration never runs it again, so a
#: change of one that was released is a further migration.
RELEASED = {
    "mysql": {"0001": 0xDD6DD589, "0002": 0x355F12D5, "0003": 0x77E98B03, "0004": 0xD27BCC76, "0005": 0x7339DC0D},
    "sqlite": {"0001": 0xF10D272F, "0002": 0xCA977B02, "0003": 0x4C5CE9D3, "0004": 0x9FDA9EDC, "0005": 0x1189E43B},
}
REVISIONS = list(RELEASED["mysql"])

Sql = Callable[[str], Any]


@pytest.fixture
def sql(sql_url: str) -> Iterator[Sql]:
    """Run one statement on the database, in autocommit."""
    engine = sa.create_engine(sql_url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> Any:
        with engine.connect() as connection:
            done = connection.exec_driver_sql(statement)
            return done.all() if done.returns_rows else None

    yield run
    engine.dispose()


def differences(url: str) -> Any:
    """Return what alembic finds different between the database and the tables that the stores declare."""
    engine = sa.create_engine(url)
    options = {"version_table": VERSION_TABLE, "compare_server_default": True}
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
    engine.dispose()
    return found


def test_the_migrations_lead_to_the_tables_of_the_stores(sql_url: str) -> None:
    """A changed declaration without a migration is a difference; so is an index that only one of both has."""
    migrated(sql_url)

    assert differences(sql_url) == []


def test_there_is_one_head() -> None:
    """Each revision is the number after the one before, and begins its file's name; the newest is that of the code."""
    folder = ScriptDirectory(str(FOLDER))
    scripts = list(reversed(list(folder.walk_revisions())))

    assert folder.get_heads() == [HEAD]
    assert [script.revision for script in scripts] == [f"{n + 1:04}" for n in range(len(scripts))]
    assert all(Path(script.path).name.startswith(f"v{script.revision}_") for script in scripts)


@pytest.mark.parametrize("kind", ["mysql", "sqlite"])
def test_released_migrations_do_not_change(kind: str) -> None:
    """A further one is a further line here."""
    found = {revision: zlib.crc32("\n".join(statements).encode()) for revision, statements in printed(kind)}

    assert found == RELEASED[kind]


def test_at_the_head_a_start_costs_one_query(sql_url: str) -> None:
    """No thread is started."""
    migrated(sql_url)
    sent: list[str] = []
    with closing(Migrator(sql_url)) as migrator:
        engine = migrator._database._engine
        sa.event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))

        migrator.start()

        assert sent == [f"SELECT version_num FROM {VERSION_TABLE}"]
        assert not migrator.migrating
        assert not migrator._rounds._thread.is_alive()


def test_at_the_head_alembic_is_not_imported(tmp_path: Path) -> None:
    """A worker keeps its memory and its time."""
    url = migrated(f"sqlite:///{tmp_path / 'laibao.db'}")
    code = "import sys; from services.sql.migrator import Migrator; Migrator(sys.argv[1]).start()"
    command = [sys.executable, "-c", f"{code}; print('alembic' in sys.modules)", url]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)

    assert done.stdout == "False\n", done.stderr


PROCESS = """
    import sys
    import sqlalchemy as sa
    from services.sql.migrator import Migrator

    migrator, kill_at = Migrator(sys.argv[1]), int(sys.argv[2])
    seen = []

    def count(_connection, _cursor, statement, *_more):
        seen.append("CREATE TABLE" in statement)
        if sum(seen) == kill_at:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sa.event.listen(sa.Engine, "before_cursor_execute", count)
    print("ready", flush=True)
    sys.stdin.readline()
    print(migrator.run(60.0))
"""


@contextmanager
def process(url: str, *, kill_at: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Start a process that migrates when a line comes, and kills itself before its statement of that number."""
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), url, str(kill_at)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


@pytest.mark.scenario
def test_of_processes_that_start_at_once_one_migrates(sql_url: str) -> None:
    """The others wait for it, and find it done."""
    with ExitStack() as stack:
        started = [stack.enter_context(process(sql_url)) for _ in range(3)]
        for one in started:
            assert one.stdin
            one.stdin.write("go\n")
            one.stdin.flush()
        printed = [one.communicate(timeout=TIMEOUT)[0] for one in started]

    assert sorted(printed) == [f"{REVISIONS}\n", "[]\n", "[]\n"]


@pytest.mark.scenario
def test_a_migration_that_was_killed_is_completed(sql_url: str) -> None:
    """The process dies (-9) before its fourth table; the next one begins at once and makes the rest."""
    with process(sql_url, kill_at=4) as killed:
        killed.communicate("go\n", timeout=TIMEOUT)
        assert killed.returncode == -signal.SIGKILL

    with closing(Migrator(sql_url)) as migrator:
        assert migrator.revision() == ""
        assert migrator.run(10.0) == REVISIONS

    assert differences(sql_url) == []


def test_tables_that_exist_are_taken_over(sql_url: str, sql: Sql) -> None:
    """Their rows stay."""
    migrated(sql_url)
    with closing(SqlFeedbackStore(sql_url)) as store:
        store.save("s1", ANSWER, [("p1", 1, Rating("like", at=1_700_000_000))])
    sql(f"DROP TABLE {VERSION_TABLE}")

    with closing(Migrator(sql_url)) as migrator:
        assert migrator.run(10.0) == REVISIONS

    assert sql("SELECT stream_id FROM laibao_feedback") == [("s1",)]


def test_sums_that_exist_are_added_up(sql_url: str, sql: Sql) -> None:
    """By day without the person, and by month; once, however often the migration is repeated."""
    migrated(sql_url)
    with closing(SqlUsageStore(sql_url)) as store:
        days = (date(2026, 1, 31), date(2026, 2, 1), date(2026, 2, 28))
        store.save([entry(f"{day}{who}", day=day, person=who) for day in days for who in ("a", "b")], log=False)
    expected = [rows(sql_url, DAYS), rows(sql_url, MONTHS)]
    for name in ("days", "months"):
        sql(f"DROP TABLE laibao_usage_{name}")

    for _ in range(2):
        sql(f"UPDATE {VERSION_TABLE} SET version_num = '0003'")
        migrated(sql_url)

    assert [rows(sql_url, DAYS), rows(sql_url, MONTHS)] == expected
    assert [(str(row["day"]), row["questions"]) for row in expected[0]] == [(str(day), 2) for day in days]
    assert [(str(row["day"]), row["person"], row["questions"]) for row in expected[1]] == [
        *(("2026-01-01", "a", 1), ("2026-01-01", "b", 1), ("2026-02-01", "a", 2), ("2026-02-01", "b", 2))
    ]


def test_another_table_of_that_name_is_refused(sql_url: str, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    """It is named with the columns that it lacks; the start goes on, and the log and the health report say why."""
    sql("CREATE TABLE laibao_feedback (stream_id INT, person INT)")
    with closing(Migrator(sql_url)) as migrator:
        with pytest.raises(SettingsError, match="laibao_feedback is of another origin, and lacks bot, channel,"):
            migrator.run(10.0)

        migrator.start()
        wait_until(lambda: not migrator.migrating, TIMEOUT)
        with pytest.raises(StoreRefused, match="rename it"):
            migrator.check()

    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == ["tables are missing"]
    assert metrics.SCHEMA_BEHIND._value.get() == 1


def test_an_older_version_works_on_newer_tables(sql_url: str, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so; nothing is changed, and columns that it does not know are left alone."""
    migrated(sql_url)
    sql("ALTER TABLE laibao_feedback ADD COLUMN mood VARCHAR(8) DEFAULT 'calm'")
    sql(f"UPDATE {VERSION_TABLE} SET version_num = '0999'")

    with closing(Migrator(sql_url)) as migrator:
        migrator.start()
        assert not migrator.migrating
        assert migrator.run(1.0) == []
        migrator.check()
    with closing(SqlFeedbackStore(sql_url)) as store:
        store.save("s1", ANSWER, [("p1", 1, Rating("like", at=1_700_000_000))])

    assert [record.message for record in caplog.records] == ["the tables are of a newer version"]
    assert sql("SELECT mood FROM laibao_feedback") == [("calm",)]
    assert sql(f"SELECT version_num FROM {VERSION_TABLE}") == [("0999",)]


def test_the_start_waits_for_another_process_with_a_limit(sql_url: str) -> None:
    """`migrating` ends while the other still has the lock; the tables are made when it is gone."""
    with closing(Migrator(sql_url, wait=0.5)) as migrator:
        with migrating(sql_url):
            migrator.start()
            assert migrator.migrating
            wait_until(lambda: not migrator.migrating, TIMEOUT)
            with closing(Migrator(sql_url)) as other:
                assert other.revision() == ""

        wait_until(lambda: not migrator._rounds._thread.is_alive(), TIMEOUT)
        assert migrator.revision() == HEAD


@pytest.mark.full
def test_a_database_that_is_away_at_the_start_is_migrated_later(tmp_path: Path) -> None:
    """The process is ready meanwhile, and stays it."""
    path = tmp_path / "laibao.db"
    path.mkdir()
    with closing(Migrator(f"sqlite:///{path}")) as migrator:
        migrator.start()
        assert not migrator.migrating

        path.rmdir()
        wait_until(lambda: migrator.migrating or not migrator._rounds._thread.is_alive(), TIMEOUT)
        assert not migrator.migrating
        assert migrator.revision() == HEAD


def test_printed_statements_are_enough_and_may_run_twice(
    sql_url: str, sql: Sql, capsys: pytest.CaptureFixture[str]
) -> None:
    """They lead to the same tables and note the revision."""
    assert main(["sql", "sqlite" if sql_url.startswith("sqlite") else "mysql"]) == 0
    lines = re.sub(r"^-- .*\n", "", capsys.readouterr().out, flags=re.MULTILINE)

    for statement in 2 * lines.split(";\n\n")[:-1]:
        sql(statement)

    assert sql(f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]
    assert differences(sql_url) == []


def test_only_later_migrations_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Since the head there are none."""
    assert main(["sql", "--since", HEAD]) == 0

    assert capsys.readouterr().out == ""


@pytest.mark.full
def test_without_the_right_an_administrator_runs_the_statements(
    maria_server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The start goes on with the remedy in its log and health; ratings are stored once the statements were run."""
    url = maria_server.fresh_database("limited")
    maria_server.execute("CREATE OR REPLACE USER rater@'%'")
    maria_server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON limited.* TO rater@'%'")
    limited = url.replace("root@", "rater@")
    with closing(Migrator(limited)) as migrator, closing(SqlFeedbackStore(limited)) as store:
        migrator.start()
        wait_until(lambda: not migrator.migrating, TIMEOUT)
        with pytest.raises(StoreRefused, match=r"may not make them \(run what `python -m tools\.migrate sql` prints\)"):
            migrator.check()
        with pytest.raises(StoreUnavailable):
            store.save("s1", ANSWER, [("p1", 1, Rating("like", at=1_700_000_000))])

        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in [one for _, every in printed("mysql") for one in every]:
                connection.exec_driver_sql(statement)
            migrator._rounds.wake()
            wait_until(lambda: not migrator._rounds._thread.is_alive(), TIMEOUT)
            migrator.check()
            store.save("s1", ANSWER, [("p1", 1, Rating("like", at=1_700_000_000))])
            assert connection.scalar(sa.select(FEEDBACK.c.rating)) == "like"
        engine.dispose()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["tables are missing"]
    maria_server.execute("DROP USER rater@'%'")


def test_a_step_passes_over_what_is_there(sql_url: str) -> None:
    """A column is added once, however often the step runs; printed, it is a statement."""
    migrated(sql_url)
    engine = sa.create_engine(sql_url)
    with engine.begin() as connection:
        for _ in range(2):
            op = Operations(MigrationContext.configure(connection))
            add_column(op, "laibao_feedback", sa.Column("mood", sa.Integer, server_default="7"))
        columns = [column["name"] for column in sa.inspect(connection).get_columns("laibao_feedback")]
    engine.dispose()

    assert columns.count("mood") == 1


def test_the_tool_prints_where_the_database_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` creates no file and exits with 0 at the head alone, and at a newer revision."""
    path = tmp_path / "laibao.db"
    settings = settings_for("redis://127.0.0.1:1/1")

    def run(*argv: str) -> tuple[int, str]:
        code = main(argv, load=lambda: load_settings(settings, None))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    assert run("status") == (1, "there are no tables: neither MYSQL_HOST nor DATABASE_PATH is set\n")
    settings["DATABASE_PATH"] = str(path)
    assert run("status") == (1, f"behind: no tables, this version has {HEAD}\n")
    assert not path.exists()
    assert run("up") == (0, "".join(f"migrated {one}\n" for one in REVISIONS) + "head\n")
    assert run("up", "--json") == (0, f'{{"state": "head", "revision": "{HEAD}", "head": "{HEAD}"}}\n')
    assert run("status") == run() == (0, "head\n")
    engine = sa.create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0999'")
    engine.dispose()
    assert run("status") == (0, f"newer: 0999, this version has {HEAD}\n")
