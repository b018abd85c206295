"""`python -m tools.settings`: the check, and effective values; what tools take from the settings of their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.replicas import settings_for
from tests.support.servers.processes import free_port
from tests.support.servers.raw_server import RawServer
from tools import settings as tool
from tools._batch.api import Api, Away, Failed, Locked
from tools._command import local_url

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `.env` has right settings, and an environment without any."""
    for name in settings_for(""):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOST", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    lines = settings_for("redis://:fake-redis-password@127.0.0.1:1/1").items()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("RATE_LIMIT_USER=often", "RATE_LIMIT_USER='often' is wrong: expected a rate like"),
        ("LOG_DIR=/etc/hostname", "LOG_DIR='/etc/hostname' is wrong"),
        ("SEARCH_PROVIDER=tests.nothing:Search", "SEARCH_PROVIDER: tests.nothing:Search cannot be imported"),
    ],
)
def test_a_wrong_setting_fails_the_check_with_one_line(line: str, reason: str, home: Path, capsys: Printed) -> None:
    """A value, a folder, and a provider that can be named but not built; systemd then does not reload."""
    assert tool.main(["--check"]) == 0
    assert capsys.readouterr().out == "the settings are right\n"

    with (home / ".env").open("a") as file:
        file.write(line + "\n")

    assert tool.main(["--check"]) == 1
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(f"wechatlaibao: {reason}")


def test_a_misspelt_name_is_a_warning_of_the_check(home: Path, capsys: Printed) -> None:
    """A start warns of it too, and goes on."""
    with (home / ".env").open("a") as file:
        file.write("RATE_LIMIT_USR=1/minute\n")

    assert tool.main(["--check"]) == 0
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("warning: RATE_LIMIT_USR is not a setting and has no effect")


def test_each_value_is_shown_with_its_source_and_no_secret(capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment goes before `.env`; secrets are masked, also those in an address."""
    monkeypatch.setenv("DRAIN_SECONDS", "7")
    monkeypatch.setenv("LOCALE", "")

    assert tool.main(["--effective"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "environment  DRAIN_SECONDS=7" in lines
    assert ".env         WORKERS=1" in lines
    assert ".env         REDIS_URL=***" in lines
    assert "default      LOCALE=zh" in lines
    assert "default      SECRET_KEY=" in lines
    tokens = [value for name, value in settings_for("").items() if name.endswith(("TOKEN", "KEY"))]
    assert not [token for token in ("fake-redis-password", *tokens) if token in "".join(lines)]

    assert tool.main(["--effective", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"name": "DRAIN_SECONDS", "value": "7", "from": "environment"} in shown
    assert [one["name"] for one in shown] == [one["name"] for one in tool.described()]


def test_a_value_from_a_file_is_shown_as_one(home: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source is the file, a secret is masked, and an empty file leaves the default."""
    for name, content in (("LOCALE", "en\n"), ("API_KEYS", "a-fake-key\n"), ("SECRET_KEY", "\n"), ("PORT", "5009\n")):
        (home / name).write_text(content)
        monkeypatch.setenv(f"{name}_FILE", str(home / name))

    assert tool.main(["--effective"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert {"file         LOCALE=en", "file         API_KEYS=***", "default      SECRET_KEY="} <= set(lines)
    assert local_url() == "http://127.0.0.1:5009"


def test_a_wrong_setting_has_no_effective_values(home: Path, capsys: Printed) -> None:
    (home / ".env").write_text("PORT=x\n")

    assert tool.main(["--effective"]) == 1
    assert capsys.readouterr().err.startswith("wechatlaibao: PORT='x' is wrong")


@pytest.mark.parametrize(
    ("content", "url"),
    [
        ("", "http://127.0.0.1:5000"),
        ("PORT=5001\n", "http://127.0.0.1:5001"),
        ("HOST=0.0.0.0\nPORT=5001\n", "http://127.0.0.1:5001"),
        ("HOST=10.0.0.7\n", "http://10.0.0.7:5000"),
        ("HOST=::1\n", "http://[::1]:5000"),
    ],
)
def test_tools_call_the_service_of_this_folder(content: str, url: str, home: Path) -> None:
    """Without --url and LAIBAO_URL they take HOST and PORT as the service does."""
    (home / ".env").write_text(content)

    assert local_url() == url


def test_a_service_that_never_answered_is_not_waited_for() -> None:
    """Nothing listens there: the error comes at once and names the address. After an answer it is an outage."""
    port = free_port()
    with pytest.raises(Failed, match="LAIBAO_URL") as absent:
        Api(f"http://127.0.0.1:{port}").ask("GET", "/status")
    assert not isinstance(absent.value, Away)

    with RawServer(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{"data":{}}') as server:
        api = Api(server.url)
        assert api.ask("GET", "/status") == {}
    with pytest.raises(Away, match="cannot connect"):
        api.ask("GET", "/status")


def test_no_key_is_not_a_wrong_key() -> None:
    """Only without a key the error says where one is given."""
    with RawServer(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as server:
        with pytest.raises(Locked, match="LAIBAO_KEY"):
            Api(server.url).ask("GET", "/status")
        with pytest.raises(Locked) as wrong:
            Api(server.url, "fake-key").ask("GET", "/status")

    assert "set LAIBAO_KEY" not in str(wrong.value)
    assert "API_KEYS" in str(wrong.value)
