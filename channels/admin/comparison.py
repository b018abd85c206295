"""Former answers beside the new ones of a batch that asked questions again: a regression test of an app."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

from flask import Blueprint, Response, request
from pydantic import Field

from channels.admin.endpoints import TAG
from channels.admin.feedback import in_turns
from channels.admin.files import csv_reply
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, envelope, params
from services.batches.records import Item, Task, TaskStatus
from services.errors import BatchUnknown
from services.identity.callers import ADMIN

Outcome = Literal["same", "changed", "failed", "waiting"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

#: The columns of the file.
COLUMNS = ("question", "outcome", "former_answer", "new_answer", "error", "stream_id")


class Which(RestModel):
    """Which questions."""

    outcome: Literal["", "same", "changed", "failed", "waiting"] = ""


class ComparisonAsked(Which):
    """Which questions, page by page."""

    with_words: bool = Field(False, description="With questions and answers; for the role `admin`.")
    cursor: int = Field(0, ge=0, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=100)


class Compared(RestModel):
    """A question with its former answer and the new one."""

    question: str
    outcome: Outcome = Field(
        description="same: the answers differ in white space at most; failed: the new one failed or was cancelled."
    )
    former_answer: str
    new_answer: str
    error: str = Field(description="The code of a failed answer; else empty.")
    stream_id: str = Field(description="The question in the log.")


class Comparison(RestModel):
    """How a batch's answers compare with the former ones."""

    task_id: str
    status: TaskStatus
    counts: dict[Outcome, int]
    rows: list[Compared] | None = Field(description="Null without words.")
    next: int | None = Field(description="The `cursor` of the next page; null at the end.")


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/batches/{task_id}/comparison",
        "Former and new answers of questions that were asked again",
        TAG,
        query=ComparisonAsked,
        answers={200: Comparison, 404: None},
        auth="viewer",
        description="Of a batch that an administrator made of ratings or unanswered questions, also while it runs. "
        "The words are for the role `admin`; each page of them is audited as `batch.read`.",
    ),
    Operation(
        "GET",
        "/api/admin/batches/{task_id}/comparison/export",
        "The same as CSV",
        TAG,
        query=Which,
        answers={200: None, 404: None},
        media={200: "text/csv"},
        auth="admin",
        description="Audited as `batch.export`.",
    ),
)


class ComparedItems(Protocol):
    """The tasks with their items, as `SqlBatchStore` reads them."""

    def get(self, task_id: str) -> Task: ...

    def all_rows(self, task_id: str) -> Iterator[Item]: ...


def comparison_blueprint(administrators: Administrators, store: ComparedItems | None) -> Blueprint:
    """Return the addresses of comparisons; `store` is None without a database."""
    routes = Blueprint("admin_comparison", __name__)
    admin_errors(routes)

    def compared(task_id: str) -> tuple[Task, Iterator[dict[str, Any]]]:
        if store is None:
            raise RestError(404)
        task = store.get(task_id)
        if not task.owner.startswith(ADMIN):
            # Those of other callers have no former answers, and their words are not the administrators'.
            raise BatchUnknown
        return task, map(_compared, in_turns(store.all_rows(task_id)))

    @routes.get("/api/admin/batches/<task_id>/comparison")
    def comparison(task_id: str) -> Response:
        who = administrators.check("viewer")
        asked = params(ComparisonAsked)
        if asked.with_words:
            who = administrators.check("admin")
        task, rows = compared(task_id)
        if asked.with_words:
            administrators.record(who, "batch.read", task_id, after=request.query_string.decode("ascii", "replace"))
        return envelope({"task_id": task_id, "status": task.status, **_page(rows, asked)})

    @routes.get("/api/admin/batches/<task_id>/comparison/export")
    def export(task_id: str) -> Response:
        who = administrators.check("admin")
        asked = params(Which)
        _, rows = compared(task_id)
        administrators.record(who, "batch.export", task_id, after=asked.outcome)
        chosen = (row for row in rows if asked.outcome in ("", row["outcome"]))
        return csv_reply(chosen, COLUMNS, name="comparison.csv")

    return routes


def _page(rows: Iterator[dict[str, Any]], asked: ComparisonAsked) -> dict[str, Any]:
    """Return the counts of all rows, and the page of those with the outcome."""
    counts: Counter[Outcome] = Counter()
    page: list[dict[str, Any]] = []
    following = None
    for number, row in enumerate(rows):
        counts[row["outcome"]] += 1
        if not asked.with_words or number < asked.cursor or asked.outcome not in ("", row["outcome"]):
            continue
        if len(page) < asked.limit:
            page.append(row)
        elif following is None:
            following = number
    shown = page if asked.with_words else None
    return {"counts": {name: counts[name] for name in OUTCOMES}, "rows": shown, "next": following}


def _compared(item: Item) -> dict[str, Any]:
    former = item.given.columns.get("answer", "")
    return {
        "question": item.text,
        "outcome": _outcome(item, former),
        "former_answer": former,
        "new_answer": item.content,
        "error": item.error["code"] if item.error else "",
        "stream_id": item.given.id,
    }


def _outcome(item: Item, former: str) -> Outcome:
    if item.status in ("pending", "running"):
        return "waiting"
    if item.status != "completed":
        return "failed"
    new, old = _plain(item.content), _plain(former)
    return "same" if new == old or (item.given.columns.get("cut") and new.startswith(old)) else "changed"


def _plain(text: str) -> str:
    return "".join(text.split())
