"""The overview shows the replicas that run: their load, that one drains, and not one that was killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import ADMIN_TOKEN, Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.scenario


def shown(replica: Replica) -> dict[int, dict[str, Any]]:
    """Return the replicas that one of them shows, by the process id."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    data = requests.get(f"{replica.url}/api/admin/overview", headers=headers, timeout=TIMEOUT).json()["data"]
    return {int(each["name"].rpartition(":")[2]): each for each in data["replicas"]}


def test_replicas_are_shown_until_they_end(redis_url: str, tmp_path: Path) -> None:
    """A draining one says so while it has an answer to end; one that was killed is gone."""
    with MockDify(limit=600.0) as dify:
        dify.holds_at = 2
        # With such a lease no pause of a busy machine lets another replica take the answer over.
        slow = {"DRAIN_SECONDS": "600", "STREAM_LEASE": "1000"}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **slow)
        with replicas(2, env, tmp_path) as (one, other):
            own, others = one.workers[0], other.workers[0]

            def state() -> dict[int, tuple[int, bool]]:
                return {pid: (each["answers"], each["draining"]) for pid, each in shown(one).items()}

            with wecom_user([other.url]) as user:
                user.says("年假怎么申请？")
            wait_until(lambda: state() == {own: (0, False), others: (1, False)}, timeout=TIMEOUT)
            other.signal(signal.SIGTERM)
            wait_until(lambda: state() == {own: (0, False), others: (1, True)}, timeout=TIMEOUT)
            other.kill()
            wait_until(lambda: shown(one).keys() == {own}, timeout=TIMEOUT)
            dify.holds_at = None
