"""Batches through the whole product, from an uploaded file to a downloaded one: HTTP, SQL, Redis and workers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.replicas import AppServer
from tests.support.servers.processes import wait_until
from tests.unit.questions.test_question_files import workbook

KEY = "obviously-fake-api-key"
QUESTIONS = ["年假有几天？", "How?", "@all 怎么报销？", "两行\n文字"]


@pytest.fixture
def app_servers(redis_url: str, tmp_path: Path) -> Iterator[tuple[AppServer, AppServer]]:
    """Two replicas with one Redis and one database."""
    settings = {
        "DATABASE_PATH": str(tmp_path / "laibao.db"),
        "BATCH_STORAGE_PATH": str(tmp_path / "batches"),
        "WEBSOCKET_AUTH": "key",
        "API_KEYS": KEY,
    }
    with AppServer(redis_url, **settings) as one, AppServer(redis_url, **settings) as other:
        yield one, other


def ask(app_server: AppServer, method: str, path: str, **more: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return requests.request(method, f"{app_server.url}/api/batch{path}", headers=headers, timeout=30, **more)


def ended_task(app_server: AppServer, path: str) -> dict[str, Any]:
    """Return the task if it has ended, otherwise an empty dict."""
    task: dict[str, Any] = ask(app_server, "GET", path).json()["data"]
    return task if task["status"] in ("completed", "failed", "cancelled") else {}


def test_answers_of_a_workbook_come_from_any_replica(app_servers: tuple[AppServer, AppServer], tmp_path: Path) -> None:
    """Uploaded to one and fetched from the other; the page, the JSONL download and the stored JSONL are the same."""
    one, other = app_servers
    book = workbook([["id", "问题"], *([number, text] for number, text in enumerate(QUESTIONS))])

    submitted = ask(one, "POST", "/tasks", files={"file": ("常见问题.xlsx", book)})
    path = f"/tasks/{submitted.json()['data']['task_id']}"
    task = wait_until(lambda: ended_task(other, path), timeout=60)

    assert (submitted.status_code, task["status"], task["name"]) == (201, "completed", "常见问题")
    assert task["progress"]["percentage"] == 100.0
    results = ask(other, "GET", f"{path}/results").json()["data"]["results"]
    assert [result["text"] for result in results] == QUESTIONS
    assert all(text in result["content"] for text, result in zip(QUESTIONS, results, strict=True))
    jsonl = ask(one, "GET", f"{path}/results?format=jsonl").content
    assert [json.loads(line) for line in jsonl.splitlines()] == results
    stored = tmp_path / "batches" / f"{task['task_id']}.jsonl"
    assert wait_until(lambda: stored.exists() and stored.read_bytes(), timeout=60) == jsonl
    sheet = ask(one, "GET", f"{path}/results?format=csv").content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    assert [row["text"] for row in rows] == ["年假有几天？", "How?", "'@all 怎么报销？", "两行\n文字"]
    assert [row["content"] for row in rows] == [result["content"] for result in results]
