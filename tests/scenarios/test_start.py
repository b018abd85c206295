"""Starting by hand: `python app.py` in the place of the originals' commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.house import ROOT, Replica, settings_for, wecom_user
from tests.servers import RedisServer, wait_until

pytestmark = pytest.mark.scenario

SOURCES = ("channels", "config", "services", "utils", "demo")


def test_python_app_py_serves_with_one_worker(redis_server: RedisServer, tmp_path: Path) -> None:
    """It is the same gateway, whatever WORKERS says, and ends when it is told to."""
    env = settings_for(redis_server.url(), WORKERS="3")
    replica = Replica(env, tmp_path, command=["app.py"])
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
    copy = tmp_path / "copy"
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, copy / name)
    env = settings_for(redis_server.url(), RELOAD="true", DRAIN_SECONDS="0")
    replica = Replica(env, tmp_path, command=["app.py"], cwd=copy)
    try:
        replica.wait_ready()
        before = replica.workers

        (copy / "app.py").write_text((copy / "app.py").read_text() + "\n")

        wait_until(lambda: replica.ready and replica.workers and replica.workers != before, timeout=40.0)
    finally:
        replica.kill()
