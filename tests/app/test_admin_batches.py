"""The administrators' API of batches: every caller's tasks without words; pause, resume and cancel by role, audited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from channels.admin.batches import Batches, Manager, batches_blueprint
from services.batches.records import Task
from services.batches.store import SqlBatchStore
from tests.support.admins import AdminApi
from tests.support.schema import migrated

BOSS = "key:fingerprint"


class StoreManager:
    """Changes tasks in the store, without workers."""

    def __init__(self, store: SqlBatchStore) -> None:
        self.pause, self.resume = store.pause, store.resume
        self._store = store

    def cancel(self, task_id: str, owner: str) -> Task:
        return self._store.cancel(task_id, owner)[0]


class Company(AdminApi):
    """Two tasks of two callers in an SQLite file, and administrators of each role."""

    def __init__(self, store: SqlBatchStore | None) -> None:
        batches = Batches(cast(Manager, StoreManager(store)), store) if store else None
        super().__init__(lambda administrators: batches_blueprint(administrators, batches))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlBatchStore]:
    with closing(SqlBatchStore(migrated(f"sqlite:///{tmp_path}/batches.db"))) as store:
        yield store


def submitted(store: SqlBatchStore, owner: str = BOSS) -> str:
    """Store a task of two questions; return its id."""
    return store.create(owner=owner, name="绩效", texts=["一", "二"])[0].task_id


def test_tasks_of_every_caller_are_listed_without_words(store: SqlBatchStore) -> None:
    """A viewer sees whose they are and how far, and neither a name nor a question; `status` chooses."""
    company, first, second = Company(store), submitted(store), submitted(store, "user:wang")
    store.pause(second)

    status, data = company.sends("GET", "batches", "viewer")

    assert (status, data["total"]) == (200, 2)
    tasks = {task["task_id"]: task for task in data["tasks"]}
    assert {(task["owner"], task["status"], task["total"]) for task in tasks.values()} == {
        (BOSS, "pending", 2),
        ("user:wang", "paused", 2),
    }
    assert "绩效" not in str(data)
    (paused,) = company.sends("GET", "batches?status=paused", "viewer")[1]["tasks"]
    assert (paused["task_id"], paused["priority"]) == (second, "normal")
    assert first in tasks
    assert company.acts == []


def test_an_operator_pauses_resumes_and_cancels_a_task(store: SqlBatchStore) -> None:
    """Of any caller; the audit has the status before. An ended one cannot be changed."""
    company, task_id = Company(store), submitted(store)

    changes = [
        company.sends("POST", f"batches/{task_id}/{act}", "operator")[1] for act in ("pause", "resume", "cancel")
    ]

    assert [(change["was"], change["status"]) for change in changes] == [
        ("pending", "paused"),
        ("paused", "pending"),
        ("pending", "cancelled"),
    ]
    assert [(act.action, act.object, act.before) for act in company.acts] == [
        ("batch.pause", task_id, "pending"),
        ("batch.resume", task_id, "paused"),
        ("batch.cancel", task_id, "pending"),
    ]
    assert company.sends("POST", f"batches/{task_id}/pause", "operator")[0] == 409


def test_a_viewer_changes_no_task(store: SqlBatchStore) -> None:
    """The server refuses it, and nothing is in the audit; an unknown task is a 404."""
    company, task_id = Company(store), submitted(store)

    for act in ("pause", "resume", "cancel"):
        assert company.sends("POST", f"batches/{task_id}/{act}", "viewer")[0] == 403
    assert company.sends("POST", "batches/unknown/cancel", "operator")[0] == 404
    assert (store.get(task_id).status, company.acts) == ("pending", [])


def test_without_a_database_there_are_no_batches() -> None:
    """404, as for addresses that do not exist."""
    company = Company(None)

    assert company.sends("GET", "batches", "admin")[0] == 404
    assert company.sends("POST", "batches/any/cancel", "admin")[0] == 404
