"""The request models of the batch API: they validate requests and appear in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Json, StrictBool, StrictFloat, StrictInt, StrictStr, StringConstraints, model_validator

from channels.web.rest import RestModel
from services.batches.records import BatchOptions, ItemStatus, Priority, TaskStatus
from utils.questions.files.columns import Header
from utils.questions.files.reading import MAX_CHARS, MAX_ID, MAX_TEXTS
from utils.questions.files.rows import Encoding

#: Maximum characters of a task's name.
MAX_NAME = 100
#: Maximum inputs of one task, and characters of an input's name.
MAX_INPUTS = 50
MAX_INPUT_NAME = 64

#: Matches a string that is not blank.
SAID = r"\S"
Text = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_CHARS, pattern=SAID)]
TaskName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=SAID)]
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
        "", description="Address that is told of the task's end by a signed POST; empty for none."
    )

    def record(self) -> BatchOptions:
        return BatchOptions(dict(self.inputs), self.max_attempts, self.max_concurrent, self.priority, self.webhook_url)


class SubmittedItem(RestModel):
    """A text with what belongs to it."""

    text: Text
    id: Annotated[StrictStr, StringConstraints(max_length=MAX_ID)] = Field(
        "", description="Your own id of the text; its result has it."
    )
    inputs: dict[InputName, BatchInput] = Field(
        {}, max_length=MAX_INPUTS, description="Inputs of the app for this text; they come before those of the task."
    )


class Submission(RestModel):
    """A task as JSON, with either `texts` or `items`."""

    name: TaskName = Field(examples=["常见问题"])
    texts: list[Text] | None = Field(
        None, min_length=1, max_length=MAX_TEXTS, examples=[["年假有几天？", "怎么报销？"]]
    )
    items: list[SubmittedItem] | None = Field(
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
        "", description="Name of the sheet; by default the first one."
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
