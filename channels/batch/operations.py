"""The addresses of batches as the specification has them."""

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
#: What a submission may be named by those who send it.
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
                "description": "Your own name for this submission: sent again, it finds the same task and answers 200.",
            }
        },
        description="As JSON, or as a form with a file of plain text, CSV or Excel. Texts are answered one by one.",
    ),
    Operation("GET", TASKS, "List your tasks, the newest first", "batch", query=ListQuery, answers={200: Tasks}),
    Operation("GET", ONE, "Show a task and its progress", "batch", answers={200: TaskState, 404: None}),
    Operation(
        "DELETE",
        ONE,
        "Cancel a task, and the answers under way",
        "batch",
        answers=_CHANGED,
        description="What is completed stays. An end is final: a task that has ended answers 409.",
    ),
    Operation("POST", f"{ONE}/pause", "Begin no more texts of a task", "batch", answers=_CHANGED),
    Operation("POST", f"{ONE}/resume", "Go on with a paused task", "batch", answers=_CHANGED),
    Operation(
        "GET",
        f"{ONE}/results",
        "Get results in the order of the texts, also while they come in",
        "batch",
        query=ResultsQuery,
        answers={200: Results, 404: None},
        media={200: tuple(media.partition(";")[0] for media in MEDIA.values())},
        description="With `format` csv or jsonl a file of all results; in the CSV a cell that a spreadsheet would take "
        "for a formula has a `'` before it.",
    ),
    Operation("GET", STATUS, "Show how batches stand", "batch", answers={200: Processor}),
)
