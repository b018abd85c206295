"""Starting by hand: `python app.py` in the place of the originals' commands."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.house import ROOT, Replica, settings_for, wecom_user
from tests.servers import RedisServer, wait_until

pytestmark = pytest.mark.scenario

SOURCES = ("channels", "config", "services", "utils", "demo")


def started(env: Mapping[str, str], tmp_path: Path, *command: str) -> Replica:
    """Start a copy of the product as its README does, in a folder of its own: nobody's `.env` lies there."""
    copy = tmp_path / "copy"
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, copy / name)
    return Replica({**env, "PYTHONPATH": str(copy)}, tmp_path, command=command, cwd=copy)


def test_plain_gunicorn_serves_with_its_workers(redis_server: RedisServer, tmp_path: Path) -> None:
    """The one word `gunicorn` in the project's folder serves production, by the settings of its `.env`."""
    env = settings_for(redis_server.url())
    del env["WORKERS"]
    replica = started(env, tmp_path, "-m", "gunicorn")
    try:
        replica.wait_ready()
        replica.stop()
        (tmp_path / "copy" / ".env").write_text("WORKERS=2\n")

        replica = Replica(
            {**env, "PYTHONPATH": str(tmp_path / "copy")}, tmp_path, command=("-m", "gunicorn"), cwd=tmp_path / "copy"
        ).wait_ready()

        wait_until(lambda: len(replica.workers) == 2)
    finally:
        replica.kill()


def test_nobodys_env_file_changes_a_test(redis_server: RedisServer, tmp_path: Path) -> None:
    """Replicas of tests, and of `make chaos`, start where no `.env` lies."""
    replica = Replica(settings_for(redis_server.url()), tmp_path)
    try:
        replica.wait_ready()
        assert Path(f"/proc/{replica.process.pid}/cwd").resolve() == tmp_path
    finally:
        replica.kill()


def test_python_app_py_serves_with_one_worker(redis_server: RedisServer, tmp_path: Path) -> None:
    """It is the same gateway, whatever WORKERS says, and ends when it is told to."""
    env = settings_for(redis_server.url(), WORKERS="3")
    replica = started(env, tmp_path, "app.py")
    try:
        replica.wait_ready()

        with wecom_user([replica.url]) as user:
            assert user.sees_finish(user.says("年假"), every=0.1)
        assert len(replica.workers) == 1
        assert replica.stop() == 0
    finally:
        replica.kill()


def test_reload_starts_again_when_a_file_changes(redis_server: RedisServer, tmp_path: Path) -> None:
    """RELOAD=true is for whoever edits the code."""
    env = settings_for(redis_server.url(), RELOAD="true", DRAIN_SECONDS="0")
    replica = started(env, tmp_path, "app.py")
    app = tmp_path / "copy" / "app.py"
    try:
        replica.wait_ready()
        before = replica.workers

        app.write_text(app.read_text() + "\n")

        wait_until(lambda: replica.ready and replica.workers and replica.workers != before, timeout=40.0)
    finally:
        replica.kill()
