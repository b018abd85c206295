"""A replica is killed while it calls a batch's webhook: another one calls it again."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support.batches.receiver import WebhookReceiver
from tests.support.replicas import replicas, settings_for
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(240)]

SECRET = "obviously-fake-secret-key-of-tests-0123456789"
KEY = "obviously-fake-api-key-of-tests"


def test_a_webhook_outlives_the_replica_that_calls_it(maria_server: MariaServer, tmp_path: Path) -> None:
    """The receiver holds the first call, whose replica is killed; the next replica's call arrives, signed."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        receiver = stack.enter_context(WebhookReceiver(held=True))
        maria_server.fresh_database("webhooks")
        env = settings_for(
            redis.url(),
            SECRET_KEY=SECRET,
            API_KEYS=KEY,
            WEBSOCKET_AUTH="key",
            WEBHOOK_HOSTS="127.0.0.1",
            MYSQL_HOST="127.0.0.1",
            MYSQL_PORT=str(maria_server.port),
            MYSQL_DATABASE="webhooks",
            MYSQL_USER="root",
        )
        (first,) = stack.enter_context(replicas(1, env, tmp_path))
        body = {"name": "run", "texts": ["年假有几天？"], "options": {"webhook_url": receiver.url}}
        sent = requests.post(f"{first.url}/api/batch/tasks", json=body, headers={"X-API-Key": KEY}, timeout=30)
        assert sent.status_code == 201, sent.text
        wait_until(lambda: len(receiver.calls) == 1, timeout=60.0)

        first.kill()
        receiver.release()
        (second,) = stack.enter_context(replicas(1, env, tmp_path))
        wait_until(lambda: len(receiver.calls) == 2, timeout=120.0)

        call, path = receiver.calls[1], f"/api/batch/tasks/{sent.json()['data']['task_id']}"
        assert call.signature == hmac.new(SECRET.encode(), call.body, hashlib.sha256).hexdigest()
        assert call.told["task"]["status"] == "completed"

        def state() -> str:
            shown = requests.get(f"{second.url}{path}", headers={"X-API-Key": KEY}, timeout=30)
            return str(shown.json()["data"]["webhook"]["state"])

        wait_until(lambda: state() == "delivered", timeout=60.0)
    assert "obviously-fake" not in first.log + second.log
