"""The addresses of batches for the OpenAPI document."""

from __future__ import annotations

import re

from channels.batch.answers import Preview, Processor, Removed, Results, Submitted, Tasks, TaskState
from channels.batch.downloads import MEDIA
from channels.batch.models import FilePreview, FileSubmission, ListQuery, RemovalQuery, ResultsQuery, Submission
from channels.web.rest import Operation

TASKS = "/api/batch/tasks"
ONE = f"{TASKS}/{{task_id}}"
STATUS = "/api/batch/status"
PREVIEW = "/api/batch/preview"
#: A valid Idempotency-Key.
KEY = re.compile(r"[\x21-\x7e]{1,64}")

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
            }
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
    Operation("GET", TASKS, "List your tasks, newest first", "batch", query=ListQuery, answers={200: Tasks}),
    Operation("GET", ONE, "Show a task and its progress", "batch", answers={200: TaskState, 404: None}),
    Operation(
        "DELETE",
        ONE,
        "Cancel a task and its running answers, or remove an ended one",
        "batch",
        query=RemovalQuery,
        answers={**_CHANGED, 200: Removed},
        description="Completed results are kept, and a task that has already ended answers 409. With `purge=true` an "
        "ended task is removed with its results, and one that has not ended answers 409.",
    ),
    Operation("POST", f"{ONE}/pause", "Pause a task: start no more texts", "batch", answers=_CHANGED),
    Operation(
        "POST",
        f"{ONE}/retry",
        "Ask the failed texts of an ended task again",
        "batch",
        answers={**_CHANGED, 429: None},
        description="They are pending again, and the task runs. 409 while it runs, after it was cancelled, and if no "
        "text failed.",
    ),
    Operation("POST", f"{ONE}/resume", "Resume a paused task", "batch", answers=_CHANGED),
    Operation(
        "GET",
        f"{ONE}/results",
        "Get results in the order of the texts, also while the task runs",
        "batch",
        query=ResultsQuery,
        answers={200: Results, 404: None},
        media={200: tuple(media.partition(";")[0] for media in MEDIA.values())},
        description="With `format` csv or jsonl, a file of all results. In the CSV, a cell that a spreadsheet would "
        "read as a formula begins with `'`.",
    ),
    Operation("GET", STATUS, "Show the state of the batch processor", "batch", answers={200: Processor}),
)
