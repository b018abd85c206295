"""What people say of answers, for administrators: ratings with their questions, and questions without a good answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request
from pydantic import Field

from channels.admin.endpoints import MOST, TAG, USUAL, Time
from channels.admin.files import csv_reply
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, envelope, params, wrong_field
from services.usage.gaps import REFUSALS, found_gaps, groups
from services.usage.log_store import GivenRating, LogFilter, LogPlace, RatingFilter, RatingPlace, Row, SaidOf

T = TypeVar("T")

#: The newest questions that are looked through for those without a good answer, their days without `since`, and the
#: groups of one reply.
MOST_LOOKED, DAYS, MOST_GROUPS = 2_000, 7, 50
#: The newest ratings of a file.
MOST_SAVED = 5_000
#: Rows after which other requests of this process get their turn.
TURN = 20
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
)


class RatedLog(Protocol):
    """The question log with its ratings, as `SqlLogStore` reads it."""

    def ratings(
        self, chosen: RatingFilter, *, after: RatingPlace | None
    ) -> Iterator[tuple[GivenRating, Row | None]]: ...

    def rows(self, chosen: LogFilter, *, after: LogPlace | None) -> Iterator[tuple[Row, SaidOf]]: ...


def ratings_blueprint(
    administrators: Administrators,
    log: RatedLog | None,
    zone: ZoneInfo,
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

    def found(asked: GapsAsked) -> tuple[datetime, int, list[dict[str, Any]]]:
        since = asked.since or clock() - timedelta(days=DAYS)
        return since, *_unanswered(opened(), asked, since, zone)

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
        page = list(islice(opened().ratings(_filter(asked), after=after), asked.limit))
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

    _add_unanswered(routes, administrators, recorded, found)
    return routes


def _add_unanswered(
    routes: Blueprint,
    administrators: Administrators,
    recorded: Callable[[str], None],
    found: Callable[[GapsAsked], tuple[datetime, int, list[dict[str, Any]]]],
) -> None:
    @routes.get("/api/admin/unanswered")
    def unanswered() -> Response:
        administrators.check("admin")
        asked = params(GapsAsked)
        recorded("questions.read")
        since, read, made = found(asked)
        return envelope({"since": since.isoformat(timespec="seconds"), "read": read, "groups": made})

    @routes.get("/api/admin/unanswered/export")
    def unanswered_export() -> Response:
        administrators.check("admin")
        asked = params(GapsAsked)
        recorded("questions.export")
        rows = [{**group, "question": group["examples"][0]} for group in found(asked)[2]]
        return csv_reply(rows, GAP_COLUMNS, name="unanswered.csv")


def _unanswered(log: RatedLog, asked: GapsAsked, since: datetime, zone: ZoneInfo) -> tuple[int, list[dict[str, Any]]]:
    """Return how many questions were looked through, and the groups of those without a good answer."""
    chosen = LogFilter(since, asked.until, asked.bot, asked.channel, department=asked.department)
    rows = list(islice(in_turns(log.rows(chosen, after=None)), MOST_LOOKED))
    made = groups(list(in_turns(found_gaps(in_turns(reversed(rows)), REFUSALS))))
    return len(rows), [group.documented(zone) for group in made[:MOST_GROUPS]]


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
