"""`python -m tools.doctor` names what is wrong with a deployment and its remedy; every fault here is a real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from bootstrap.container import Container
from config.errors import SettingsError
from config.settings import Settings, load_settings
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.server import MockDify
from services.errors import ProviderError
from tests.support.made_providers import dify_service
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings, settings_for
from tests.support.servers.processes import MariaServer, RedisServer, free_port, redis_client_for, wait_until
from tests.support.servers.raw_server import RawServer, self_signed
from tests.support.wecom_stub import StubCallback
from tools import doctor
from tools._doctor.askers import check_askers
from tools._doctor.callback import callback_urls, check_callback
from tools._doctor.checks import Finding, findings, judge_clock
from tools._doctor.dify import check_dify
from tools._doctor.redis import check_redis, judge_persistence, judge_version
from tools._doctor.users import check_auth_api, check_users

ROOT = Path(__file__).parents[4]
NO_REDIS = "redis://127.0.0.1:1/1"


def settings_of(env: dict[str, str]) -> Settings:
    return load_settings(env, None)


def examine(look: Callable[[Container], Iterator[Finding]], env: dict[str, str]) -> list[Finding]:
    """Return the findings of one check under these settings."""
    container = Container(settings_of(env))
    try:
        return list(look(container))
    finally:
        container.close()


def only(found: list[Finding], outcome: str) -> Finding:
    """Return the one finding that is not ok, after checking its outcome and that it has a remedy."""
    (finding,) = [finding for finding in found if finding.outcome != "ok"]
    assert finding.outcome == outcome
    assert finding.remedy
    return finding


# The program


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(api_key="app-test-key-not-real") as mock:
        yield mock


def test_a_working_deployment_has_no_failures(
    redis_url: str, dify: MockDify, capsys: pytest.CaptureFixture[str]
) -> None:
    """A running replica with Redis and Dify gives a line for each check and exit status 0."""
    env = settings_for(redis_url, **dify_settings(dify.base_url))
    with AppServer(redis_url, **dify_settings(dify.base_url)) as app_server:
        status = doctor.main(["--url", f"{app_server.url}/wechat/callback"], load=lambda: settings_of(env))

    # The replica in this process logs to the same output, in JSON.
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]
    assert status == 0
    assert [line[:29].split(maxsplit=1)[1].strip() for line in lines[:-1]] == [
        *("settings", "HTTP and sockets", "batches", "question log", "SECRET_KEY"),
        *("redis", "redis version", "redis memory", "redis persistence", "redis scripts", "redis clock"),
        *("users", "dify default", "dify default chat", "dify default inputs", "dify default clock"),
        "callback default",
    ]
    assert lines[-1] == "17 checks: 11 ok, 4 off, 2 to look at, 0 failed"


def test_faults_give_exit_status_1_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """With Redis, Dify and the callback unreachable, each check has its line, and no line has a secret."""
    env = {
        **settings_for("redis://:fake-redis-password@127.0.0.1:1/1"),
        **dify_settings(f"http://127.0.0.1:{free_port()}"),
        **{"PORT": str(free_port()), "REDIS_HOST": "elsewhere"},
    }

    status = doctor.main([], load=lambda: settings_of(env))

    out = capsys.readouterr().out
    assert status == 1
    assert "REDIS_HOST has no effect, because REDIS_URL is set" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("FAILED")] == ["redis", "dify", "callback"]
    for secret in ("fake-redis-password", TOKEN, AES_KEY, "app-test-key-not-real"):
        assert secret not in out


def test_json_has_every_finding(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object: whether nothing failed, and every finding."""
    env = settings_for(redis_url, PORT=str(free_port()))

    status = doctor.main(["--json", "--userid", "zhangsan"], load=lambda: settings_of(env))

    report = json.loads(capsys.readouterr().out)
    assert (status, report["ok"]) == (1, False)
    assert report["findings"][-1]["check"] == "callback default"
    assert set(report["findings"][0]) == {"check", "outcome", "text", "remedy"}


def test_what_is_off_is_said_with_the_setting_that_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The least settings leave out HTTP, batches and administration; with the settings for them nothing is off."""
    least = settings_for(NO_REDIS, ADMIN_TOKEN="", PORT=str(free_port()))
    more = {"API_KEYS": "fake", "SECRET_KEY": "not-a-real-secret-1", "ADMIN_TOKEN": "fake-admin-token"}

    doctor.main([], load=lambda: settings_of(least))
    off = [line for line in capsys.readouterr().out.splitlines() if line.startswith("off ")]
    doctor.main([], load=lambda: settings_of({**least, **more, "DATABASE_PATH": "/nonexistent/laibao.db"}))
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("off ")]

    assert len(off) == 5
    for line, setting in zip(
        off, ("API_KEYS", "DATABASE_PATH", "DATABASE_PATH", "SECRET_KEY", "ADMIN_TOKEN"), strict=True
    ):
        assert setting in line.partition("-> ")[2]


def test_a_wrong_setting_is_the_only_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings error is printed as a finding, and nothing else is checked."""

    def load() -> Settings:
        raise SettingsError("PORT='x' is wrong: expected a whole number")

    assert doctor.main([], load=load) == 1

    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("FAILED   settings             PORT='x' is wrong: expected a whole number ->")
    assert last == "1 checks: 0 ok, 0 off, 0 to look at, 1 failed"


def test_a_broken_file_of_rules_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is what has to be corrected; the setting that names it is right."""
    (tmp_path / "quotas.yaml").write_text("- {questions: 5/week}", "utf-8")
    # A long path would be cut in the message.
    monkeypatch.chdir(tmp_path)
    env = settings_for(NO_REDIS, QUOTAS_FILE="quotas.yaml")

    *_, finding = doctor.diagnose(doctor._options([]), lambda: settings_of(env))

    assert "QUOTAS_FILE='quotas.yaml' is wrong: expected in rule 1 questions: such as 50/day" in finding.text
    assert "the file that it names" in finding.remedy


def test_a_secret_in_an_error_message_is_masked(tmp_path: Path) -> None:
    """A secret in an error message of a server is printed as ***."""
    env = settings_for(NO_REDIS, AUTH_MODE="external", AUTH_SERVICE_URL="http://127.0.0.1:1/")
    env |= {"AUTH_USER_QUERY": "SELECT 'fake-secret' FROM secret_word_table WHERE 1 = :userid"}
    env |= {"DATABASE_PATH": str(tmp_path / "users.db"), "MYSQL_PASSWORD": "secret_word_table"}
    (tmp_path / "users.db").touch()

    found = list(doctor.diagnose(doctor._options(["--url", NO_REDIS]), lambda: settings_of(env)))

    (sql,) = [finding for finding in found if finding.check == "sql query"]
    assert "no such table: ***" in sql.text


@pytest.mark.full
def test_it_runs_as_a_program() -> None:
    """`python -m tools.doctor` reads the environment and prints one line for a missing setting."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, "-m", "tools.doctor"], cwd="/", env=env, capture_output=True, timeout=60)

    assert done.returncode == 1
    assert b"REDIS_URL is missing" in done.stdout
    assert done.stderr == b""


def test_the_first_lines_do_not_wait_for_the_product() -> None:
    """Loading it takes a second; what the settings alone say needs none of it."""
    code = "import sys, tools.doctor; print({'bootstrap', 'flask', 'sqlalchemy'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "set()"


def test_a_check_that_never_ends_is_a_failure() -> None:
    """After `seconds` the check fails; its findings so far are kept."""
    forever = threading.Event()

    def look() -> Iterator[Finding]:
        yield Finding("slow", "ok", "began")
        forever.wait(60)

    # The check may not even have begun after so short a time.
    found = wait_until(lambda: len(found := findings("slow", look, seconds=0.2)) == 2 and found)
    forever.set()

    assert found
    assert [finding.outcome for finding in found] == ["ok", "failed"]
    assert "no answer within 0.2 s" in found[1].text


@pytest.mark.parametrize("error", [SettingsError("AUTH_USER_QUERY is odd"), KeyError("odd")])
def test_a_check_that_raises_is_a_failure(error: Exception) -> None:
    """Errors of the product and other exceptions become a finding."""

    def look() -> Iterator[Finding]:
        yield Finding("a", "ok", "began")
        raise error

    (_, failure) = findings("a", look)

    assert failure.outcome == "failed"
    assert "odd" in failure.text


# Askers


def test_a_bot_with_one_asker_gets_the_hint_about_creator_only_bots(redis_url: str) -> None:
    """The hint names the person; a second asker, on another replica or days ago by name, ends it.

    A stream that came over HTTP says nothing about WeCom's permissions.
    """
    env = settings_for(redis_url, API_KEYS="not-a-real-api-key")
    bots = settings_of(env).bots.values()
    look = partial(check_askers, bots=bots)

    with AppServer(redis_url, API_KEYS="not-a-real-api-key") as app_server:
        headers, body = {"Authorization": "Bearer not-a-real-api-key"}, {"query": "hello"}
        requests.post(f"{app_server.url}/api/chat", json=body, headers=headers, timeout=30).raise_for_status()
        assert examine(look, env) == []
        for userid in ("zhangsan", "zhangsan"):
            with app_server.user(userid) as user:
                user.sees_finish(user.says("年假怎么申请"), every=0.05)
    finding = only(examine(look, env), "warning")
    with redis_client_for(redis_url) as client:
        client.set("dify_user_name:hr:wangwu", "王五")
        assert examine(look, env) == [finding]
        client.set("dify_user_name:default:lisi", "李四")

    assert (finding.check, "only zhangsan has asked" in finding.text) == ("askers default", True)
    assert "permissions" in finding.remedy
    assert examine(look, env) == []


def test_without_redis_the_askers_are_not_known() -> None:
    """An outage is one warning."""
    env = settings_for(NO_REDIS)

    only(examine(partial(check_askers, bots=settings_of(env).bots.values()), env), "warning")


# Redis


def test_an_unreachable_redis_is_reported_with_its_address() -> None:
    """If nothing listens, the one finding names host, port and the settings."""
    (finding,) = examine(check_redis, settings_for(NO_REDIS))

    assert "127.0.0.1:1" in finding.text
    assert "REDIS_HOST and REDIS_PORT" in finding.remedy


@pytest.mark.parametrize(
    ("options", "commands", "place", "outcome", "check", "words"),
    [
        ((), ["CONFIG SET requirepass right"], "127.0.0.1:{}/1", "failed", "redis", "REDIS_PASSWORD"),
        ((), ["CONFIG SET requirepass right"], ":wrong@127.0.0.1:{}/1", "failed", "redis", "REDIS_PASSWORD"),
        ((), [], "127.0.0.1:{}/99", "failed", "redis", "REDIS_DB"),
        (
            ("--maxmemory", "4gb", "--maxmemory-policy", "allkeys-lru"),
            *([], "127.0.0.1:{}/1", "warning", "redis memory", "allkeys-lru"),
        ),
        (("--maxmemory", "3071mb"), [], "127.0.0.1:{}/1", "warning", "redis files", "FILES_MAX_BYTES to 1073392298"),
        (("--appendonly", "no"), [], "127.0.0.1:{}/1", "warning", "redis persistence", "set appendonly yes"),
        (("--maxmemory", "1"), [], "127.0.0.1:{}/1", "failed", "redis scripts", "raise maxmemory"),
        (
            ("--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "yes"),
            *([], "127.0.0.1:{}/1", "failed", "redis scripts", "primary"),
        ),
        ((), ["ACL SETUSER default -info"], "127.0.0.1:{}/1", "warning", "redis server", ""),
    ],
    ids=["no password", "wrong password", "database", "evicts", "files", "no AOF", "full", "replica", "no INFO"],
)
def test_a_fault_of_redis_is_reported(
    options: tuple[str, ...], commands: list[str], place: str, outcome: str, check: str, words: str
) -> None:
    """A ping does not show them all: the stream that the doctor writes fails on a full server and on a replica."""
    with RedisServer(aof=True, options=options) as server:
        with server.client() as client:
            for command in commands:
                client.execute_command(*command.split())
        found = examine(check_redis, settings_for(f"redis://{place.format(server.port)}"))

    (finding,) = [each for each in found if each.outcome == outcome]
    assert (finding.check, bool(finding.remedy)) == (check, True)
    assert words in finding.text + finding.remedy
    # Managed services may forbid INFO; the other checks still run.
    assert check != "redis server" or [each.check for each in found[-2:]] == ["redis scripts", "redis clock"]


@pytest.mark.parametrize(("secure", "remedy"), [(True, "ssl_ca_certs"), (False, "speaks TLS")])
def test_a_redis_whose_tls_fails_is_reported(secure: bool, remedy: str, tmp_path: Path) -> None:
    """An authority that is not trusted, and a port without TLS."""
    with RawServer(b"-ERR\r\n", tls=self_signed(tmp_path)[0] if secure else None) as server:
        finding = only(examine(check_redis, settings_for(f"rediss://{server.url.partition('//')[2]}/1")), "failed")

    assert remedy in finding.remedy


def test_a_hung_redis_is_reported() -> None:
    """A server that accepts connections and never answers is distinguished from one that does not run."""
    with RedisServer() as server:
        server.pause()
        (finding,) = examine(check_redis, settings_for(server.url()))
        server.resume()

    assert "Timeout" in finding.text
    assert "hung" in finding.remedy


def test_the_doctor_leaves_nothing_in_redis(redis_url: str) -> None:
    """The doctor deletes the stream it wrote as a test."""
    container = Container(settings_of(settings_for(redis_url)))
    list(check_redis(container))

    assert container.redis.keys() == []
    container.close()


@pytest.mark.parametrize(("ahead", "words"), [(1200, "ahead of"), (-1200, "behind")])
def test_a_wrong_clock_is_found_by_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, ahead: int, words: str
) -> None:
    """With a clock that differs from Redis's, callbacks fail as too old or too new; the remedy is NTP."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)

    (finding,) = [found for found in examine(check_redis, settings_for(redis_url)) if found.check == "redis clock"]

    # The clocks are not read at one moment.
    assert finding.outcome == "failed"
    assert re.search(rf"\b1[12]\d\d s {words} Redis's", finding.text)
    assert "WECHAT_TIMESTAMP_WINDOW" in finding.remedy


@pytest.mark.parametrize(
    ("finding", "outcome"),
    [
        *((judge_clock("clock", "Redis", skew, 600.0), "ok") for skew in (-5.0, 30.0)),
        *((judge_clock("clock", "Redis", skew, 600.0), "warning") for skew in (31.0, -600.0)),
        (judge_clock("clock", "Redis", 601.0, 600.0), "failed"),
        (judge_version("5.0.14"), "failed"),
        (judge_version(""), "warning"),
        (judge_version("10.0.0"), "ok"),
        (judge_persistence({"aof_enabled": 1, "aof_last_write_status": "err"}), "failed"),
    ],
)
def test_clocks_versions_and_failed_writes_are_judged(finding: Finding, outcome: str) -> None:
    """Callbacks are accepted within the window; versions compare as numbers; a full disk fails the append-only file."""
    assert finding.outcome == outcome


def test_the_redis_of_batches_is_checked(redis_server: RedisServer, tmp_path: Path) -> None:
    """BATCH_REDIS_URL is checked apart from REDIS_URL."""
    own = {"DATABASE_PATH": str(tmp_path / "b.db"), "BATCH_REDIS_URL": redis_server.url(db=99)}
    env = settings_for(redis_server.url(), **own)

    found = {finding.check: finding for finding in doctor.diagnose(doctor._options([]), lambda: settings_of(env))}

    assert found["redis"].outcome == "ok"
    assert found["batch redis"].outcome == "failed"
    assert "BATCH_REDIS_URL with a database" in found["batch redis"].remedy


# Users and the auth API


@pytest.fixture
def auth() -> Iterator[MockAuth]:
    with MockAuth() as mock:
        yield mock


@pytest.fixture
def external(auth: MockAuth, tmp_path: Path) -> dict[str, str]:
    """The settings of a deployment with an auth API and a user table in SQLite."""
    path = tmp_path / "users.db"
    create_demo_users(f"sqlite:///{path}")
    own = {"AUTH_MODE": "external", "AUTH_SERVICE_URL": auth.url, "DATABASE_PATH": str(path)}
    return settings_for(NO_REDIS, **own, AUTH_USER_QUERY=DEMO_USER_QUERY)


def users(env: dict[str, str], userid: str = "", corp: str = "") -> Finding:
    settings = settings_of(env)
    (finding,) = examine(lambda container: check_users(settings, container, userid, corp), env)
    return finding


def test_the_query_is_checked_without_showing_values(external: dict[str, str], tmp_path: Path) -> None:
    """A dry run shows that it works; a user's columns with a value are named. No empty database is made."""
    assert users(external).outcome == "ok"
    assert users(external, "zhangsan").text == "finds zhangsan, with password, user_code, user_name, phone, gender"
    assert "DATABASE_PATH" in users({**external, "DATABASE_PATH": str(tmp_path / "other.db")}).remedy
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    ("query", "userid", "text", "remedy"),
    [
        ("SELECT user_code, password FROM nowhere WHERE userid = :userid", "", "no such table", "table in"),
        ("SELECT code, password FROM demo_users WHERE userid = :userid", "", "no such column", "column in"),
        ("SELECT user_code, password FROM demo_users WHERE WHERE :userid", "", "syntax error", "correct the SQL"),
        ("SELECT user_code FROM demo_users WHERE userid = :userid", "", "the column password", "AS password"),
        (
            "SELECT user_code, password FROM demo_users WHERE :userid = :userid AND user_code = 'E1001'",
            *("", "an id that nobody has", "compare with :userid"),
        ),
        ("SELECT user_code, password FROM demo_users WHERE :userid = :userid", "zhangsan", "more than one", "one row"),
        (DEMO_USER_QUERY, "lisi", "finds nobody with the userid lisi", "the id WeCom sends"),
        (
            "SELECT user_code, '' AS password FROM demo_users WHERE userid = :userid",
            *("zhangsan", "no password", "fill the column"),
        ),
    ],
)
def test_a_wrong_query_is_explained(external: dict[str, str], query: str, userid: str, text: str, remedy: str) -> None:
    """Every mistake in the query has its own text and remedy."""
    finding = users({**external, "AUTH_USER_QUERY": query}, userid)

    assert finding.outcome == "failed"
    assert text in finding.text
    assert remedy in finding.remedy


@pytest.mark.full
@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"MYSQL_PORT": "1"}, "start MySQL"),
        ({"MYSQL_USER": "nobody", "MYSQL_PASSWORD": "fake-password"}, "MYSQL_USER and MYSQL_PASSWORD"),
        ({"MYSQL_DATABASE": "nowhere"}, "MYSQL_DATABASE"),
        ({"AUTH_USER_QUERY": "SELECT user_code, password FROM nowhere WHERE userid = :userid"}, "table in"),
    ],
)
def test_errors_of_mysql_are_explained(
    external: dict[str, str], maria_server: MariaServer, changes: dict[str, str], remedy: str
) -> None:
    """The error numbers of a real MariaDB lead to the setting to correct."""
    create_demo_users(maria_server.fresh_database())
    mysql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(maria_server.port), "MYSQL_DATABASE": "laibao"}
    env = {**external, **mysql}
    del env["DATABASE_PATH"]

    assert users(env, "zhangsan").outcome == "ok"
    assert remedy in users({**env, **changes}, "zhangsan").remedy


def test_the_other_modes_are_checked_with_a_userid() -> None:
    """An allowlist names the users who may ask; mode none allows everyone, which is a warning."""
    allowlist = settings_for(NO_REDIS, AUTH_MODE="allowlist", AUTH_ALLOWLIST="zhangsan,acme:lisi")

    assert users(allowlist).text == "2 on the allowlist"
    assert users(allowlist, "zhangsan").text == "zhangsan may ask"
    assert users(allowlist, "lisi", "acme").outcome == "ok"
    assert "AUTH_ALLOWLIST" in users(allowlist, "wangwu").remedy
    assert users(settings_for(NO_REDIS)).outcome == "warning"
    assert users(settings_for(NO_REDIS), "wangwu").outcome == "ok"


def test_the_auth_api_is_called_without_a_password(external: dict[str, str], auth: MockAuth) -> None:
    """No real user's credentials are sent. An API that accepts a user who does not exist checks no passwords."""
    (finding,) = examine(check_auth_api, external)
    assert finding.outcome == "ok"
    assert list(auth.calls) == ["wechatlaibao-probe"]

    auth.says(200, {"success": True, "data": "token-for-anybody"})
    assert only(examine(check_auth_api, external), "warning").remedy == "make the auth API check the password"


@pytest.mark.parametrize(
    ("status", "body", "text", "remedy"),
    [
        (500, b"oops", "HTTP 500", "the auth API, or the proxy before it, fails"),
        (500, {"success": False, "message": "oops"}, "HTTP 500", "fails"),
        (404, b"<html>", "HTTP 404", "correct the path"),
        (405, {"detail": "Method Not Allowed"}, "HTTP 405", "AUTH_SERVICE_METHOD"),
        (200, b"<html>Please log in</html>", "not JSON", "a web page"),
        (200, [], "not a JSON object", "another API"),
        (200, {"code": 0, "data": {"token": "x"}}, "without a success", "another API"),
        (200, {"success": "true", "data": "x"}, "without a success", "another API"),
        (200, {"success": True}, "success without a token", "another API"),
        (302, b"", "a redirect", "to where it leads"),
        (429, {"success": False}, "HTTP 429", "rate limit"),
    ],
)
def test_replies_that_are_not_the_auth_apis_are_explained(
    external: dict[str, str], auth: MockAuth, status: int, body: Any, text: str, remedy: str
) -> None:
    """A reply to a login that no auth API would give is explained."""
    auth.says(status, body)

    (finding,) = examine(check_auth_api, external)

    assert finding.outcome == "failed"
    assert text in finding.text
    assert remedy in finding.remedy


def test_an_unreachable_auth_api_is_explained(external: dict[str, str], tmp_path: Path) -> None:
    """A closed port and an untrusted certificate have different remedies."""
    (away,) = examine(check_auth_api, {**external, "AUTH_SERVICE_URL": f"http://127.0.0.1:{free_port()}/"})
    with RawServer(b"", tls=self_signed(tmp_path)[0]) as server:
        (untrusted,) = examine(check_auth_api, {**external, "AUTH_SERVICE_URL": server.url})

    assert "start the auth API" in away.remedy
    assert "certificate" in untrusted.remedy


# Dify


def app(base_url: str, **changes: str) -> list[Finding]:
    env = settings_for(NO_REDIS, **dify_settings(base_url, **changes))
    provider = settings_of(env).provider
    return examine(lambda container: check_dify("default", provider, container.providers["default"], 600.0), env)


def test_each_app_of_the_rules_is_checked(dify: MockDify, tmp_path: Path) -> None:
    """As the app of a bot is."""
    rules = tmp_path / "access.yaml"
    rules.write_text("- {allow: true, use: it-app}", "utf-8")
    with MockDify(api_key="app-another") as other:
        apps = json.dumps({"it-app": {"DIFY_BASE_URL": dify.base_url}, "hr-app": {"DIFY_BASE_URL": other.base_url}})
        env = settings_for(NO_REDIS, **dify_settings(dify.base_url, APPS=apps, ACCESS_FILE=str(rules)))
        found = {each.check: each for each in doctor.diagnose(doctor._options([]), lambda: settings_of(env))}

    assert "bots: default by dify, app:it-app by dify, app:hr-app by dify;" in found["settings"].text
    assert [found[f"dify {name}"].outcome for name in ("default", "app:it-app", "app:hr-app")] == ["ok", "ok", "failed"]
    assert "DIFY_API_KEY" in found["dify app:hr-app"].remedy


def test_a_good_app_is_named(dify: MockDify) -> None:
    """Address, name and mode of the app are shown; its inputs are complete."""
    kind, chat, inputs, clock = app(dify.base_url)

    assert kind.text == f"{dify.base_url}/v1 has the app 'mock', mode advanced-chat"
    assert chat.text == f"{dify.base_url}/v1/chat-messages takes questions"
    assert (inputs.outcome, clock.outcome) == ("ok", "ok")
    assert dify.requests == []


@pytest.mark.parametrize("endpoint", ["/v1/chat-message", "/v1/info", "/v1/completion-messages"])
def test_a_wrong_chat_endpoint_is_explained(dify: MockDify, endpoint: str) -> None:
    """If /info works and questions get 404, the finding names DIFY_CHAT_ENDPOINT and the URL."""
    finding = only(app(dify.base_url, DIFY_CHAT_ENDPOINT=endpoint), "failed")

    assert (finding.check, f"{dify.base_url}{endpoint}: HTTP 404" in finding.text) == ("dify default chat", True)
    assert "DIFY_CHAT_ENDPOINT" in finding.remedy


@pytest.mark.parametrize(
    ("status_line", "body", "wrong"),
    [
        ("400 Bad Request", '{"code": "invalid_param"}', ""),
        ("400 Bad Request", "<html>", "HTTP 400"),
        ("405 Method Not Allowed", "<html>", "HTTP 405"),
        ("200 OK", "<html>", "HTTP 200"),
        ("302 Found", "", "HTTP 302"),
        ("502 Bad Gateway", "<html>", "HTTP 502"),
    ],
)
def test_the_chat_address_is_checked_with_an_empty_question(status_line: str, body: str, wrong: str) -> None:
    """Dify rejects an empty question with 400 as JSON; every other reply means another server or path."""
    head = f"HTTP/1.1 {status_line}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with RawServer((head + body).encode()) as server, closing(dify_service(base_url=server.url)) as service:
        if not wrong:
            service.check_chat(authorization="Bearer x")
            return
        with pytest.raises(ProviderError, match=wrong):
            service.check_chat(authorization="Bearer x")


def test_a_wrong_clock_is_found_by_dify(dify: MockDify) -> None:
    """The Date header of Dify is compared too, because Redis may run on the same machine as the gateway."""
    dify.clock_ahead = 1200.0

    finding = only(app(dify.base_url), "failed")

    # A Date header has whole seconds, and is read later than it was written.
    assert finding.check == "dify default clock"
    assert re.search(r"\b1[12]\d\d s behind Dify's", finding.text)


def test_a_value_that_a_select_does_not_offer_is_named(dify: MockDify) -> None:
    """Dify would reject every question with it; values with a user's placeholder are not checked."""
    dify.user_input_form = [
        {"select": {"variable": "lang", "required": True, "options": ["zh", "en"]}},
        {"select": {"variable": "team", "required": False, "options": ["a", "b"]}},
        {"select": {"variable": "who", "required": True, "options": ["x"]}},
    ]

    finding = only(app(dify.base_url, DIFY_INPUTS='{"lang": "fr", "team": "", "who": "{user_code}"}'), "failed")

    assert "lang is 'fr', expected one of 'zh', 'en'" in finding.text
    assert {f.outcome for f in app(dify.base_url, DIFY_INPUTS='{"lang": "en", "team": "b", "who": "x"}')} == {"ok"}


def test_a_dify_with_user_tokens_is_only_a_warning(dify: MockDify) -> None:
    """In mode user_token the doctor has no user's token, so a 401 is only a warning."""
    dify.api_key = "another"
    env = settings_for(NO_REDIS, **dify_settings(dify.base_url))
    patched = settings_of(env).provider.model_copy(update={"dify_auth_mode": "user_token", "dify_api_key": ()})

    found = examine(lambda container: check_dify("default", patched, container.providers["default"], 600.0), env)

    assert only(found, "warning").remedy == "ask a question"


@pytest.mark.parametrize(
    ("status_line", "body", "remedy"),
    [
        ("403 Forbidden", '{"code": "app_api_disabled"}', "switch the app's API on"),
        ("404 Not Found", "<html>", "correct DIFY_BASE_URL"),
        ("200 OK", "<!DOCTYPE html>", "web page, not the API"),
        ("308 Permanent Redirect", "", "to where it leads"),
        ("502 Bad Gateway", "<html>", "proxy before it is down"),
    ],
)
def test_replies_that_are_not_difys_are_explained(status_line: str, body: str, remedy: str) -> None:
    """Every wrong reply leads to the setting or server to correct."""
    head = f"HTTP/1.1 {status_line}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with RawServer((head + body).encode()) as server:
        (finding,) = app(server.url)

    assert finding.outcome == "failed"
    assert remedy in finding.remedy


def test_an_app_that_cannot_be_asked_is_explained(dify: MockDify) -> None:
    """Nothing listens at DIFY_BASE_URL; the key is wrong; a workflow's key works for /info and fails for questions."""
    (away,) = app(f"http://127.0.0.1:{free_port()}")
    assert "DIFY_BASE_URL resolves" in away.remedy

    (refused,) = app(dify.base_url, DIFY_API_KEY="app-fake-wrong-key")
    assert "HTTP 401" in refused.text
    assert "DIFY_API_KEY" in refused.remedy

    dify.mode = "workflow"
    assert "chatflow" in only(app(dify.base_url), "failed").remedy


def test_missing_inputs_are_named(dify: MockDify) -> None:
    """An input that the app requires and DIFY_INPUTS lacks is named; one that is set is not."""
    dify.user_input_form = [{"text-input": {"variable": name, "required": True}} for name in ("city", "lang")]

    finding = only(app(dify.base_url, DIFY_INPUTS='{"lang": "zh"}'), "failed")

    assert "requires city, which" in finding.text
    assert 'DIFY_INPUTS={"city": "…"}' in finding.remedy


def test_an_unpublished_app_is_found_by_its_parameters() -> None:
    """/info works and /parameters fails."""
    bad_request = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with MockDify() as answers, RawServer(bad_request) as refuses:
        env = settings_for(NO_REDIS, **dify_settings(refuses.url))
        asked = settings_of(settings_for(NO_REDIS, **dify_settings(answers.base_url))).provider
        found = examine(lambda container: check_dify("default", asked, container.providers["default"], 600.0), env)

    assert only(found, "failed").remedy == "publish the app in Dify"


# The callback


BOT = settings_of(settings_for(NO_REDIS)).bots["default"]


@pytest.fixture
def callback() -> Iterator[StubCallback]:
    with StubCallback() as stub:
        yield stub


def echo(url: str) -> Finding:
    (finding,) = check_callback("default", BOT, url)
    return finding


def test_a_correct_echo_is_ok(callback: StubCallback) -> None:
    """The reply is the exact plaintext within a second."""
    assert echo(callback.url).outcome == "ok"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda plain: f'"{plain}"', "quotes"),
        (lambda plain: plain + "\n", "line end"),
        (lambda plain: "\ufeff" + plain, "byte order mark"),
        (lambda plain: f"<html>{plain}</html>", "web page"),
        (lambda plain: "success", "something else"),
        (lambda plain: "", "something else"),
    ],
)
def test_an_echo_that_is_not_exact_is_explained(callback: StubCallback, spoil: Callable[[str], str], text: str) -> None:
    """WeCom compares byte by byte, so the finding names what was added to the echo."""
    callback.envelope = lambda envelope: {"plain": spoil(envelope["plain"])}

    finding = echo(callback.url)

    assert finding.outcome == "failed"
    assert text in finding.text
    assert finding.remedy


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "login"), (403, "firewall"), (404, "/wechat/callback"), (502, "upstream"), (500, "logs")],
)
def test_a_status_other_than_200_is_explained(callback: StubCallback, status: int, remedy: str) -> None:
    """Each status leads to the component to check."""
    callback.status = status

    finding = echo(callback.url)

    assert f"HTTP {status}" in finding.text
    assert remedy in finding.remedy


def test_a_redirect_shows_where_it_leads() -> None:
    """The target is shown without its query, which carries the echo."""
    reply = b"HTTP/1.1 301 Moved\r\nLocation: https://bot.example.com/x?echostr=abc\r\nContent-Length: 0\r\n\r\n"
    with RawServer(reply) as server:
        finding = echo(server.url)

    assert finding.text.endswith("a redirect to https://bot.example.com/x")


def test_a_gateway_with_other_keys_is_explained(redis_url: str) -> None:
    """The real gateway rejects a signature with another token; the remedy names the check in its log."""
    with AppServer(redis_url, WECHAT_TOKEN="another-fake-token") as app_server:
        finding = echo(f"{app_server.url}/wechat/callback")

    assert finding.text.endswith("the gateway refused it")
    assert "bad_signature" in finding.remedy


def test_a_gateway_that_cannot_be_reached_is_explained(tmp_path: Path) -> None:
    """Refused, even where the URL has words like "ssl"; a self-signed certificate; a URL without scheme."""
    away = echo(f"http://127.0.0.1:{free_port()}/ssl-timed/wechat/callback")
    with RawServer(b"", tls=self_signed(tmp_path)[0]) as server:
        untrusted = echo(server.url)

    assert ("Connection refused" in away.text, "start the gateway" in away.remedy) == (True, True)
    assert ("certificate" in untrusted.text, "public authority" in untrusted.remedy) == (True, True)
    assert echo("bot.example.com/wechat/callback").remedy == "correct --url"


@pytest.mark.full
def test_a_server_that_never_replies_is_explained() -> None:
    """A server that accepts the connection and sends nothing is distinguished from one that does not run."""
    with RawServer(b"", hang=True) as server:
        finding = echo(server.url)

    assert "timed out" in finding.text


def test_a_private_authority_may_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQUESTS_CA_BUNDLE also applies to this machine's address; proxies of the environment do not."""
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    with RawServer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", tls=context) as server:
        finding = echo(server.url)

    assert "HTTP 404" in finding.text


def test_a_slow_echo_is_a_failure_if_the_second_try_is_slow(callback: StubCallback) -> None:
    """The first try may include a cold start, so a second one decides; WeCom waits one second."""
    ticks = count(0, 2)
    slow = list(check_callback("default", BOT, callback.url, clock=lambda: float(next(ticks))))
    times = iter([0.0, 2.0, 2.0, 2.1])
    warmed = list(check_callback("default", BOT, callback.url, clock=lambda: next(times)))

    assert "after 2.0 s; WeCom waits 1 s" in only(slow, "failed").text
    assert "in 100 ms" in warmed[0].text


def test_every_bot_has_its_address() -> None:
    """Named bots are below the default bot's address; an address that ends in a bot's name is only that bot's."""
    more = {"hr": {"WECHAT_TOKEN": "fake-token-of-hr", "WECHAT_ENCODING_AES_KEY": AES_KEY}}
    bots = settings_of(settings_for(NO_REDIS, WECHAT_BOTS=json.dumps(more))).bots

    base = "https://bot.example.com/wechat/callback"
    assert callback_urls(f"{base}/", bots) == {"default": base, "hr": f"{base}/hr"}
    assert callback_urls(f"{base}/hr", bots) == {"hr": f"{base}/hr"}


@pytest.mark.parametrize(("variable", "check"), [("LOG_DIR", "logs"), ("BATCH_STORAGE_PATH", "batch files")])
def test_a_folder_that_cannot_be_written_is_named(variable: str, check: str, tmp_path: Path) -> None:
    """A folder that would stop the start fails; one that can be created is ok and is not created."""
    (tmp_path / "file").write_text("")
    # No file can be created in /proc, not even by root.
    folders = {tmp_path / "new" / "files": "ok", tmp_path / "file": "failed", Path("/proc/nope"): "failed"}

    for folder, outcome in folders.items():
        env = settings_for(NO_REDIS, **{variable: str(folder)})
        found = {each.check: each for each in doctor.diagnose(doctor._options([]), partial(settings_of, env))}
        assert found[check].outcome == outcome
        assert outcome == "ok" or variable in found[check].remedy
    assert not (tmp_path / "new").exists()
