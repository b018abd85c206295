"""A stranger with the REST addresses' documentation: whatever it allows or forbids, the answers are as it says."""

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
#: Requests the fuzzer makes up for one operation at most, per phase; the coverage phase has its own, fixed number.
EXAMPLES = 6
#: Seconds it may take: fewer than 30 on an idle machine.
TIMEOUT = 300

#: All checks but these, which ask for what a schema cannot say.
CONFIG = """
# DELETE cancels an answer or a task, and what there is of it stays to be read until it expires.
[checks.use_after_free]
enabled = false

# More texts than are taken may be more bytes than are taken, which is found first.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]

# Of an id there may be one in the body or one in the header.
[[operations]]
include-name = "POST /api/chat"
checks.positive_data_acceptance.enabled = false

# In a form, options are JSON in a text, and the file's name says what it is.
[[operations]]
include-name = "POST /api/batch/tasks"
checks.positive_data_acceptance.enabled = false

# A download has no pages.
[[operations]]
include-name = "GET /api/batch/tasks/{task_id}/results"
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture
def replica(redis_server: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica of which a program may ask as much as it likes, if it has the key."""
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
    """Have Schemathesis ask the replica, the same questions each time."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    options = ("--seed", str(SEED), "--max-examples", str(EXAMPLES), "--request-timeout", "60")
    command = (sys.executable, "-m", "schemathesis.cli", "run", f"{replica.url}/openapi.json", *options)
    header = ("--header", f"Authorization: Bearer {KEY}", "--continue-on-failure", "--no-color")
    return subprocess.run([*command, *header], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)


def errors(log: str) -> list[str]:
    """Return the lines of a log that somebody would have to look at."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [json.dumps(line, ensure_ascii=False) for line in lines if line["level"] in ("ERROR", "CRITICAL")]


def test_every_rest_address_keeps_what_its_documentation_says(
    replica: Replica, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No 5xx that is not announced, every answer of its schema, bad requests refused, good ones taken, keys wanted."""
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
