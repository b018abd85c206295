"""Start by hand with `python app.py` and `gunicorn`; wrong settings stop the start with one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.replicas import GUNICORN, ROOT, Replica, replicas, settings_for, wecom_user
from tests.support.servers.forked_process import ForkedProcess
from tests.support.servers.processes import RedisServer, free_port, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

SOURCES = ("bootstrap", "channels", "config", "server", "services", "utils", "demo")


#: Wrong settings, by the variable that the error line names. `{taken}` is a port in use.
WRONG = {
    "REDIS_HOST": {"REDIS_URL": "", "REDIS_HOST": "redis.example:6379"},
    "RAG_PROVIDER": {"RAG_PROVIDER": "chatgpt", "WECHAT_TOKN": "a slip that warns"},
    "LOG_DIR": {"LOG_DIR": "/etc/hostname"},
    "HOST": {"HOST": "999.1.1.1"},
    "HOST ": {"HOST": "192.0.2.1"},
    "PORT": {"PORT": "{taken}", "WECHAT_TOKN": "a slip that warns"},
    "OPS_PORT": {"OPS_PORT": "{taken}"},
    "DATABASE_PATH": {"DATABASE_PATH": "/nope/x.db"},
    "BATCH_STORAGE_PATH": {"BATCH_STORAGE_PATH": "/proc/nope"},
    "AUTH_USER_QUERY": {"AUTH_USER_QUERY": "DELETE FROM users WHERE userid = :userid"},
    "DIFY_API_KEY": {"DIFY_API_KEY": "Bearer app-not-real"},
    "ADMIN_TOKEN": {"ADMIN_TOKEN": "1234567"},
    "STREAM_MAX_BYTES": {"STREAM_MAX_BYTES": "20479"},
    "STREAM_LEASE": {"STREAM_LEASE": "1"},
    "ACCESS_FILE": {"ACCESS_FILE": "/etc/hostname"},
    "WORDS_FILE": {"WORDS_FILE": "/nope/words.txt"},
    "DEPARTMENTS_FILE": {"DEPARTMENTS_FILE": "/etc/hostname"},
    "RAG_PROVIDER ": {"RAG_PROVIDER": "json:Nobody"},
}
#: Commands that are executed anew, without the fork server.
COMMANDS = {"gunicorn": ("-m", "gunicorn"), "app.py": (str(ROOT / "app.py"),)}


def failed_start(env: Mapping[str, str], folder: Path, command: tuple[str, ...]) -> tuple[int, str]:
    """Start the product with wrong settings; return its exit status and its output."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env, printed = {**inherited, "PYTHONPATH": str(ROOT), **env}, folder / "printed"
    if command is GUNICORN:
        forked = ForkedProcess(command[2:], cwd=folder, env=env, log=printed)
        return forked.wait(60), printed.read_text()
    with printed.open("wb") as log:
        process = [sys.executable, *command]
        done = subprocess.run(process, cwd=folder, env=env, stdout=log, stderr=log, timeout=60, check=False)
    return done.returncode, printed.read_text()


def check_refused(name: str, command: tuple[str, ...], folder: Path) -> None:
    """Check that the output is one line with the variable's name: no log line, no warning, no traceback."""
    (folder / "gunicorn.conf.py").symlink_to(ROOT / "gunicorn.conf.py")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        wrong = {variable: value.format(taken=port) for variable, value in WRONG[name].items()}
        env = {**settings_for("redis://127.0.0.1:9/1"), "HOST": "127.0.0.1", "PORT": str(free_port()), **wrong}

        status, printed = failed_start(env, folder, command)

    (line,) = printed.splitlines()
    assert status == 1
    assert line.startswith((f"wechatlaibao: {name.strip()}=", f"wechatlaibao: {name.strip()}: "))
    assert "not-real" not in line


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_stops_the_start_with_one_line(name: str, tmp_path: Path) -> None:
    """Gunicorn prints this line only, for each wrong setting."""
    check_refused(name, GUNICORN, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["RAG_PROVIDER", "PORT"])
def test_a_fresh_process_prints_the_one_line_only(name: str, command: str, tmp_path: Path) -> None:
    """Imports print nothing either, for a setting that the product rejects and for one that the system rejects."""
    check_refused(name, COMMANDS[command], tmp_path)


def test_an_unknown_setting_is_warned_of_after_the_start(redis_server: RedisServer, tmp_path: Path) -> None:
    """The warning comes after all settings are accepted. The replica runs in a folder without a developer's `.env`."""
    with replicas(1, settings_for(redis_server.url(), WECHAT_TOKN="x"), tmp_path) as (replica,):
        assert replica.log.index("Listening at") < replica.log.index("WECHAT_TOKN is not a setting")
        assert Path(f"/proc/{replica.process.pid}/cwd").resolve() == tmp_path


def test_a_gunicorn_started_by_usr2_keeps_the_port(redis_server: RedisServer, tmp_path: Path) -> None:
    """After USR2 the new gunicorn uses the old one's listeners, and does not report the port as taken."""
    # By its script: with `python -m gunicorn`, gunicorn's folder would precede the product's on the path after USR2.
    script = str(Path(sys.executable).with_name("gunicorn"))
    replica = Replica(settings_for(redis_server.url()), tmp_path, command=(script, *GUNICORN[2:]))
    try:
        first = set(replica.wait_ready().workers)

        replica.signal(signal.SIGUSR2)
        wait_until(lambda: replica.log.count("Listening at") == 2 and replica.log.count('"started"') == 2, 30.0)
        (successor,) = set(replica.workers) - first
        replica.signal(signal.SIGTERM)

        assert replica.process.wait(30) == 0
        wait_until(lambda: replica.ready)
        os.kill(successor, signal.SIGHUP)
        wait_until(lambda: replica.log.count('"started"') == 3 and replica.ready, 30.0)
    finally:
        os.killpg(replica.process.pid, signal.SIGKILL)
        replica.process.wait(10)


def started(env: Mapping[str, str], tmp_path: Path, *command: str, settings: str = "") -> Replica:
    """Start a copy of the product as its README does, in its own folder with these settings in `.env`."""
    copy = tmp_path / "copy"
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name)
    for name in ("app.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, copy / name)
    (copy / ".env").write_text(settings)
    return Replica({**env, "PYTHONPATH": str(copy)}, tmp_path, command=command, cwd=copy)


def test_plain_gunicorn_serves_with_its_workers(redis_server: RedisServer, tmp_path: Path) -> None:
    """`gunicorn` without arguments serves in the project's folder, with the settings of its `.env`."""
    env = settings_for(redis_server.url())
    del env["WORKERS"]
    replica = started(env, tmp_path, "-m", "gunicorn", settings="WORKERS=2\n")
    try:
        replica.wait_ready()

        wait_until(lambda: len(replica.workers) == 2)
    finally:
        replica.kill()


def test_python_app_py_serves_with_one_worker(redis_server: RedisServer, tmp_path: Path) -> None:
    """`python app.py` serves with one worker, whatever WORKERS says, and ends on SIGTERM.

    With RELOAD=true, for development, it restarts when a file changes.
    """
    env = settings_for(redis_server.url(), WORKERS="3", RELOAD="true", DRAIN_SECONDS="0")
    replica = started(env, tmp_path, "app.py")
    app = tmp_path / "copy" / "app.py"
    try:
        with wecom_user([replica.wait_ready().url]) as user:
            assert user.sees_finish(user.says("年假"), every=0.1)
        before = replica.workers
        assert len(before) == 1

        app.write_text(app.read_text() + "\n")

        wait_until(lambda: replica.ready and replica.workers and replica.workers != before, timeout=40.0)
        assert replica.stop() == 0
    finally:
        replica.kill()
