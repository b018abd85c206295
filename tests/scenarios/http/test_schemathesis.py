"""Schemathesis tests the REST endpoints against their OpenAPI document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from tests.support.replicas import Replica, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(400)]

KEY = "obviously-fake-api-key"
SEED = 20261121
#: Maximum number of generated requests for an operation and phase; the coverage phase has its own, fixed number.
EXAMPLES = 6
#: Timeout in seconds: an idle machine needs fewer than 30.
TIMEOUT = 300

#: Schemathesis's configuration: all checks except those for which a schema cannot give the rule.
CONFIG = """
# DELETE cancels an answer or a task, which can still be read until it expires.
[checks.use_after_free]
enabled = false

# A list with too many texts may also exceed the limit in bytes, which is checked first.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]

[[operations]]
include-name = [
  # An id may be in the body or in the header, not in both.
  "POST /api/chat",
  # The model has to exist, and the last message has to be the user's.
  "POST /v1/chat/completions",
  # A push has one target and one content, and the replica has no bot that could send it.
  "POST /api/push",
  # In a form, options are JSON in a string, and the file's name gives its format.
  "POST /api/batch/tasks",
  "POST /api/batch/preview",
  # The replica's provider takes no files.
  "POST /api/files",
  # A cursor is the `next` of a page.
  "GET /api/admin/questions",
  "GET /api/admin/feedback",
  # A download takes no page parameters.
  "GET /api/batch/tasks/{task_id}/results",
]
checks.positive_data_acceptance.enabled = false

# With those of all other operations its wrong tokens would be more than an address may show in a minute.
[[operations]]
include-tag = ["administration"]
checks.ignored_auth.enabled = false

# So would its generated tokens.
[[operations]]
include-name = ["POST /api/admin/session"]
phases.coverage.enabled = false
phases.fuzzing.enabled = false
phases.stateful.enabled = false
"""


@pytest.fixture
def replica(redis_server: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica without rate limits, with an API key."""
    env = settings_for(
        redis_server.url(5),
        WEBSOCKET_AUTH="key",
        API_KEYS=KEY,
        ADMIN_TOKEN=KEY,
        DATABASE_PATH=str(tmp_path / "laibao.db"),
        RATE_LIMIT_USER="off",
        RATE_LIMIT_IP="off",
    )
    with replicas(1, env, tmp_path) as (replica,):
        yield replica


def examine(replica: Replica, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Schemathesis on the replica, with the same seed each time."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    options = ("--seed", str(SEED), "--max-examples", str(EXAMPLES), "--request-timeout", "60")
    command = (sys.executable, "-m", "schemathesis.cli", "run", f"{replica.url}/openapi.json", *options)
    header = ("--header", f"Authorization: Bearer {KEY}", "--continue-on-failure", "--no-color")
    return subprocess.run([*command, *header], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)


def errors(log: str) -> list[str]:
    """Return a log's lines at ERROR and above, but for one: on a busy machine one reply of Redis may be late."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    slow = [line for line in lines if line["message"] == "redis is away" and "TimeoutError" in line["cause"]]
    return [
        json.dumps(line, ensure_ascii=False)
        for line in lines
        if line["level"] in ("ERROR", "CRITICAL") and line not in slow[:1]
    ]


def test_every_rest_endpoint_conforms_to_its_openapi_document(
    replica: Replica, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No undocumented 5xx, every reply matches its schema, invalid requests and missing keys are rejected."""
    documented = requests.get(f"{replica.url}/openapi.json", timeout=30).json()["paths"]
    operations = sum(len(methods) for methods in documented.values())
    socket = f"{replica.url.replace('http', 'ws', 1)}/ws/chat/somebody"

    began = time.monotonic()
    with connect(socket, additional_headers={"X-API-Key": KEY}):
        done = examine(replica, tmp_path)

    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert f"{operations} selected / {operations} total" in done.stdout
    assert re.search(rf"Tested: {operations}\b", done.stdout)
    assert errors(replica.log) == []
    (made,) = re.findall(r"(\d+) generated", done.stdout)
    record_property("requests", int(made))
    record_property("seconds", round(time.monotonic() - began, 1))
