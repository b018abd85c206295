"""What tools print where Redis or SQL fails: the database's own words, and the setting to correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.servers.processes import MariaServer, free_port
from tests.support.settings_values import settings
from tools import log, migrate, streams, usage

SQL_TOOLS = {"log": (log.main, ["list"]), "usage": (usage.main, []), "migrate": (migrate.main, ["status"])}
Captured = pytest.CaptureFixture[str]


def failed(main: Callable[..., int], argv: list[str], given: Mapping[str, str], capsys: Captured) -> str:
    """Run a tool that cannot succeed; return its one line."""
    assert main(argv, load=lambda: settings(**given)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("tool", SQL_TOOLS)
def test_a_failure_of_mysql_names_the_setting(tool: str, maria_server: MariaServer, capsys: Captured) -> None:
    """An absent server is told from a wrong password."""
    where = {"MYSQL_HOST": "127.0.0.1", "MYSQL_DATABASE": "laibao", "MYSQL_USER": "nobody", "MYSQL_PASSWORD": "wrong"}

    refused = failed(*SQL_TOOLS[tool], {**where, "MYSQL_PORT": str(maria_server.port)}, capsys)
    absent = failed(*SQL_TOOLS[tool], {**where, "MYSQL_PORT": str(free_port())}, capsys)

    assert "Access denied" in refused
    assert "-> correct MYSQL_USER and MYSQL_PASSWORD" in refused
    assert "-> start MySQL, or correct MYSQL_HOST" in absent


@pytest.mark.parametrize("tool", ["log", "usage"])
def test_a_database_without_tables_is_to_be_migrated(tool: str, tmp_path: Path, capsys: Captured) -> None:
    """The line has the command that makes the tables."""
    line = failed(*SQL_TOOLS[tool], {"DATABASE_PATH": str(tmp_path / "empty.db")}, capsys)

    assert line.endswith("-> start the gateway once, or run `python -m tools.migrate up`")


def test_a_failure_of_redis_names_the_setting(capsys: Captured) -> None:
    """Nothing listens on that port."""
    given = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(free_port())}

    assert "-> start Redis, or correct REDIS_HOST and REDIS_PORT" in failed(streams.main, ["list"], given, capsys)


@pytest.mark.parametrize("tool", [log.main, usage.main])
def test_a_misspelt_channel_is_refused(tool: Callable[..., int], capsys: Captured) -> None:
    """It would choose no question."""
    with pytest.raises(SystemExit) as ended:
        tool(["list"] * (tool is log.main) + ["--channel", "wecm"], load=settings)

    assert ended.value.code == 2
    assert "choose from" in capsys.readouterr().err
