"""The doctor's check of SQL, in every AUTH_MODE: every fault here is one of a real MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import load_settings
from tests.support.replicas import settings_for
from tests.support.schema import migrated
from tests.support.servers.processes import MariaServer
from tools._doctor.checks import Finding
from tools._doctor.sql import check_sql, granted


def examine(**changes: str) -> list[Finding]:
    settings = load_settings(settings_for("redis://127.0.0.1:1/1", **changes), None)
    assert settings.sql_url
    return list(check_sql(settings, settings.sql_url.get_secret_value()))


@pytest.fixture
def login(maria_server: MariaServer) -> Iterator[dict[str, str]]:
    """The settings of a new user without rights on an empty database."""
    maria_server.fresh_database("doctored")
    maria_server.execute("CREATE OR REPLACE USER doctored@'%' IDENTIFIED BY 'fake-password'")
    where = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(maria_server.port), "MYSQL_DATABASE": "doctored"}
    yield {**where, "MYSQL_USER": "doctored", "MYSQL_PASSWORD": "fake-password"}
    maria_server.execute("DROP USER doctored@'%'")


@pytest.mark.parametrize("mode", [{"AUTH_MODE": "allowlist", "AUTH_ALLOWLIST": "zhangsan"}, {"AUTH_MODE": "none"}])
def test_a_wrong_password_is_found_in_every_mode(mode: dict[str, str], login: dict[str, str]) -> None:
    """Batches and ratings use SQL also where users are not looked up in it."""
    (finding,) = examine(**login | mode | {"MYSQL_PASSWORD": "wrong"})

    assert (finding.check, finding.outcome) == ("sql", "failed")
    assert "MYSQL_PASSWORD" in finding.remedy


@pytest.mark.parametrize(
    ("rights", "wrong"),
    [
        ("ALL PRIVILEGES", ""),
        ("SELECT, INSERT, UPDATE, DELETE, CREATE", ""),
        ("SELECT, INSERT, UPDATE, DELETE", "CREATE"),
        ("SELECT, CREATE", "INSERT, UPDATE, DELETE"),
    ],
)
def test_missing_rights_are_named(rights: str, wrong: str, login: dict[str, str], maria_server: MariaServer) -> None:
    """Before the first start the tables are missing, and nothing is created; the remedy is the statement."""
    maria_server.execute(f"GRANT {rights} ON doctored.* TO doctored@'%'")

    answers, tables = examine(**login)

    assert (answers.text, tables.check) == ("answers", "tables")
    assert tables.outcome == ("failed" if wrong else "ok")
    assert f"GRANT {wrong} ON" in tables.remedy or not wrong
    assert maria_server.execute("SHOW TABLES FROM doctored") == ()


def test_tables_are_complete_without_the_right_to_create(login: dict[str, str], maria_server: MariaServer) -> None:
    """An administrator has created them; the user may only change rows."""
    migrated(maria_server.url("doctored"))
    maria_server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON doctored.* TO doctored@'%'")

    assert [finding.text for finding in examine(**login)] == ["answers", "complete"]


def test_a_file_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    """The first start makes it."""
    (finding,) = examine(DATABASE_PATH=str(tmp_path / "laibao.db"))

    assert finding.outcome == "ok"
    assert not (tmp_path / "laibao.db").exists()


@pytest.mark.parametrize(
    ("lines", "rights"),
    [
        (["GRANT USAGE ON *.* TO `a`@`%`", "GRANT SELECT, INSERT ON `lai\\_bao`.* TO `a`@`%`"], {"SELECT", "INSERT"}),
        (["GRANT SELECT ON *.* TO `a`@`%`", "GRANT CREATE ON `other`.* TO `a`@`%`"], {"SELECT"}),
        (["GRANT `role` TO `a`@`%`"], None),
        (["GRANT USAGE ON *.* TO `a`@`%`", "GRANT SELECT ON `lai_bao`.`laibao_feedback` TO `a`@`%`"], None),
        (["GRANT ALL PRIVILEGES ON `lai_bao`.* TO `a`@`%`"], None),
        ([], None),
    ],
)
def test_rights_are_read_from_the_lines_of_show_grants(lines: list[str], rights: set[str] | None) -> None:
    """Those of other databases do not count; behind a role they cannot be told."""
    found = granted(lines, "lai_bao")

    assert (found and set(found) - {"USAGE"}) == rights
