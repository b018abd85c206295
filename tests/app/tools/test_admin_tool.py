"""`python -m tools.admin`: tokens are printed once, their digests stored, and every change is in the audit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import Settings, load_settings
from services.admin.sql_store import AdminStore
from services.admin.tokens import Administrator, AdminTokens, GivenToken, digest_of
from tests.support.replicas import settings_for
from tests.support.schema import migrated
from tools import admin

Printed = pytest.CaptureFixture[str]


class Tool:
    """The tool in a deployment with an SQLite file."""

    def __init__(self, folder: Path, capsys: Printed, **variables: str) -> None:
        given = {"ADMIN_TOKEN": "", "DATABASE_PATH": str(folder / "admin.db"), **variables}
        self.settings = load_settings(settings_for("redis://127.0.0.1:1", **given), env_file=None)
        self._capsys = capsys

    def load(self) -> Settings:
        return self.settings

    def runs(self, *argv: str) -> tuple[int, str, str]:
        """Run the tool; return its exit status, standard output and standard error."""
        status = admin.main(argv, load=self.load)
        return status, *self._capsys.readouterr()

    @property
    def url(self) -> str:
        assert self.settings.sql_url
        return self.settings.sql_url.get_secret_value()


@pytest.fixture
def tool(tmp_path: Path, capsys: Printed) -> Tool:
    tool = Tool(tmp_path, capsys, ADMIN_TOKEN="obviously-fake-token")
    migrated(tool.url)
    return tool


@pytest.fixture
def store(tool: Tool) -> Iterator[AdminStore]:
    with closing(AdminStore(tool.url)) as store:
        yield store


def test_a_created_token_is_valid_until_it_is_revoked(tool: Tool, store: AdminStore) -> None:
    """It is printed alone, so that a script can keep it; the database has its digest, and nothing else of it."""
    status, token, error = tool.runs("token", "create", "wang", "operator")

    assert (status, error) == (0, "")
    assert store.find(digest_of(token.strip())) == Administrator("wang", "operator")
    assert token.strip().encode() not in Path(str(tool.settings.database_path)).read_bytes()
    assert tool.runs("token", "create", "wang", "viewer") == (1, "", "wang has a token already: revoke it first\n")

    assert tool.runs("token", "revoke", "wang") == (0, "wang\n", "")
    assert store.find(digest_of(token.strip())) is None
    assert tool.runs("token", "revoke", "wang")[0] == 1


def test_an_entry_of_the_settings_has_the_digest_alone(tmp_path: Path, capsys: Printed) -> None:
    """It needs no database, and the gateway accepts the printed token by it."""
    tool = Tool(tmp_path, capsys, DATABASE_PATH="")

    status, printed, _ = tool.runs("token", "create", "wang", "viewer", "--setting")
    token, entry = printed.split()

    settings = Tool(tmp_path, capsys, ADMIN_TOKENS=entry).settings
    (given,) = settings.administrators
    assert status == 0
    assert token not in entry
    assert AdminTokens([GivenToken("wang", "viewer", given[2])]).find(token) == Administrator("wang", "viewer")


def test_what_the_tool_did_is_in_the_audit(tool: Tool) -> None:
    """Newest first, with the name of the machine's user, and every member in each object."""
    tool.runs("token", "create", "wang", "operator")
    tool.runs("token", "create", "li", "viewer")
    tool.runs("token", "revoke", "wang")

    status, printed, _ = tool.runs("audit", "--json")
    rows = [json.loads(line) for line in printed.splitlines()]

    assert status == 0
    acts = [(row["action"], row["object"], row["after"]) for row in rows]
    assert acts == [
        ("token.revoke", "wang", None),
        ("token.create", "li", "viewer"),
        ("token.create", "wang", "operator"),
    ]
    assert rows[0].keys() == {"time", "name", "role", "address", "action", "object", "before", "after"}
    assert rows[0]["name"].startswith("tools.admin (")
    assert len(tool.runs("audit", "--json", "--limit", "1")[1].splitlines()) == 1
    assert tool.runs("audit", "--json", "--action", "token.revoke", "--since", "1d")[1].splitlines() == [
        printed.split("\n")[0]
    ]
    assert tool.runs("audit", "--since", "yesterday")[:2] == (1, "")


def test_a_user_without_a_name_is_a_number(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as any user."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999)

    tool.runs("token", "create", "wang", "viewer")

    assert json.loads(tool.runs("audit", "--json")[1])["name"] == "tools.admin (3999999)"


def test_the_list_has_every_token(tool: Tool) -> None:
    """A revoked one has the time of its end."""
    tool.runs("token", "create", "wang", "operator")
    tool.runs("token", "revoke", "wang")
    tool.runs("token", "create", "li", "viewer")

    rows = [json.loads(line) for line in tool.runs("token", "list", "--json")[1].splitlines()]

    assert [(row["name"], row["role"], row["revoked_at"] is None) for row in rows] == [
        ("li", "viewer", True),
        ("wang", "operator", False),
    ]


@pytest.mark.parametrize(
    ("variables", "says"),
    [({"DATABASE_PATH": ""}, "set MYSQL_HOST or DATABASE_PATH"), ({}, "Administration is off until ADMIN_TOKEN")],
)
def test_what_is_missing_is_named(tmp_path: Path, capsys: Printed, variables: dict[str, str], says: str) -> None:
    """Without a database there is no place for tokens; without one in the settings, administration is off."""
    tool = Tool(tmp_path, capsys, **variables)
    if tool.settings.sql_url:
        migrated(tool.url)

    assert says in tool.runs("token", "create", "wang", "viewer")[2]


@pytest.mark.parametrize(
    "argv", [("token", "create", "wang li", "viewer"), ("token", "create", "wang", "root"), ("token",)]
)
def test_wrong_usage_changes_nothing(tool: Tool, capsys: Printed, argv: tuple[str, ...]) -> None:
    """The exit status is 2."""
    with pytest.raises(SystemExit) as ended:
        tool.runs(*argv)

    assert ended.value.code == 2
