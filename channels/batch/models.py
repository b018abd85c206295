"""The models of the batch API: they validate requests, and describe requests and replies in the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    Json,
    RootModel,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from channels.options import AnswerSource
from channels.web.json_shape import JsonShape
from channels.web.rest import RestModel
from services.batches.records import (
    UNFINISHED,
    BatchOptions,
    ItemStatus,
    Priority,
    QueueStatus,
    Task,
    TaskStatus,
    WebhookState,
    utc_text,
)
from utils.questions.files.columns import Header
from utils.questions.files.reading import MAX_CHARS, MAX_ID, MAX_TEXTS
from utils.questions.files.rows import Encoding

#: Maximum characters of a task's name.
MAX_NAME = 100
#: Maximum inputs of one task, and characters of an input's name.
MAX_INPUTS = 50
MAX_INPUT_NAME = 64

#: Each text may be an object with inputs of its own, but in 10,000 texts only 35 in each: reading 550,000 values took
#: 0.25 s, in which nothing else was served.
SHAPE = JsonShape(values=MAX_TEXTS * 40, members=1_000)

#: Matches a string that is not blank.
NOT_BLANK = r"\S"
Text = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_CHARS, pattern=NOT_BLANK)]
TaskName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=NOT_BLANK)]
Description = Annotated[StrictStr, StringConstraints(max_length=500)]
InputName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_INPUT_NAME)]
InputText = Annotated[StrictStr, StringConstraints(max_length=MAX_CHARS)]
InputNumber = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
ColumnName = Annotated[str, StringConstraints(max_length=200)]
BatchInput = StrictBool | InputNumber | InputText


class Options(RestModel):
    """How a task is processed."""

    inputs: dict[InputName, BatchInput] = Field(
        {}, max_length=MAX_INPUTS, description="Inputs of the app, for every text."
    )
    max_attempts: Annotated[StrictInt, Field(ge=1, le=5)] = Field(3, description="Maximum attempts for each text.")
    max_concurrent: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="Maximum texts of this task asked at once; null: as many as the server allows."
    )

    priority: Priority = Field(
        "normal", description="Of the tasks that wait, those of a higher priority get more of the answers at once."
    )

    webhook_url: Annotated[StrictStr, StringConstraints(max_length=2000)] = Field(
        "", description="Address that gets a signed POST at the task's end; empty for none."
    )

    def record(self) -> BatchOptions:
        return BatchOptions(dict(self.inputs), self.max_attempts, self.max_concurrent, self.priority, self.webhook_url)


class SubmittedItem(RestModel):
    """A text with its id and inputs."""

    text: Text
    id: Annotated[StrictStr, StringConstraints(max_length=MAX_ID)] = Field(
        "", description="Your own id of the text; its result has it."
    )
    inputs: dict[InputName, BatchInput] = Field(
        {}, max_length=MAX_INPUTS, description="Inputs of the app for this text; they come before those of the task."
    )


class Submission(RestModel):
    """A task as JSON, with either `texts` or `items`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "常见问题", "texts": ["年假有几天？", "怎么报销？"]}]}
    )

    name: TaskName = Field(examples=["常见问题"])
    texts: Annotated[list[Text], Field(fail_fast=True)] | None = Field(
        None, min_length=1, max_length=MAX_TEXTS, examples=[["年假有几天？", "怎么报销？"]]
    )
    items: Annotated[list[SubmittedItem], Field(fail_fast=True)] | None = Field(
        None, min_length=1, max_length=MAX_TEXTS, description="Instead of `texts`: texts with your own ids and inputs."
    )
    description: Description | None = None
    options: Options | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.texts is None) == (self.items is None):
            raise ValueError("either texts or items is needed")
        return self


class FilePreview(RestModel):
    """A form with a file: `.txt` (one text per line), `.csv`, `.tsv` or `.xlsx`."""

    file: bytes = Field(description="Plain text, CSV or a workbook; UTF-8, UTF-16 with a BOM, or GBK.")
    header: Header = Field("auto", description="Whether the first row contains the column names.")
    sheet: Annotated[str, StringConstraints(max_length=100)] = Field(
        "", description="Name of the sheet; by default the first one with a column of questions, else the first one."
    )
    encoding: Encoding = "auto"


class FileSubmission(FilePreview):
    """A task as a form with a file: `.txt` (one text per line), `.csv`, `.tsv` or `.xlsx`."""

    name: TaskName | None = Field(None, description="Name of the task; by default the file's name.")
    description: Description = ""
    options: Json[Options] | None = Field(None, description="The object `options` as JSON text.")
    column: ColumnName = Field(
        "",
        description="Name or number (from 1) of the column with the texts. By default it is found by its name or its "
        "content; a file with more than one candidate is refused.",
    )
    id_column: ColumnName = Field(
        "", description="Name or number (from 1) of the column with your own ids; by default there is none."
    )


class ListQuery(RestModel):
    status: TaskStatus | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    size: Annotated[int, Field(ge=1, le=100)] = 20


class RemovalQuery(RestModel):
    purge: Literal["true", "false"] = Field("false", description="true: remove an ended task with its results.")


class ResultsQuery(RestModel):
    format: Literal["json", "csv", "jsonl", "xlsx"] = Field(
        "json", description="json: one page; csv, jsonl, xlsx: a file of all results."
    )
    status: ItemStatus | None = Field(None, description="Only the results of this status.")
    page: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="Default 1; for json only.")
    size: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Default 100; for json only.")
    render: Literal["html"] | None = Field(
        None, description="html: each result has its answer as safe HTML too; for json only, with a `size` up to 100."
    )
    locale: Literal["zh", "en"] | None = Field(
        None, description="Language of a workbook's words, by default the server's; for xlsx only."
    )
    utc_offset: Annotated[int, Field(ge=-840, le=840)] | None = Field(
        None,
        description="Minutes by which a workbook's times are ahead of UTC, by default the server's; for xlsx only.",
    )


class Submitted(RestModel):
    task_id: str = Field(examples=["3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34"])
    status: TaskStatus
    created_at: datetime
    formulas_without_value: int = Field(
        description="Formulas of the file's column that have no stored value and so are not asked, because the file "
        "was not saved by a spreadsheet. Opening and saving it in one stores the values."
    )


class Progress(RestModel):
    """The progress of a task. Each item is in exactly one of completed, failed, cancelled, running, pending."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    pending: int
    percentage: float = Field(description="Percentage of items completed or failed: 0 to 100.")
    rate: float = Field(description="Items per second since the start, without pauses.")


class UsageSum(RestModel):
    total_tokens: int
    total_price: str = Field(description="A decimal number; empty if the provider reported no price.")
    currency: str


class WebhookDelivery(RestModel):
    state: WebhookState
    attempts: int
    last_error: str = Field(description="Why the last attempt failed; empty if none did.")


class TaskState(RestModel):
    """A task. completed, failed and cancelled are final; failed means that it ended without a completed item."""

    task_id: str
    name: str
    description: str
    status: TaskStatus
    progress: Progress
    total_items: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    estimated_completion: datetime | None
    error_message: str | None
    options: Options
    priority: Priority
    usage: UsageSum | list[UsageSum] | None = Field(
        description="The sums of all results once the task has ended; a list if they have several currencies, null "
        "without figures."
    )
    webhook: WebhookDelivery


class Purged(RestModel):
    task_id: str
    purged: Literal[True]


class Removed(RootModel[TaskState | Purged]):
    """The cancelled task or, with `purge=true`, the removed one."""


class Tasks(RestModel):
    tasks: list[TaskState]
    total: int
    page: int
    size: int


class ItemError(RestModel):
    code: str = Field(description="A stable error code.", examples=["provider_timeout"])
    message: str


class Result(RestModel):
    """One text and its result so far."""

    index: int = Field(description="Position in the submission, from 0.")
    id: str = Field(description="Your own id of the text; empty without one.")
    text: str
    status: ItemStatus
    attempts: int
    content: str
    metadata: dict[str, Any]
    sources: list[AnswerSource]
    usage: dict[str, Any]
    error: ItemError | None = Field(description="The error of the last attempt.")
    started_at: datetime | None
    completed_at: datetime | None
    columns: dict[str, str] = Field(description="The other cells of the text's row in the file, by their columns.")
    html: str | None = Field(None, description="The content as safe HTML; only with `render=html`.")


class Column(RestModel):
    index: int = Field(description="Its number from 1, which `column` and `id_column` take.")
    name: str = Field(description="Its name in the header, or its number; no two are equal.")
    samples: list[str] = Field(description="Up to five cells, each cut at 200 characters.")


class Preview(RestModel):
    """A file before it is submitted. Columns without any cell are left out."""

    sheets: list[str] = Field(description="The visible sheets of a workbook; empty for other files.")
    sheet: str = Field(description="The sheet that is shown and would be asked; empty for other files.")
    columns: list[Column]
    rows: int = Field(description="Rows below the header that have any text.")
    column: int | None = Field(description="The column that would be asked, null if it has to be chosen.")
    id_column: int | None = Field(description="A column that looks like ids. It has to be chosen to count as such.")
    header: bool = Field(description="Whether the first row is a header.")
    max_bytes: int = Field(description="The largest file that is taken.")


class Summary(RestModel):
    total: int
    success: int
    failed: int


class Results(RestModel):
    """Results in the order of the submission; also available while the task runs."""

    task_id: str
    status: TaskStatus
    results: list[Result]
    total: int
    page: int
    size: int
    summary: Summary


class Queue(RestModel):
    total_tasks: int
    pending: int
    running: int
    paused: int
    max_size: int
    available_slots: int


class Processor(RestModel):
    """The batch processor, over all replicas and callers."""

    is_running: bool
    workers: int
    max_concurrent: int
    running_items: int
    queue: Queue
    max_bytes: int = Field(description="The largest submission that is taken, file or JSON.")


def submitted_json(task: Task, unvalued: int) -> dict[str, Any]:
    """Return the data of `Submitted`; `unvalued` is the number of formulas without a value."""
    about = {"task_id": task.task_id, "status": task.status, "created_at": utc_text(task.created_at)}
    return {**about, "formulas_without_value": unvalued}


def summary_json(task: Task) -> dict[str, int]:
    """Return the data of `Summary`."""
    return {"total": task.total, "success": task.completed, "failed": task.failed}


def processor_json(status: QueueStatus, max_bytes: int) -> dict[str, Any]:
    """Return the data of `Processor`."""
    waiting = {name: status.totals.get(name, 0) for name in UNFINISHED}
    return {
        "is_running": status.is_running,
        "workers": status.workers,
        "max_concurrent": status.max_concurrent,
        "running_items": status.running_items,
        "queue": {
            "total_tasks": sum(status.totals.values()),
            **waiting,
            "max_size": status.max_size,
            "available_slots": status.available_slots,
        },
        "max_bytes": max_bytes,
    }
