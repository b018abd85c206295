"""The REST API of batches: submissions, tasks, results, ownership, and every error."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from pydantic import BaseModel

from channels.batch import endpoints as batch
from channels.batch.models import Processor, Purged, Results, Submitted, Tasks, TaskState
from channels.web.rest import Operation
from services.batches.records import BatchOptions, Item, Task
from services.errors import AuthError
from services.identity.callers import fingerprint
from tests.support.batches.counter import (
    KEY,
    MAX_BYTES,
    OTHER_KEY,
    TASKS,
    Counter,
    CountingLimiter,
    client_of,
    data_of,
    refused,
)
from tests.support.batches.twin import START, BatchesTwin
from utils.questions.files.reading import MAX_CHARS, MAX_TEXTS

UNKNOWN = "00000000-0000-4000-8000-000000000000"
OF_ONE = (
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/retry"),
    ("DELETE", "?purge=true"),
    ("GET", "/results"),
    ("GET", "/results?format=csv"),
)


@pytest.fixture
def counter() -> Counter:
    return Counter()


def matches(model: type[BaseModel], shown: Any) -> bool:
    """Tell whether data has exactly the fields of a model, with their types."""
    return set(model.model_validate(shown).model_dump()) == set(shown)


def done(index: int, text: str, content: str = "Like this.") -> Item:
    return Item(index, text, "completed", content=content, usage={"total_tokens": 7})


def failed(index: int, text: str) -> Item:
    return Item(index, text, "failed", error={"code": "provider_timeout", "message": "Too slow."})


def test_a_submission_is_answered_by_its_task(counter: Counter) -> None:
    """201 with the task's id and its Location, and nothing about the caller."""
    reply = counter.submits("How?", "Why?", description="Two of them")

    submitted = data_of(reply, 201)
    assert matches(Submitted, submitted)
    assert uuid.UUID(submitted["task_id"]).version == 4
    assert submitted["status"] == "pending"
    assert reply.headers["Location"] == f"{TASKS}/{submitted['task_id']}"


def test_a_task_is_shown_with_its_progress_and_its_options(counter: Counter) -> None:
    """Every documented field is there from the beginning, null without a value."""
    options = {
        "inputs": {"role": "all", "n": 3, "x": 0.5, "on": True}, "max_attempts": 2, "max_concurrent": 4,
        "priority": "high", "webhook_url": "",
    }  # fmt: skip
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
    """Null means the default, as a missing field does."""
    submissions: tuple[dict[str, Any], ...] = ({}, {"options": None, "description": None}, {"options": {}})
    for fields in submissions:
        shown = data_of(counter.asks("GET", f"{TASKS}/{counter.task(**fields)}"))

        defaults = {"inputs": {}, "max_attempts": 3, "max_concurrent": None, "priority": "normal", "webhook_url": ""}
        assert shown["options"] == defaults
        assert shown["description"] == ""


def test_a_running_task_has_its_rate_and_estimated_end() -> None:
    """Two of four items in ten seconds: ten more seconds."""
    started = START + timedelta(seconds=1)
    seen = START + timedelta(seconds=11)
    task = Task(UNKNOWN, "key:a", "FAQ", "", "running", BatchOptions(), 4, START, seen, completed=2, started_at=started)

    shown = task.to_dict()

    assert (shown["progress"]["rate"], shown["progress"]["percentage"]) == (0.2, 50.0)
    assert shown["estimated_completion"] == "2026-11-21T08:30:21.000Z"
    assert replace(task, status="failed", error_message="Gone.").to_dict()["error_message"] == "Gone."


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
)
def test_an_invalid_field_is_named_and_nothing_is_stored(counter: Counter, fields: dict[str, Any], wrong: str) -> None:
    """422 with the field's path; unknown options are rejected and reach no provider."""
    reply = counter.submits(**fields)

    assert refused(reply) == (422, 10000, "invalid_fields")
    named = [error["field"] for error in reply.get_json()["data"]["errors"]]
    assert any(name == wrong or name.startswith(f"{wrong}.") for name in named), named
    assert counter.batches.status().totals["pending"] == 0


def test_items_have_their_own_ids_and_inputs(counter: Counter) -> None:
    """The results have the ids; exactly one of texts and items is taken, and an item's fields are checked."""
    items = [{"text": "How?", "id": "A-1", "inputs": {"role": "x"}}, {"text": "Why?"}]
    body = {"name": "FAQ", "items": items}

    task_id = data_of(counter.asks("POST", TASKS, json=body), 201)["task_id"]

    results = data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))["results"]
    assert [(one["text"], one["id"], one["columns"]) for one in results] == [("How?", "A-1", {}), ("Why?", "", {})]
    for wrong in ({**body, "texts": ["How?"]}, {"name": "FAQ"}, {"name": "FAQ", "items": [{"text": "a", "id": 1}]}):
        assert refused(counter.asks("POST", TASKS, json=wrong)) == (422, 10000, "invalid_fields")


def test_failed_texts_are_asked_again(counter: Counter) -> None:
    """They are pending and the task runs; 409 while it runs, and where nothing failed."""
    task_id = counter.task("How?", "Why?")
    counter.batches.answer(task_id, done(0, "How?"))
    assert refused(counter.asks("POST", f"{TASKS}/{task_id}/retry")) == (409, 20000, "batch_unfinished")
    counter.batches.answer(task_id, failed(1, "Why?"))

    shown = data_of(counter.asks("POST", f"{TASKS}/{task_id}/retry"))

    assert matches(TaskState, shown)
    assert (shown["status"], shown["progress"]["pending"], shown["progress"]["completed"]) == ("running", 1, 1)
    counter.batches.answer(task_id, done(1, "Why?"))
    assert refused(counter.asks("POST", f"{TASKS}/{task_id}/retry")) == (409, 20000, "batch_nothing_failed")


def test_an_ended_task_is_removed_with_its_results(counter: Counter) -> None:
    """It is unknown afterwards; a task that has not ended stays, and `purge=false` cancels."""
    task_id = counter.task("How?")
    assert refused(counter.asks("DELETE", f"{TASKS}/{task_id}?purge=true")) == (409, 20000, "batch_unfinished")
    assert data_of(counter.asks("DELETE", f"{TASKS}/{task_id}?purge=false"))["status"] == "cancelled"

    shown = data_of(counter.asks("DELETE", f"{TASKS}/{task_id}?purge=true"))

    assert shown == {"task_id": task_id, "purged": True}
    assert matches(Purged, shown)
    assert refused(counter.asks("GET", f"{TASKS}/{task_id}/results"))[0] == 404


def test_the_longest_submission_is_taken() -> None:
    """MAX_TEXTS texts are accepted, and a text of MAX_CHARS."""
    counter = Counter()

    many = data_of(counter.submits(*["?"] * MAX_TEXTS), 201)
    data_of(counter.submits("x" * MAX_CHARS), 201)

    assert data_of(counter.asks("GET", f"{TASKS}/{many['task_id']}"))["total_items"] == MAX_TEXTS


def test_a_body_beyond_the_limit_is_refused(counter: Counter) -> None:
    assert refused(counter.submits(*["x" * MAX_CHARS] * 21)) == (413, 10000, "too_large")


def test_a_text_is_kept_as_it_was_sent(counter: Counter) -> None:
    """White space around a text is kept, so the submitter finds the text again."""
    task_id = counter.task("  年假有几天？ \n", "=1+1")

    assert counter.texts(task_id) == ["  年假有几天？ \n", "=1+1"]


def test_a_key_finds_its_task_again(counter: Counter) -> None:
    """A submission sent twice is one task: 201, then 200 with the same data."""
    first = counter.submits(key="order-1")
    again = counter.submits(key="order-1")

    assert data_of(first, 201) == data_of(again, 200)
    assert data_of(counter.asks("GET", TASKS))["total"] == 1


def test_a_key_identifies_one_submission(counter: Counter) -> None:
    """The same key with other texts is a 409 with a sentence."""
    counter.submits("How?", key="order-1")

    reply = counter.submits("Why?", key="order-1")

    assert refused(reply) == (409, 20000, "batch_conflict")
    assert reply.get_json()["message"] == "This idempotency key stands for another submission."


@pytest.mark.parametrize("key", ["", "k" * 65, "with space", "é"])
def test_an_invalid_idempotency_key_is_rejected(counter: Counter, key: str) -> None:
    """An empty one is rejected too: a client that sends the header means to send a key."""
    body = {"name": "FAQ", "texts": ["How?"]}

    reply = counter.asks("POST", TASKS, json=body, headers={"Idempotency-Key": key})

    assert refused(reply) == (422, 10000, "invalid_fields")
    assert reply.get_json()["data"]["errors"][0]["field"] == "Idempotency-Key"


def test_a_text_that_is_too_large_is_refused_before_the_task(counter: Counter) -> None:
    """413 names the text and the limit, in JSON and in a file; no task is created."""
    long = "字" * 7_000

    sent = counter.asks("POST", TASKS, json={"name": "FAQ", "texts": ["How?", long]})
    file = counter.asks("POST", TASKS, data={"file": (BytesIO(f"How?\n{long}".encode()), "q.txt")})

    errors = [{"field": "texts.1", "problem": "is longer than 20000 bytes"}]
    for reply in (sent, file):
        assert refused(reply) == (413, 10000, "question_too_large")
        assert reply.get_json()["data"]["errors"] == errors
    assert data_of(counter.asks("GET", TASKS))["total"] == 0


def test_a_full_queue_rejects_tasks_until_one_ends() -> None:
    """Only unfinished tasks count against the limit."""
    counter = Counter(BatchesTwin(max_size=1))
    first = counter.task()

    assert refused(counter.submits()) == (429, 20000, "batch_queue_full")

    counter.asks("DELETE", f"{TASKS}/{first}")
    data_of(counter.submits(), 201)


def test_too_many_submissions_get_retry_after() -> None:
    """The limit counts by caller and address, and applies before the body is read."""
    counter = Counter(limiter=CountingLimiter(1))
    counter.task()

    reply = counter.asks("POST", TASKS, data=b"no body at all")

    assert refused(reply) == (429, 20000, "rate_limited")
    assert int(reply.headers["Retry-After"]) > 0
    assert counter.limiter.asked[0] == counter.limiter.asked[1]
    assert counter.limiter.asked[0][0].startswith("key:")
    data_of(counter.asks("GET", TASKS))


@pytest.mark.parametrize(("method", "path"), [("POST", TASKS), ("GET", TASKS), ("GET", "/api/batch/status")])
def test_an_address_needs_a_key(method: str, path: str) -> None:
    """401 without a key or with a wrong one, and the rate limit does not count it."""
    counter = Counter(key="wrong")

    assert refused(counter.asks(method, path)) == (401, 401, AuthError(code="auth_failed").code)
    assert refused(counter.client.open(path, method=method)) == (401, 401, "auth_required")
    assert counter.limiter.asked == []


@pytest.mark.parametrize(("method", "rest"), OF_ONE)
def test_a_task_of_another_owner_looks_like_an_unknown_one(method: str, rest: str) -> None:
    """Both get the same 404, and the task is unchanged."""
    mine = Counter()
    task_id = mine.task()
    other = Counter(mine.batches, key=OTHER_KEY)

    theirs = other.asks(method, f"{TASKS}/{task_id}{rest}")
    nobodys = other.asks(method, f"{TASKS}/{UNKNOWN}{rest}")

    assert refused(theirs) == refused(nobodys) == (404, 404, "batch_unknown")
    assert theirs.data == nobodys.data
    assert data_of(mine.asks("GET", f"{TASKS}/{task_id}"))["status"] == "pending"
    assert data_of(other.asks("GET", TASKS))["tasks"] == []


@pytest.mark.parametrize("task_id", ["x", "任务", UNKNOWN.upper().replace("0", "A"), f"{UNKNOWN}%20", "%00"])
def test_an_invalid_task_id_is_unknown_without_a_query(counter: Counter, task_id: str) -> None:
    """An invalid id never reaches the database."""
    counter.batches.away = True

    assert refused(counter.asks("GET", f"{TASKS}/{task_id}")) == (404, 404, "batch_unknown")


def test_a_cancelled_task_stays_cancelled(counter: Counter) -> None:
    """Finished items keep their answers, the others are cancelled, and later changes get 409."""
    task_id = counter.task("How?", "Why?")
    counter.batches.answer(task_id, done(0, "How?"))

    cancelled = data_of(counter.asks("DELETE", f"{TASKS}/{task_id}"))

    assert (cancelled["status"], cancelled["completed_at"]) == ("cancelled", None)
    assert cancelled["cancelled_at"]
    assert (cancelled["progress"]["completed"], cancelled["progress"]["cancelled"]) == (1, 1)
    for method, rest in (("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        reply = counter.asks(method, f"{TASKS}/{task_id}{rest}")
        assert refused(reply) == (409, 20000, "batch_finished")
    results = data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))
    assert [result["status"] for result in results["results"]] == ["completed", "cancelled"]


def test_a_task_is_paused_and_resumed(counter: Counter) -> None:
    """Both return the task; repeated calls change nothing."""
    task_id = counter.task()
    counter.batches.answer(task_id, done(0, "How?"))

    paused = [data_of(counter.asks("POST", f"{TASKS}/{task_id}/pause"))["status"] for _ in range(2)]
    resumed = [data_of(counter.asks("POST", f"{TASKS}/{task_id}/resume"))["status"] for _ in range(2)]

    assert (paused, resumed) == (["paused"] * 2, ["running"] * 2)


def test_tasks_are_listed_newest_first_by_pages(counter: Counter) -> None:
    ids = [counter.task() for _ in range(5)]

    first = data_of(counter.asks("GET", f"{TASKS}?size=2"))
    last = data_of(counter.asks("GET", f"{TASKS}?size=2&page=3"))
    beyond = data_of(counter.asks("GET", f"{TASKS}?size=2&page=4"))

    assert matches(Tasks, first)
    assert [task["task_id"] for task in first["tasks"]] == [ids[4], ids[3]]
    assert [task["task_id"] for task in last["tasks"]] == [ids[0]]
    assert (beyond["tasks"], beyond["total"], beyond["page"], beyond["size"]) == ([], 5, 4, 2)


def test_tasks_are_listed_by_status(counter: Counter) -> None:
    """The list and its total have tasks of that status only."""
    kept, dropped = counter.task(), counter.task()
    counter.asks("DELETE", f"{TASKS}/{dropped}")

    listed = data_of(counter.asks("GET", f"{TASKS}?status=pending"))

    assert ([task["task_id"] for task in listed["tasks"]], listed["total"]) == ([kept], 1)


@pytest.mark.parametrize(
    "query",
    ["?status=processing", "?page=0", "?size=101", "?size=x", "?owner=me", "?page=1&page=2"],
)
def test_invalid_parameters_of_a_list_are_rejected(counter: Counter, query: str) -> None:
    assert refused(counter.asks("GET", f"{TASKS}{query}")) == (422, 10000, "invalid_fields")


def test_results_have_the_order_of_the_texts_while_running(counter: Counter) -> None:
    """Items without an answer are listed too, with their status."""
    task_id = counter.task("How?", "Why?", "When?")
    counter.batches.answer(task_id, done(2, "When?", "Now."))
    counter.batches.answer(task_id, failed(0, "How?"))

    shown = data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))

    assert matches(Results, shown)
    assert (shown["status"], shown["total"], shown["page"], shown["size"]) == ("running", 3, 1, 100)
    assert shown["summary"] == {"total": 3, "success": 1, "failed": 1}
    rows = [(one["index"], one["text"], one["status"], one["content"]) for one in shown["results"]]
    assert rows == [(0, "How?", "failed", ""), (1, "Why?", "pending", ""), (2, "When?", "completed", "Now.")]
    assert shown["results"][0]["error"] == {"code": "provider_timeout", "message": "Too slow."}
    assert shown["results"][2]["usage"] == {"total_tokens": 7}
    assert shown["results"][2]["error"] is None
    assert shown["results"][2]["completed_at"].endswith("Z")


def test_a_task_without_a_success_has_failed(counter: Counter) -> None:
    """A task whose items all failed is failed, and no error is shown as an answer."""
    task_id = counter.task("How?")
    counter.batches.answer(task_id, failed(0, "How?"))

    assert data_of(counter.asks("GET", f"{TASKS}/{task_id}"))["status"] == "failed"
    assert data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))["results"][0]["content"] == ""


def test_results_have_pages(counter: Counter) -> None:
    """All pages together have every result once; a page beyond the last is empty."""
    task_id = counter.task(*[f"q{number}" for number in range(7)])

    pages = [data_of(counter.asks("GET", f"{TASKS}/{task_id}/results?size=3&page={page}")) for page in (1, 2, 3, 4)]

    assert [[one["index"] for one in page["results"]] for page in pages] == [[0, 1, 2], [3, 4, 5], [6], []]
    assert {page["total"] for page in pages} == {7}


def test_a_visitor_without_a_key_has_tasks_of_its_own() -> None:
    """Where no key is required, a browser's secret separates its tasks; all are one caller to the rate limit."""
    counter = Counter(key="", mode="none")
    ann, bob = ({"X-Visitor": letter * 22} for letter in "ab")
    submitted = counter.asks("POST", TASKS, json={"name": "FAQ", "texts": ["How?"]}, headers=ann)
    task_id = data_of(submitted, 201)["task_id"]
    open_to_all = counter.task()

    def listed(headers: dict[str, str]) -> list[str]:
        return [task["task_id"] for task in data_of(counter.asks("GET", TASKS, headers=headers))["tasks"]]

    assert (listed(ann), listed(bob), listed({})) == ([task_id], [], [open_to_all])
    assert [counter.asks("GET", f"{TASKS}/{task_id}", headers=who).status_code for who in (ann, bob, {})] == [
        200,
        404,
        404,
    ]
    assert [principal for principal, _ in counter.limiter.asked] == ["anonymous"] * 2
    assert counter.batches.get(task_id, f"anonymous/visitor-{fingerprint('a' * 22)}")
    assert refused(counter.asks("GET", TASKS, headers={"X-Visitor": "short"}))[2] == "invalid_fields"


def test_a_visitor_with_a_key_has_the_tasks_of_the_key(counter: Counter) -> None:
    task_id = counter.task()

    tasks = data_of(counter.asks("GET", TASKS, headers={"X-Visitor": "a" * 22}))["tasks"]

    assert [task["task_id"] for task in tasks] == [task_id]


def test_a_page_of_results_reads_no_others(counter: Counter) -> None:
    """A page reads its own items, however many the task has."""
    task_id = counter.task(*["?"] * 1000)

    counter.asks("GET", f"{TASKS}/{task_id}/results?size=10&page=50")

    assert counter.batches.handed_out == 10


def test_a_page_that_is_too_large_is_rejected(counter: Counter) -> None:
    """A page whose answers are too long is rejected; a smaller page or a download works."""
    task_id = counter.task(*["?"] * 40)
    for index in range(40):
        counter.batches.answer(task_id, done(index, "?", "x" * 1_000_000))

    assert refused(counter.asks("GET", f"{TASKS}/{task_id}/results")) == (422, 10000, "page_too_large")
    assert len(data_of(counter.asks("GET", f"{TASKS}/{task_id}/results?size=20"))["results"]) == 20


@pytest.mark.parametrize(
    "query", ["?size=1001", "?page=0", "?format=xml", "?format=csv&page=1", "?format=jsonl&size=9"]
)
def test_invalid_parameters_of_results_are_rejected(counter: Counter, query: str) -> None:
    """Page parameters on a download are rejected, because a download has no pages."""
    assert refused(counter.asks("GET", f"{TASKS}/{counter.task()}/results{query}")) == (422, 10000, "invalid_fields")


def test_the_status_of_the_processor_is_shown(counter: Counter) -> None:
    """The documented fields, counted over all callers."""
    kept, dropped = counter.task(), counter.task()
    counter.asks("DELETE", f"{TASKS}/{dropped}")
    counter.batches.answer(kept, done(0, "How?"))

    shown = data_of(Counter(counter.batches, key=OTHER_KEY).asks("GET", "/api/batch/status"))

    assert matches(Processor, shown)
    assert shown == {
        "is_running": True,
        "workers": 1,
        "max_concurrent": 5,
        "running_items": 0,
        "queue": {
            "total_tasks": 2, "pending": 0, "running": 1, "paused": 0, "max_size": 1000, "available_slots": 999
        },
        "max_bytes": MAX_BYTES,
    }  # fmt: skip


@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("GET", "/status"), *OF_ONE])
def test_without_its_database_every_address_is_unavailable(method: str, rest: str) -> None:
    """503 with the code for SQL, before the first byte of a download."""
    counter = Counter()
    task_id = counter.task()
    counter.batches.away = True
    path = "/api/batch/status" if rest == "/status" else f"{TASKS}/{task_id}{rest}"

    assert refused(counter.asks(method, path)) == (503, 40000, "store_unavailable")


def test_without_batches_every_address_is_unavailable() -> None:
    """503 with a valid key, 401 without one."""
    client = client_of(None, CountingLimiter())

    for method, path in (("POST", TASKS), ("GET", TASKS), ("GET", "/api/batch/status"), ("GET", f"{TASKS}/{UNKNOWN}")):
        reply = client.open(path, method=method, headers={"Authorization": f"Bearer {KEY}"})
        assert refused(reply) == (503, 503, "batch_unavailable")
        assert reply.get_json()["message"] == "Batch processing is not available here."
        assert refused(client.open(path, method=method))[0] == 401


def test_head_and_options_and_other_methods_are_answered(counter: Counter) -> None:
    """HEAD is GET without a body, OPTIONS lists the methods, other methods get 405 with Allow."""
    task_id = counter.task()

    head = counter.asks("HEAD", f"{TASKS}/{task_id}/results?format=csv")
    options = counter.client.options(f"{TASKS}/{task_id}")
    put = counter.asks("PUT", TASKS, json={})

    assert (head.status_code, head.data, head.mimetype) == (200, b"", "text/csv")
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "DELETE", "OPTIONS"}
    assert (put.status_code, put.get_json()["code"]) == (405, 405)
    assert "POST" in put.headers["Allow"]


def test_the_submitters_credential_is_stored_with_the_task(counter: Counter) -> None:
    """An API key has no credential to store."""
    counter.task()

    assert counter.batches.credentials == [""]


def test_every_address_is_documented() -> None:
    """The documented paths and methods are exactly the served ones."""
    rules = {
        (method, str(rule).replace("<", "{").replace(">", "}"))
        for rule in client_of(None, CountingLimiter()).application.url_map.iter_rules()
        if str(rule).startswith("/api/batch")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(one.method, one.path) for one in batch.OPERATIONS} == rules


@pytest.mark.parametrize("operation", batch.OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_every_operation_documents_its_replies(operation: Operation) -> None:
    """Each operation has a summary, and a model for each success."""
    assert operation.summary
    assert all(model for status, model in operation.answers.items() if status < 300)
