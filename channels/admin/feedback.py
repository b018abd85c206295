"""What people say of answers, for administrators: ratings with their questions, and questions without a good answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from uuid import uuid4
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request
from pydantic import Field

from channels.admin.endpoints import MOST, TAG, USUAL, Time
from channels.admin.files import csv_reply
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, envelope, params, wrong_field
from config.bots import DEFAULT_BOT
from services.batches.records import Given, Task
from services.identity.callers import ADMIN
from services.usage.gaps import READ, REFUSALS, GapGroup, found_gaps, groups
from services.usage.log_store import PAGE, GivenRating, LogFilter, RatingFilter, RatingPlace, Row, SaidOf

T = TypeVar("T")

#: The newest questions that are looked through for those without a good answer, their days without `since`, and the
#: groups of one reply.
MOST_LOOKED, DAYS, MOST_GROUPS = 1_000, 7, 50
#: The newest ratings of a file.
MOST_SAVED = 5_000
#: Rows after which other requests of this process get their turn.
TURN = 20
#: Questions of a batch that asks them again: every look at a comparison reads all of them.
MOST_AGAIN = 500
#: The columns of the files: a batch asks those of `question`, and shows the others beside its answers.
RATED_COLUMNS = ("question", "answer", "rating", "reasons", "comment", "rated_at", "bot", "channel", "stream_id")
GAP_COLUMNS = ("question", "count", "people", "reasons", "last", "stream_ids")


class _Span(RestModel):
    """Of what time and which bot."""

    since: Time | None = Field(None, description="With a time zone, such as 2026-11-24T08:00:00+08:00.")
    until: Time | None = Field(None, description="Exclusive.")
    bot: str = ""
    channel: str = ""


class RatingsTable(_Span):
    """Which ratings."""

    rating: Literal["", "like", "dislike"] = ""


class RatingsAsked(RatingsTable):
    """Which ratings, page by page."""

    with_words: bool = Field(False, description="With question, answer and comment; for the role `admin`.")
    cursor: str = Field("", description="`next` of the page before.")
    limit: int = Field(USUAL, ge=1, le=MOST)


class RatingShown(RestModel):
    """A person's rating of an answer; what the log does not have is null."""

    stream_id: str
    rated_at: str
    rating: Literal["like", "dislike"]
    reasons: list[int] = Field(description="WeCom's: 1 unrelated, 2 incomplete, 3 wrong, 4 wrong analysis of data.")
    comment: str | None
    channel: str
    bot: str
    person: str | None = Field(description="Who asked.")
    department: str | None
    question: str | None
    answer: str | None


class RatingsPage(RestModel):
    """Ratings, the newest first."""

    ratings: list[RatingShown]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class GapsAsked(_Span):
    """Of which questions."""

    department: str = Field("", description="The main department.")


class GapShown(RestModel):
    """Questions of similar words that got no good answer."""

    count: int
    people: int
    reasons: dict[Literal["no_sources", "refused", "disliked", "asked_again"], int]
    examples: list[str]
    last: str
    stream_ids: list[str]


class Gaps(RestModel):
    """Questions that got no good answer, the most frequent first."""

    since: str
    read: int = Field(description=f"Questions that were looked through: the newest {MOST_LOOKED} at most.")
    groups: list[GapShown]


class AskedAgain(RestModel):
    """A batch that asks questions again."""

    task_id: str = Field(description="Of `/api/admin/batches`, and of its `comparison`.")
    questions: int
    left_out: int = Field(description="Questions with files, of other bots than the default one, or without words.")


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/feedback",
        "Ratings of answers",
        TAG,
        query=RatingsAsked,
        answers={200: RatingsPage},
        auth="viewer",
        description="Words of people come on demand, for the role `admin`, and each such page is audited as "
        "`feedback.read`. Without a database: 404.",
    ),
    Operation(
        "GET",
        "/api/admin/feedback/export",
        "Rated questions as CSV, for a batch",
        TAG,
        query=RatingsTable,
        answers={200: None},
        media={200: "text/csv"},
        auth="admin",
        description=f"Each question once, of the newest {MOST_SAVED:,} ratings, with the rated answer. A batch asks "
        "the column `question` again. Audited as `feedback.export`.",
    ),
    Operation(
        "POST",
        "/api/admin/feedback/batch",
        "Ask rated questions again",
        TAG,
        query=RatingsTable,
        answers={201: AskedAgain, 404: None, 409: None, 429: None},
        auth="admin",
        description=f"A batch of the questions of the newest {MOST_AGAIN} ratings, each once, for the default bot; its "
        "`comparison` has the former answers beside the new ones. 409 `no_questions`: the log has the words of none. "
        "Audited as `feedback.batch`.",
    ),
    Operation(
        "GET",
        "/api/admin/unanswered",
        "Questions that got no good answer",
        TAG,
        query=GapsAsked,
        answers={200: Gaps},
        auth="admin",
        description=f"As `tools.log gaps` finds them, among the newest {MOST_LOOKED:,} questions; without `since` of "
        f"{DAYS} days. It needs `QUESTION_LOG=full`. Audited as `questions.read`.",
    ),
    Operation(
        "GET",
        "/api/admin/unanswered/export",
        "Questions that got no good answer, as CSV for a batch",
        TAG,
        query=GapsAsked,
        answers={200: None},
        media={200: "text/csv"},
        auth="admin",
        description="An example of each group. Audited as `questions.export`.",
    ),
    Operation(
        "POST",
        "/api/admin/unanswered/batch",
        "Ask questions that got no good answer again",
        TAG,
        query=GapsAsked,
        answers={201: AskedAgain, 404: None, 409: None, 429: None},
        auth="admin",
        description="An example of each group, as `/api/admin/feedback/batch` asks. Audited as `questions.batch`.",
    ),
)


class RatedLog(Protocol):
    """The question log with its ratings, as `SqlLogStore` reads it."""

    def ratings(
        self, chosen: RatingFilter, *, after: RatingPlace | None, page: int = PAGE
    ) -> Iterator[tuple[GivenRating, Row | None]]: ...

    def rows(self, chosen: LogFilter, *, columns: Sequence[str]) -> Iterator[tuple[Row, SaidOf]]: ...


class FormerAnswer(NamedTuple):
    """A question of the log to be asked again."""

    question: str
    answer: str
    stream_id: str
    #: Whether the log has only the answer's beginning.
    cut: bool


class Submitter(Protocol):
    """What takes tasks, as `BatchManager` does."""

    def submit(
        self, *, owner: str, name: str, texts: Sequence[str], given: Sequence[Given], task_id: str
    ) -> tuple[Task, bool]: ...


class Again:
    """Asks questions again as batches of the administrator."""

    def __init__(self, administrators: Administrators, batches: Submitter | None) -> None:
        """`batches` is None without a database."""
        self._administrators = administrators
        self._batches = batches

    def ask(self, action: str, read: Callable[[], tuple[list[FormerAnswer], int]]) -> Response:
        """Audit the administrator of the Flask request, and submit the questions that `read` returns then.

        `read` also returns how many are left out.

        Raises:
            RestError: 404 there are no batches; 409 no question is left.
        """
        who = self._administrators.check("admin")
        if self._batches is None:
            raise RestError(404)
        task_id, query = str(uuid4()), request.query_string.decode("ascii", "replace")
        self._administrators.record(who, action, task_id, after=query)
        asked, left_out = read()
        if not asked:
            raise RestError(409, reason="no_questions")
        self._batches.submit(
            owner=f"{ADMIN}{who.name}",
            name=action,
            texts=[one.question for one in asked],
            given=[Given(one.stream_id, {"answer": one.answer, "cut": "1" if one.cut else ""}) for one in asked],
            task_id=task_id,
        )
        made = {"task_id": task_id, "questions": len(asked), "left_out": left_out}
        return envelope(made, status=201)


def ratings_blueprint(
    administrators: Administrators,
    log: RatedLog | None,
    zone: ZoneInfo,
    again: Again,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Blueprint:
    """Return the addresses of ratings and of unanswered questions; `log` is None without a database."""
    routes = Blueprint("admin_feedback", __name__)
    admin_errors(routes)

    def opened() -> RatedLog:
        if log is None:
            raise RestError(404)
        return log

    def found(asked: GapsAsked) -> Unanswered:
        return _unanswered(opened(), asked, asked.since or clock() - timedelta(days=DAYS))

    def recorded(action: str) -> None:
        """Write into the audit what an admin is about to see; the filter may have people's names."""
        who = administrators.check("admin")
        opened()
        administrators.record(who, action, "", after=request.query_string.decode("ascii", "replace"))

    @routes.get("/api/admin/feedback")
    def feedback() -> Response:
        administrators.check("viewer")
        asked = params(RatingsAsked)
        after = _place(asked.cursor) if asked.cursor else None
        if asked.with_words:
            recorded("feedback.read")
        page = list(islice(opened().ratings(_filter(asked), after=after, page=asked.limit), asked.limit))
        following = _cursor(page[-1][0]) if len(page) == asked.limit else None
        shown = [_shown(*each, zone, with_words=asked.with_words) for each in page]
        return envelope({"ratings": shown, "next": following})

    @routes.get("/api/admin/feedback/export")
    def feedback_export() -> Response:
        administrators.check("admin")
        asked = params(RatingsTable)
        recorded("feedback.export")
        given = islice(opened().ratings(_filter(asked), after=None), MOST_SAVED)
        shown = (_shown(*each, zone, with_words=True) for each in given)
        return csv_reply(_once(row for row in shown if row["question"]), RATED_COLUMNS, name="feedback.csv")

    @routes.post("/api/admin/feedback/batch")
    def feedback_batch() -> Response:
        administrators.check("admin")
        asked = params(RatingsTable)
        given = islice(opened().ratings(_filter(asked), after=None), MOST_AGAIN)
        return again.ask("feedback.batch", lambda: _former([row for _, row in given]))

    _add_unanswered(routes, administrators, recorded, found, again, zone)
    return routes


def _add_unanswered(
    routes: Blueprint,
    administrators: Administrators,
    recorded: Callable[[str], None],
    found: Callable[[GapsAsked], Unanswered],
    again: Again,
    zone: ZoneInfo,
) -> None:
    @routes.get("/api/admin/unanswered")
    def unanswered() -> Response:
        administrators.check("admin")
        asked = params(GapsAsked)
        recorded("questions.read")
        made = found(asked)
        shown = [group.documented(zone) for group in made.groups]
        return envelope({"since": made.since.isoformat(timespec="seconds"), "read": len(made.rows), "groups": shown})

    @routes.get("/api/admin/unanswered/export")
    def unanswered_export() -> Response:
        administrators.check("admin")
        asked = params(GapsAsked)
        recorded("questions.export")
        groups = [group.documented(zone) for group in found(asked).groups]
        rows = [{**group, "question": group["examples"][0]} for group in groups]
        return csv_reply(rows, GAP_COLUMNS, name="unanswered.csv")

    @routes.post("/api/admin/unanswered/batch")
    def unanswered_batch() -> Response:
        administrators.check("admin")
        asked = params(GapsAsked)
        return again.ask("questions.batch", lambda: _former(found(asked).examples))


class Unanswered(NamedTuple):
    """The questions that were looked through, and the groups of those without a good answer."""

    since: datetime
    rows: list[tuple[Row, SaidOf]]
    groups: list[GapGroup]

    @property
    def examples(self) -> list[Row]:
        """The newest question of each group."""
        rows = {row["stream_id"]: row for row, _ in self.rows}
        return [rows[group.gaps[-1].stream_id] for group in self.groups]


def _unanswered(log: RatedLog, asked: GapsAsked, since: datetime) -> Unanswered:
    chosen = LogFilter(since, asked.until, asked.bot, asked.channel, department=asked.department)
    rows = list(islice(in_turns(log.rows(chosen, columns=(*READ, "files", "bytes"))), MOST_LOOKED))
    made = groups(list(in_turns(found_gaps(in_turns(reversed(rows)), REFUSALS))))
    return Unanswered(since, rows, made[:MOST_GROUPS])


def _former(rows: Sequence[Row | None]) -> tuple[list[FormerAnswer], int]:
    """Return the questions that a batch can ask again, each once, and the number of rows that it cannot ask."""
    made: dict[str, FormerAnswer] = {}
    left_out = 0
    for row in in_turns(rows):
        # A batch asks the default bot, and without files.
        if row is None or not row["question"] or row["files"] or row["bot"] != DEFAULT_BOT:
            left_out += 1
        elif row["question"] not in made:
            answer = row["answer"] or ""
            cut = len(answer.encode()) < row["bytes"]
            made[row["question"]] = FormerAnswer(row["question"], answer, row["stream_id"], cut)
    return list(made.values()), left_out


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """Yield the items; every few of them the process's other requests run."""
    for number, item in enumerate(items):
        if number % TURN == TURN - 1:
            time.sleep(0)
        yield item


def _filter(asked: RatingsTable) -> RatingFilter:
    return RatingFilter(asked.since, asked.until, asked.bot, asked.channel, asked.rating)


def _shown(given: GivenRating, row: Row | None, zone: ZoneInfo, *, with_words: bool) -> dict[str, Any]:
    logged: Mapping[str, Any] = row or {}
    words = {"comment": given.said.comment, "question": logged.get("question"), "answer": logged.get("answer")}
    return {
        "stream_id": given.place.stream_id,
        "rated_at": given.place.rated_at.astimezone(zone).isoformat(timespec="seconds"),
        "rating": given.said.rating,
        "reasons": list(given.said.reasons),
        "channel": given.channel,
        "bot": given.bot,
        "person": logged.get("person") or None,
        "department": logged.get("department") or None,
        **(words if with_words else dict.fromkeys(words)),
    }


def _once(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the first row of each question."""
    seen: set[str] = set()
    for row in rows:
        if row["question"] not in seen:
            seen.add(row["question"])
            yield row


def _cursor(given: GivenRating) -> str:
    written = " ".join((given.place.rated_at.isoformat(), given.place.stream_id, given.place.person))
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def _place(cursor: str) -> RatingPlace:
    try:
        at, stream_id, person = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        return RatingPlace(datetime.fromisoformat(at).astimezone(UTC), stream_id, person)
    except (ValueError, OverflowError) as exc:
        raise wrong_field("cursor", "is not the `next` of a page") from exc
