"""The addresses of batches for the OpenAPI document."""

from __future__ import annotations

import re

from channels.batch.answers import Processor, Results, Submitted, Tasks, TaskState
from channels.batch.downloads import MEDIA
from channels.batch.models import FileSubmission, ListQuery, ResultsQuery, Submission
from channels.batch.uploads import FORM
from channels.web.rest import Operation

TASKS = "/api/batch/tasks"
ONE = f"{TASKS}/{{task_id}}"
STATUS = "/api/batch/status"
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
        forms={FORM: FileSubmission},
        answers={200: Submitted, 201: Submitted, 409: None, 429: None},
        headers={
            "Idempotency-Key": {
                "pattern": f"^{KEY.pattern}$",
                "description": "Your own id of this submission. Repeating it returns the same task with status 200.",
            }
        },
        description="As JSON, or as a form with a file of plain text, CSV or Excel. Each text is answered by itself.",
    ),
    Operation("GET", TASKS, "List your tasks, newest first", "batch", query=ListQuery, answers={200: Tasks}),
    Operation("GET", ONE, "Show a task and its progress", "batch", answers={200: TaskState, 404: None}),
    Operation(
        "DELETE",
        ONE,
        "Cancel a task and its running answers",
        "batch",
        answers=_CHANGED,
        description="Completed results are kept. A task that has already ended answers 409.",
    ),
    Operation("POST", f"{ONE}/pause", "Pause a task: start no more texts", "batch", answers=_CHANGED),
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
