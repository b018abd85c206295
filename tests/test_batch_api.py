"""The addresses of batches: what may be submitted, what is shown of it, who may see it, and every way to be refused."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from channels import batch
from channels.batch_answers import Processor, Results, Submitted, Tasks, TaskState, task_json
from channels.rest import Operation
from services.batch_records import BatchOptions, Item, Task
from services.errors import AuthError
from tests.batch_counter import KEY, OTHER_KEY, TASKS, CountingLimiter, Counter, client_of, data_of, refused
from tests.batches_twin import START, BatchesTwin
from utils.question_files import MAX_CHARS, MAX_TEXTS

UNKNOWN = "00000000-0000-4000-8000-000000000000"
OF_ONE = (
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("GET", "/results"),
    ("GET", "/results?format=csv"),
)


@pytest.fixture
def counter() -> Counter:
    return Counter()


def matches(model: type[BaseModel], shown: Any) -> bool:
    """Tell whether data is what the specification says: all fields, no others, and of their kinds."""
    return model.model_validate(shown).model_dump(mode="json").keys() == shown.keys()


def done(index: int, text: str, content: str = "Like this.") -> Item:
    return Item(index, text, "completed", content=content, usage={"total_tokens": 7})


def failed(index: int, text: str) -> Item:
    return Item(index, text, "failed", error={"code": "provider_timeout", "message": "Too slow."})


def test_a_submission_is_answered_by_its_task(counter: Counter) -> None:
    """201, where it is to be seen, and nothing is said of who asked."""
    reply = counter.submits("How?", "Why?", description="Two of them")

    told = data_of(reply, 201)
    assert matches(Submitted, told)
    assert uuid.UUID(told["task_id"]).version == 4
    assert told["status"] == "pending"
    assert reply.headers["Location"] == f"{TASKS}/{told['task_id']}"


def test_a_task_is_shown_with_its_progress_and_its_options(counter: Counter) -> None:
    """Every documented field is there from the beginning, null while there is nothing to say."""
    options = {"inputs": {"role": "all", "n": 3, "x": 0.5, "on": True}, "max_attempts": 2, "max_concurrent": 4}
    task_id = counter.task(description="Two of them", options=options)

    shown = data_of(counter.asks("GET", f"{TASKS}/{task_id}"))

    assert matches(TaskState, shown)
    assert shown["options"] == options
    assert (shown["name"], shown["description"], shown["total_items"]) == ("FAQ", "Two of them", 2)
    assert shown["created_at"] == "2026-11-21T08:30:01.000Z"
    assert [shown[f"{name}_at"] for name in ("started", "completed", "cancelled")] == [None, None, None]
    assert shown["error_message"] is None
    assert shown["progress"] == {
        "total": 2, "completed": 0, "failed": 0, "cancelled": 0, "running": 0, "pending": 2,
        "percentage": 0.0, "rate": 0.0,
    }  # fmt: skip


def test_options_that_are_left_out_have_their_defaults(counter: Counter) -> None:
    """Null says as much as nothing."""
    for fields in ({}, {"options": None, "description": None}, {"options": {}}):
        shown = data_of(counter.asks("GET", f"{TASKS}/{counter.task(**fields)}"))

        assert shown["options"] == {"inputs": {}, "max_attempts": 3, "max_concurrent": None}
        assert shown["description"] == ""


def test_a_running_task_tells_its_rate_and_when_it_may_end() -> None:
    """Two of four in ten seconds: as many seconds again."""
    started = START + timedelta(seconds=1)
    seen = START + timedelta(seconds=11)
    task = Task(UNKNOWN, "key:a", "FAQ", "", "running", BatchOptions(), 4, START, seen, completed=2, started_at=started)

    shown = task_json(task)

    assert (shown["progress"]["rate"], shown["progress"]["percentage"]) == (0.2, 50.0)
    assert shown["estimated_completion"] == "2026-11-21T08:30:21.000Z"
    assert task_json(replace(task, status="failed", error_message="Gone."))["error_message"] == "Gone."


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"name": " \t"}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"description": "d" * 501}, "description"),
        ({"texts": []}, "texts"),
        ({"texts": ["How?"] * (MAX_TEXTS + 1)}, "texts"),
        ({"texts": ["How?", ""]}, "texts.1"),
        ({"texts": ["How?", " \n"]}, "texts.1"),
        ({"texts": ["x" * (MAX_CHARS + 1)]}, "texts.0"),
        ({"texts": [5]}, "texts.0"),
        ({"priority": 1}, "priority"),
        ({"options": {"question": "x"}}, "options.question"),
        ({"options": {"user": "x"}}, "options.user"),
        ({"options": {"conversation_id": "x"}}, "options.conversation_id"),
        ({"options": {"model": "x"}}, "options.model"),
        ({"options": {"files": []}}, "options.files"),
        ({"options": {"max_attempts": 0}}, "options.max_attempts"),
        ({"options": {"max_attempts": 6}}, "options.max_attempts"),
        ({"options": {"max_attempts": "3"}}, "options.max_attempts"),
        ({"options": {"max_concurrent": 0}}, "options.max_concurrent"),
        ({"options": {"max_concurrent": 1001}}, "options.max_concurrent"),
        ({"options": {"inputs": {"a": []}}}, "options.inputs.a"),
        ({"options": {"inputs": {"a": None}}}, "options.inputs.a"),
        ({"options": {"inputs": {"a": "0" * MAX_CHARS + "1"}}}, "options.inputs.a"),
        ({"options": {"inputs": {str(n): 1 for n in range(51)}}}, "options.inputs"),
    ],
    ids=str(range).split()[:0] or None,
)
def test_what_does_not_fit_is_named_and_nothing_is_kept(counter: Counter, fields: dict[str, Any], wrong: str) -> None:
    """422 with the field's place; options that nobody knows reach no provider."""
    reply = counter.submits(**fields) if "texts" not in fields else counter.asks(
        "POST", TASKS, json={"name": "FAQ", **fields}
    )

    assert refused(reply) == (422, 10000, "invalid_fields")
    named = [error["field"] for error in reply.get_json()["data"]["errors"]]
    assert any(name == wrong or name.startswith(f"{wrong}.") for name in named), named
    assert counter.batches.status().totals["pending"] == 0
