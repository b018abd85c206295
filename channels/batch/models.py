"""What the addresses of batches take: the models that requests are checked by and the specification shows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Json, StrictBool, StrictFloat, StrictInt, StrictStr, StringConstraints

from channels.web.rest import RestModel
from services.batches.records import BatchOptions, TaskStatus
from utils.questions.columns import Header
from utils.questions.files import MAX_CHARS, MAX_TEXTS, Encoding

#: Characters of a task's name.
MAX_NAME = 100
#: Inputs of one task, characters of an input's name and of its text.
MAX_INPUTS = 50
MAX_INPUT_NAME = 64

#: A string that is not blank: a batch of nothing is a mistake.
SAID = r"\S"
Text = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_CHARS, pattern=SAID)]
TaskName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=SAID)]
Description = Annotated[StrictStr, StringConstraints(max_length=500)]
InputName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_INPUT_NAME)]
InputText = Annotated[StrictStr, StringConstraints(max_length=MAX_CHARS)]
InputNumber = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
BatchInput = StrictBool | InputNumber | InputText


class Options(RestModel):
    """What may be said about how a task is done; there are no others."""

    inputs: dict[InputName, BatchInput] = Field(
        {}, max_length=MAX_INPUTS, description="Inputs of the app, for every text."
    )
    max_attempts: Annotated[StrictInt, Field(ge=1, le=5)] = Field(3, description="How often a text is asked at most.")
    max_concurrent: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="Texts of this task asked at once; null: as many as there is room for."
    )

    def record(self) -> BatchOptions:
        return BatchOptions(dict(self.inputs), self.max_attempts, self.max_concurrent)


class Submission(RestModel):
    """A task as JSON."""

    name: TaskName = Field(examples=["常见问题"])
    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS, examples=[["年假有几天？", "怎么报销？"]])
    description: Description | None = None
    options: Options | None = None


class FileSubmission(RestModel):
    """A task as a form with a file: `.txt` (a line is a text), `.csv`, `.tsv`, or the first sheet of an `.xlsx`."""

    file: bytes = Field(description="Plain text, CSV or a workbook; UTF-8, UTF-16 with its mark, or GBK.")
    name: TaskName | None = Field(None, description="Of the task; the file's name unless given.")
    description: Description = ""
    options: Json[Options] | None = Field(None, description="The object `options` as JSON text.")
    column: Annotated[str, StringConstraints(max_length=200)] = Field(
        "",
        description="TaskName or number (from 1) of the texts' column; else the one that is meant by its name or by what "
        "is in it. Where more than one may be meant, the file is refused.",
    )
    header: Header = Field("auto", description="Whether the first row has the columns' names.")
    sheet: Annotated[str, StringConstraints(max_length=100)] = Field("", description="A sheet's name; else the first.")
    encoding: Encoding = "auto"


class ListQuery(RestModel):
    status: TaskStatus | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    size: Annotated[int, Field(ge=1, le=100)] = 20


class ResultsQuery(RestModel):
    format: Literal["json", "csv", "jsonl"] = Field("json", description="json: one page; csv, jsonl: all, to save.")
    page: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="1 unless given; of json only.")
    size: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="100 unless given; of json only.")
