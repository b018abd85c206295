"""`python -m tools.wecom --check` against the product as it is deployed: gunicorn, Redis and an app of Dify."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.support.replicas import AES_KEY, ROOT, TOKEN, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full]


def check(url: str, folder: Path, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the tool as a program; return its status and its findings by check."""
    keys = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, **env}
    done = subprocess.run(
        [sys.executable, "-m", "tools.wecom", url, "--check", "--json", "--every", "0.2"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **keys},
        capture_output=True,
        timeout=120,
    )
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["check"]: finding for finding in findings}


@pytest.mark.timeout(240)
def test_the_product_conforms_and_is_asked_twice(tmp_path: Path) -> None:
    """Every check is ok. Of all messages, the redelivered ones included, two questions reach Dify."""
    with MockDify() as dify, RedisServer() as redis:
        env = settings_for(redis.url(), **dify_settings(dify.base_url))
        with replicas(1, env, tmp_path) as (replica,):
            status, found = check(replica.url, tmp_path)

        assert {name: each for name, each in found.items() if each["outcome"] != "ok"} == {}
        assert (status, len(found)) == (0, 13)
        assert [request.body["query"] for request in dify.requests] == ["你好", "你好"]


@pytest.mark.timeout(240)
def test_wrong_keys_and_an_open_time_window_are_found(tmp_path: Path) -> None:
    """With another token nothing but the refusals is ok; with a window of days a recorded callback works again."""
    with RedisServer() as redis:
        env = settings_for(redis.url(), WECHAT_TIMESTAMP_WINDOW="200000")
        with replicas(1, env, tmp_path) as (replica,):
            status, found = check(replica.url, tmp_path)
            other_status, other = check(replica.url, tmp_path, WECHAT_TOKEN="ANOTHERTOKEN")

    assert [name for name, each in found.items() if each["outcome"] != "ok"] == ["stale timestamp"]
    assert [name for name, each in other.items() if each["outcome"] == "ok"] == ["forged callbacks", "stale timestamp"]
    assert (status, other_status) == (1, 1)
    assert "keys" in other["question"]["remedy"]
