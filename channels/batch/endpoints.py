"""The REST endpoints of batches: submit many questions as one task, watch and stop it, and read its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, request

from channels.asking import QuestionLimiter
from channels.batch.downloads import MEDIA, download, page
from channels.batch.models import (
    SHAPE,
    FilePreview,
    FileSubmission,
    ListQuery,
    Options,
    Preview,
    Processor,
    RemovalQuery,
    Removed,
    Results,
    ResultsQuery,
    Submission,
    Submitted,
    Tasks,
    TaskState,
    processor_json,
    submitted_json,
)
from channels.batch.uploads import previewed, uploaded
from channels.batch.workbook import WorkbookReader, here
from channels.web.bodies import UploadSlots
from channels.web.multipart import MULTIPART, form_body
from channels.web.rest import (
    MAX_ERRORS,
    Operation,
    ProgramChecker,
    RestError,
    body,
    caller,
    envelope,
    params,
    wrong_field,
)
from config.texts import Texts
from services import metrics
from services.batches.manager import BatchManager
from services.batches.records import Given
from services.errors import BatchUnknown
from services.identity.callers import ANONYMOUS, Caller, fingerprint, owner_of
from utils.stream_utils import is_longer

TASKS = "/api/batch/tasks"
ONE = f"{TASKS}/{{task_id}}"
STATUS = "/api/batch/status"
PREVIEW = "/api/batch/preview"
#: A valid Idempotency-Key.
KEY = re.compile(r"[\x21-\x7e]{1,64}")
_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Seconds after which a caller over the rate limit may submit again.
RETRY_AFTER = {"Retry-After": "30"}
#: Results on a page by default, and at most on a page with HTML.
MAX_RENDERED = 100

#: A valid X-Visitor: the secret of a browser where no credential is required.
VISITOR = re.compile(r"[A-Za-z0-9_-]{22,64}")
_VISITOR: Mapping[str, Mapping[str, str]] = {
    "X-Visitor": {
        "pattern": f"^{VISITOR.pattern}$",
        "description": "With `WEBSOCKET_AUTH=none` and without an API key: a random secret, whose tasks no other one "
        "has. Without it a caller has the tasks of all that send none.",
    }
}

_CHANGED = {200: TaskState, 404: None, 409: None}

OPERATIONS = (
    Operation(
        "POST",
        TASKS,
        "Submit a batch of questions",
        "batch",
        body=Submission,
        multipart=FileSubmission,
        answers={200: Submitted, 201: Submitted, 409: None, 429: None},
        headers={
            "Idempotency-Key": {
                "pattern": f"^{KEY.pattern}$",
                "description": "Your own id of this submission. Repeating it returns the same task with status 200.",
            },
            **_VISITOR,
        },
        description="As JSON, or as a form with a file of plain text, CSV or Excel. Each text is answered by itself.",
    ),
    Operation(
        "POST",
        PREVIEW,
        "Show the columns of a file before it is submitted",
        "batch",
        multipart=FilePreview,
        answers={200: Preview},
        description="Nothing is stored. Errors are those of a submission; a column that is unclear is none.",
    ),
    Operation(
        "GET", TASKS, "List your tasks, newest first", "batch", query=ListQuery, answers={200: Tasks}, headers=_VISITOR
    ),
    Operation(
        "GET", ONE, "Show a task and its progress", "batch", answers={200: TaskState, 404: None}, headers=_VISITOR
    ),
    Operation(
        "DELETE",
        ONE,
        "Cancel a task and its running answers, or remove an ended one",
        "batch",
        query=RemovalQuery,
        answers={**_CHANGED, 200: Removed},
        headers=_VISITOR,
        description="Completed results are kept, and a task that has already ended answers 409. With `purge=true` an "
        "ended task is removed with its results, and one that has not ended answers 409.",
    ),
    Operation("POST", f"{ONE}/pause", "Pause a task: start no more texts", "batch", answers=_CHANGED, headers=_VISITOR),
    Operation(
        "POST",
        f"{ONE}/retry",
        "Ask the failed texts of an ended task again",
        "batch",
        answers={**_CHANGED, 429: None},
        headers=_VISITOR,
        description="They are pending again, and the task runs. 409 while it runs, after it was cancelled, and if no "
        "text failed.",
    ),
    Operation("POST", f"{ONE}/resume", "Resume a paused task", "batch", answers=_CHANGED, headers=_VISITOR),
    Operation(
        "GET",
        f"{ONE}/results",
        "Get results in the order of the texts, also while the task runs",
        "batch",
        query=ResultsQuery,
        answers={200: Results, 404: None},
        headers=_VISITOR,
        media={200: tuple(media.partition(";")[0] for media in MEDIA.values())},
        description="With `format` csv, jsonl or xlsx, a file of all results. In the tables, a cell that a spreadsheet "
        "would read as a formula begins with `'`. The workbook is for people: its columns depend on `locale`.",
    ),
    Operation("GET", STATUS, "Show the state of the batch processor", "batch", answers={200: Processor}),
)


class BatchEndpoints:
    """The addresses of the batch API and their views."""

    def __init__(
        self,
        batches: BatchManager | None,
        callers: ProgramChecker,
        limiter: QuestionLimiter,
        *,
        texts: Texts,
        html: Callable[[str], str],
        readers: UploadSlots,
        max_bytes: int,
        question_max_bytes: int,
    ) -> None:
        """Take the manager, None without SQL or when batches are switched off: then every address answers 503.

        `html` renders an answer as safe HTML. Each file takes a slot of `readers`. `max_bytes` limits a submission
        (file or JSON), `question_max_bytes` each of its texts.
        """
        self._batches = batches
        self._callers = callers
        self._limiter = limiter
        self._texts = texts
        self._html = html
        self._readers = readers
        self._max_bytes = max_bytes
        self._question_max_bytes = question_max_bytes

    def blueprint(self) -> Blueprint:
        """Return the addresses of batches with these views."""
        routes = Blueprint("batch", __name__)
        one = f"{TASKS}/<task_id>"
        routes.add_url_rule(TASKS, "submit", self.submit, methods=["POST"])
        routes.add_url_rule(PREVIEW, "preview", self.preview, methods=["POST"])
        routes.add_url_rule(TASKS, "list", self.list, methods=["GET"])
        routes.add_url_rule(one, "show", self.show, methods=["GET"])
        routes.add_url_rule(one, "remove", self.remove, methods=["DELETE"])
        routes.add_url_rule(f"{one}/retry", "retry", self.retry, methods=["POST"])
        routes.add_url_rule(f"{one}/pause", "pause", self.pause, methods=["POST"])
        routes.add_url_rule(f"{one}/resume", "resume", self.resume, methods=["POST"])
        routes.add_url_rule(f"{one}/results", "results", self.results, methods=["GET"])
        routes.add_url_rule(STATUS, "status", self.status, methods=["GET"])
        return routes

    def submit(self) -> Response:
        batches, client = self._enter()
        key = _key()
        if not self._limiter.question(owner_of(client.principal), request.remote_addr or ""):
            metrics.QUESTIONS_REFUSED.labels("rate_limited").inc()
            raise RestError(429, self._texts.get("rate_limited"), reason="rate_limited", headers=RETRY_AFTER)
        submission, unvalued = self._submission(client)
        task, created = batches.submit(owner=client.principal, credential=client.credential, key=key, **submission)
        headers = {"Location": f"/api/batch/tasks/{task.task_id}"}
        return envelope(submitted_json(task, unvalued), status=201 if created else 200, headers=headers)

    def preview(self) -> Response:
        _, client = self._enter()
        sent = form_body(self._max_bytes)
        with self._readers.held(client.principal):
            return envelope({**previewed(sent, max_bytes=self._max_bytes), "max_bytes": self._max_bytes})

    def list(self) -> Response:
        batches, client = self._enter()
        asked = params(ListQuery)
        tasks, total = batches.list(client.principal, asked.status, page=asked.page, size=asked.size)
        page = {"total": total, "page": asked.page, "size": asked.size}
        return envelope({"tasks": [task.to_dict() for task in tasks], **page})

    def show(self, task_id: str) -> Response:
        batches, client = self._enter(task_id)
        return envelope(batches.get(task_id, client.principal).to_dict())

    def remove(self, task_id: str) -> Response:
        """Cancel a task or, with `purge`, remove an ended one."""
        batches, client = self._enter(task_id)
        if params(RemovalQuery).purge == "true":
            batches.purge(task_id, client.principal)
            return envelope({"task_id": task_id, "purged": True})
        return envelope(batches.cancel(task_id, client.principal).to_dict())

    def retry(self, task_id: str) -> Response:
        batches, client = self._enter(task_id)
        return envelope(batches.retry(task_id, client.principal, credential=client.credential).to_dict())

    def pause(self, task_id: str) -> Response:
        batches, client = self._enter(task_id)
        return envelope(batches.pause(task_id, client.principal).to_dict())

    def resume(self, task_id: str) -> Response:
        batches, client = self._enter(task_id)
        return envelope(batches.resume(task_id, client.principal).to_dict())

    def results(self, task_id: str) -> Response:
        batches, client = self._enter(task_id)
        asked = params(ResultsQuery)
        _check_format(asked)
        task = batches.get(task_id, client.principal)
        if asked.format == "json":
            number, size = asked.page or 1, asked.size or MAX_RENDERED
            if asked.render and size > MAX_RENDERED:
                raise wrong_field("size", f"at most {MAX_RENDERED} results are rendered at once")
            first = (number - 1) * size
            items = batches.rows(task_id, client.principal, first=first, limit=size, status=asked.status)
            total = getattr(task, asked.status) if asked.status else task.total
            html = self._html if asked.render else None
            return page(task, items, number=number, size=size, total=total, html=html)
        items = batches.rows(task_id, client.principal, status=asked.status)
        return download(task, items, asked.format, self._reader(asked))

    def _reader(self, asked: ResultsQuery) -> WorkbookReader:
        """Return for whom a workbook is made, by default somebody with the server's language and time zone."""
        reader = here(asked.locale or self._texts.locale)
        return reader if asked.utc_offset is None else replace(reader, utc_offset=asked.utc_offset)

    def status(self) -> Response:
        batches, _ = self._enter()
        return envelope(processor_json(batches.status(), self._max_bytes))

    def _enter(self, task_id: str = "") -> tuple[BatchManager, Caller]:
        """Return the manager and the caller; raise early for a malformed task id."""
        client = _of_visitor(caller(self._callers, request))
        if self._batches is None:
            raise RestError(503, self._texts.get("batch_unavailable"), reason="batch_unavailable")
        if task_id and not _TASK_ID.fullmatch(task_id):
            raise BatchUnknown
        return self._batches, client

    def _submission(self, client: Caller) -> tuple[dict[str, Any], int]:
        """Return the arguments of `BatchManager.submit`, and the number of formulas without a value."""
        sent: Submission | FileSubmission
        if request.mimetype == MULTIPART:
            form = form_body(self._max_bytes)
            with self._readers.held(client.principal):
                sent, reading = uploaded(form, max_bytes=self._max_bytes)
            texts, unvalued = reading.texts, reading.unvalued
            given = [Given(row.id, row.columns) for row in reading.rows]
        else:
            sent, unvalued = body(Submission, max_bytes=self._max_bytes, shape=SHAPE), 0
            texts = sent.texts or [item.text for item in sent.items or ()]
            given = [Given(item.id, {}, item.inputs) for item in sent.items or ()]
        self._check(texts)
        return {
            "name": sent.name,
            "texts": texts,
            "given": given if any(one.to_json() for one in given) else [],
            "description": sent.description or "",
            "options": (sent.options or Options()).record(),
        }, unvalued

    def _check(self, texts: Sequence[str]) -> None:
        """Refuse a task that contains a text longer than a question may be."""
        limit = self._question_max_bytes
        long = [index for index, text in enumerate(texts) if is_longer(text, limit)]
        if long:
            problem = f"is longer than {limit} bytes"
            errors = [{"field": f"texts.{index}", "problem": problem} for index in long[:MAX_ERRORS]]
            message, data = self._texts.get("question_too_large"), {"errors": errors, "max_bytes": limit}
            raise RestError(413, message, reason="question_too_large", data=data)


def _of_visitor(client: Caller) -> Caller:
    """Return an anonymous caller as the browser that it names, if it does; other callers unchanged."""
    visitor = request.headers.get("X-Visitor")
    if visitor is None:
        return client
    if not VISITOR.fullmatch(visitor):
        raise wrong_field("X-Visitor", "22 to 64 letters, digits, '_' and '-' are taken")
    return client.on_behalf_of(f"visitor-{fingerprint(visitor)}") if client.principal == ANONYMOUS else client


def _key() -> str:
    """Return the submission's idempotency key, "" for none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        raise wrong_field("Idempotency-Key", "1 to 64 visible ASCII characters are taken")
    return key or ""


def _check_format(asked: ResultsQuery) -> None:
    """Refuse a parameter that belongs to another format."""
    problems: dict[str, str] = {}
    if asked.format != "json":
        problems |= dict.fromkeys(("page", "size", "render"), "a download has all results, and no pages")
    if asked.format != "xlsx":
        problems |= dict.fromkeys(("locale", "utc_offset"), "only a workbook has it")
    for name, problem in problems.items():
        if getattr(asked, name) is not None:
            raise wrong_field(name, problem)
