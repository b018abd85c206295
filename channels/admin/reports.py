"""The question log and the usage for administrators: the same rows as `tools.log` and `tools.usage` print."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from channels.admin import charts
from channels.admin.endpoints import MOST, TAG, USUAL, Streams, Time, is_date
from channels.admin.files import csv_reply
from channels.admin.story import Story, steps
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, envelope, params, wrong_field
from services.admin.tokens import Administrator
from services.errors import StoreUnavailable
from services.usage.log_store import NAMES, PAGE, LogFilter, LogPlace, Row, SaidOf
from services.usage.log_store import documented as documented_question
from services.usage.sums_store import BY, CHOSEN_BY, TooManySums, Total

S = TypeVar("S")

#: The members of a question that have people's words, which only the role `admin` sees.
WORDS = ("question", "answer", "files", "rating_comment")
#: Questions that one page of a search looks through at most.
MOST_SEARCHED = 10_000
#: Sums, each of one outcome and currency, that are read for one view; the file has all.
MOST_SUMS = 20_000
#: Days of usage without `since`, today included.
DAYS = 30
_ONE_OF = f"({'|'.join(BY)})"
SVG = "image/svg+xml"
#: The dimensions that are in the order of time.
TIMES = frozenset({"day", "month"})
#: Columns and rows of a chart at most.
MOST_COLUMNS, MOST_ROWS = 400, 20

Totals = list[tuple[tuple[Any, ...], Total]]


Day = Annotated[date, BeforeValidator(is_date)]


class _Chosen(RestModel):
    """Which questions."""

    since: Time | None = Field(None, description="With a time zone, such as 2026-11-24T08:00:00+08:00.")
    until: Time | None = Field(None, description="Exclusive.")
    bot: str = ""
    channel: str = ""
    person: str = Field("", description="WeCom's userid, or the user_code of a token.")
    department: str = Field("", description="The main department.")
    outcome: str = Field("", description="`completed`, `cancelled`, or an error's code.")
    rating: Literal["", "like", "dislike", "none"] = ""


class QuestionsTable(_Chosen):
    """Which questions of the log."""

    words: str = Field("", max_length=200, description="Text in the question or the answer; for the role `admin`.")
    with_words: bool = Field(False, description="With question and answer; for the role `admin`.")


class QuestionsAsked(QuestionsTable):
    """Which questions of the log, page by page."""

    cursor: str = Field("", description="`next` of the page before.")
    limit: int = Field(USUAL, ge=1, le=MOST)


class QuestionAsked(RestModel):
    """How one question is shown."""

    with_words: bool = Field(False, description="With question and answer; for the role `admin`.")


class LoggedQuestion(BaseModel):
    """A question of the log; its other members are those of `tools.log list --json`."""

    model_config = ConfigDict(extra="allow")

    stream_id: str
    time: str
    channel: str
    outcome: str
    person: str | None = None
    question: str | None = None
    answer: str | None = None


class QuestionPage(RestModel):
    """Questions of the log, the newest first."""

    questions: list[LoggedQuestion]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class _Counted(RestModel):
    """Which questions are counted."""

    since: Day | None = Field(None, description=f"The first day in `REPORT_TZ`; without it {DAYS} days.")
    until: Day | None = Field(None, description="The last day.")
    bot: str | None = None
    provider: str | None = None
    model: str | None = None
    channel: str | None = None
    department: str | None = None
    person: str | None = None


class UsageTable(_Counted):
    """Which sums."""

    by: str = Field(
        "",
        pattern=rf"^({_ONE_OF}(,{_ONE_OF})*)?$",
        description=f"Comma-separated, of {', '.join(BY)}; without it there is one sum.",
        examples=["day,department"],
    )


class UsageAsked(UsageTable):
    """Which sums, and how many."""

    limit: int | None = Field(
        None, ge=1, le=MOST, description="Sums at most: those of the last days, else those with most questions."
    )


class ChartAsked(_Counted):
    """Which sums are drawn."""

    by: Literal["month", "day", "bot", "provider", "model", "channel", "department", "person", "outcome"] = "day"
    of: Literal["questions", "answers", "failures", "tokens", "price", "likes", "dislikes"] = "questions"
    width: int = Field(720, ge=240, le=2000, description="Pixels.")
    dark: bool = Field(False, description="In the colours of the dark theme.")


class UsageRow(BaseModel):
    """A sum, with the values of `by`; its members are those of `tools.usage --json`."""

    model_config = ConfigDict(extra="allow")

    questions: int
    answers: int
    failures: int


class UsageReport(RestModel):
    """Sums of questions, tokens and prices."""

    since: date
    until: date
    groups: int = Field(description="The number of sums without `limit`.")
    rows: list[UsageRow]


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/questions",
        "The question log",
        TAG,
        query=QuestionsAsked,
        answers={200: QuestionPage},
        auth="viewer",
        description="Words of people come on demand, for the role `admin`, and each such page is audited as "
        f"`questions.read`. With `words`, `rating` or several filters a page looks through {MOST_SEARCHED:,} questions "
        "at most: it may have fewer than `limit`, even none, before the end. Without a database there is no log: 404.",
    ),
    Operation(
        "GET",
        "/api/admin/questions/export",
        "The question log as CSV",
        TAG,
        query=QuestionsTable,
        answers={200: None},
        media={200: "text/csv"},
        auth="admin",
        description="Oldest first, with the columns of `tools.log export`. Audited as `questions.export`.",
    ),
    Operation(
        "GET",
        "/api/admin/questions/{stream_id}/story",
        "What happened to one question, step by step",
        TAG,
        answers={200: Story},
        auth="viewer",
        description="From the log, and from Redis as long as `STREAM_TTL`: a running question has a story too.",
    ),
    Operation(
        "GET",
        "/api/admin/questions/{stream_id}",
        "One question of the log",
        TAG,
        query=QuestionAsked,
        answers={200: LoggedQuestion},
        auth="viewer",
    ),
    Operation(
        "GET",
        "/api/admin/usage",
        "Sums of questions, tokens and prices",
        TAG,
        query=UsageAsked,
        answers={200: UsageReport},
        auth="viewer",
        description="Days are those of `REPORT_TZ`. null is a sum of which nothing is known. More than "
        f"{MOST_SUMS:,} sums by outcome and currency are refused. Without a database: 404.",
    ),
    Operation(
        "GET",
        "/api/admin/usage/chart",
        "A chart of these sums",
        TAG,
        query=ChartAsked,
        answers={200: None},
        media={200: SVG},
        auth="viewer",
        description=f"Columns by day or month, {MOST_COLUMNS} at most; else the {MOST_ROWS} largest. A price is in the "
        "currency in which most was spent.",
    ),
    Operation(
        "GET",
        "/api/admin/usage/export",
        "The sums as CSV",
        TAG,
        query=UsageTable,
        answers={200: None},
        media={200: "text/csv"},
        auth="admin",
        description="The columns of `tools.usage --csv`. Audited as `usage.export`.",
    ),
)


class Log(Protocol):
    """The question log, as `SqlLogStore` reads it."""

    def rows(
        self,
        chosen: LogFilter,
        *,
        oldest_first: bool = False,
        after: LogPlace | None = None,
        end: LogPlace | None = None,
        page: int = PAGE,
    ) -> Iterator[tuple[Row, SaidOf]]: ...

    def end(self, chosen: LogFilter, after: LogPlace | None, most: int) -> LogPlace | None: ...

    def row(self, stream_id: str) -> tuple[Row, SaidOf] | None: ...


class Sums(Protocol):
    """The daily sums, as `SqlSumsStore` reads them."""

    def totals(
        self, since: date, until: date, *, by: Sequence[str], chosen: Mapping[str, str], most: int | None = None
    ) -> Totals: ...


class Reports:
    """The views of log and usage."""

    def __init__(
        self, administrators: Administrators, log: Log | None, sums: Sums | None, streams: Streams, zone: ZoneInfo
    ) -> None:
        """`log` and `sums` are None without a database."""
        self._administrators = administrators
        self._streams = streams
        self._log = log
        self._sums = sums
        self._zone = zone

    def questions(self) -> Response:
        who = self._administrators.check("viewer")
        asked = params(QuestionsAsked)
        shows = asked.with_words or asked.words
        if shows:
            who = self._administrators.check("admin")
        log = _stored(self._log)
        after = _place(asked.cursor) if asked.cursor else None
        chosen = _filter(asked)
        if shows:
            self._record_search(who, "questions.read")
        end = log.end(chosen, after, MOST_SEARCHED)
        found = list(islice(log.rows(chosen, after=after, end=end, page=asked.limit), asked.limit))
        if len(found) == asked.limit:
            end = LogPlace(found[-1][0]["time"], found[-1][0]["stream_id"])
        following = _cursor(end) if end else None
        rows = [self._shown(*each, with_words=asked.with_words) for each in found]
        return envelope({"questions": rows, "next": following})

    def question(self, stream_id: str) -> Response:
        who = self._administrators.check("viewer")
        asked = params(QuestionAsked)
        if asked.with_words:
            who = self._administrators.check("admin")
            self._administrators.record(who, "question.read", stream_id)
        if (found := _stored(self._log).row(stream_id)) is None:
            raise RestError(404, reason="stream_unknown")
        return envelope(self._shown(*found, with_words=asked.with_words))

    def questions_export(self) -> Response:
        who = self._administrators.check("admin")
        asked = params(QuestionsTable)
        log = _stored(self._log)
        self._record_search(who, "questions.export")
        found = log.rows(_filter(asked), oldest_first=True)
        return csv_reply(
            (self._shown(*each, with_words=asked.with_words) for each in found), NAMES, name="questions.csv"
        )

    def story(self, stream_id: str) -> Response:
        self._administrators.check("viewer")
        logged = self._log.row(stream_id) if self._log else None
        try:
            fields, chunks = self._streams.load(stream_id)
            in_redis: bool | None = bool(fields)
        except StoreUnavailable:
            fields, chunks, in_redis = {}, [], None
        if logged is None and not fields:
            raise RestError(404, reason="stream_unknown")
        told = list(steps(logged, fields, chunks, self._zone))
        return envelope({"stream_id": stream_id, "in_log": logged is not None, "in_redis": in_redis, "steps": told})

    def usage(self) -> Response:
        self._administrators.check("viewer")
        asked = params(UsageAsked)
        by = _by(asked.by)
        since, until = self._days(asked)
        totals = self._totals(asked, by)
        rows = _sums(by, _first(totals, by, asked.limit) if asked.limit else totals)
        return envelope(_plain({"since": since, "until": until, "groups": len(totals), "rows": list(rows)}))

    def usage_chart(self) -> Response:
        self._administrators.check("viewer")
        asked = params(ChartAsked)
        totals = self._totals(asked, [asked.by])
        unit = _currency(totals) if asked.of == "price" else ""
        bars = {key[0]: charts.Bar(key[0], _amount(total, asked.of, unit)) for key, total in totals}
        colours = charts.DARK if asked.dark else charts.LIGHT
        if asked.by in TIMES:
            names = _times(*self._days(asked), asked.by)
            drawn = charts.columns(
                [bars.get(name, charts.Bar(name, 0.0)) for name in names],
                width=asked.width,
                colours=colours,
                unit=unit,
            )
        else:
            largest = sorted(bars.values(), key=lambda bar: bar.value, reverse=True)[:MOST_ROWS]
            named = [bar._replace(name=bar.name or "–") for bar in largest]
            drawn = charts.rows(named, width=asked.width, colours=colours, unit=unit)
        reply = Response(drawn, content_type=SVG)
        reply.headers["Cache-Control"] = "no-store"
        reply.headers["Content-Security-Policy"] = "default-src 'none'"
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply

    def usage_export(self) -> Response:
        who = self._administrators.check("admin")
        asked = params(UsageTable)
        by = _by(asked.by)
        sums = _stored(self._sums)
        self._record_search(who, "usage.export")
        totals = sums.totals(*self._days(asked), by=by, chosen=_chosen(asked))
        return csv_reply(_sums(by, totals), [*by, *Total().documented()], name="usage.csv")

    def _totals(self, asked: _Counted, by: Sequence[str]) -> Totals:
        sums = _stored(self._sums)
        try:
            return sums.totals(*self._days(asked), by=by, chosen=_chosen(asked), most=MOST_SUMS)
        except TooManySums as exc:
            raise wrong_field("by", "has too many sums: ask for fewer days or dimensions, or take the file") from exc

    def _days(self, asked: _Counted) -> tuple[date, date]:
        today = datetime.now(self._zone).date()
        return asked.since or today - timedelta(days=DAYS - 1), asked.until or today

    def _record_search(self, who: Administrator, action: str) -> None:
        """Write into the audit what is about to be shown; not into the log, because it has people's names and words."""
        self._administrators.record(who, action, "", after=request.query_string.decode("ascii", "replace"))

    def _shown(self, row: Row, said: SaidOf, *, with_words: bool) -> Any:
        shown = documented_question(row, said, self._zone)
        return _plain(shown if with_words else {**shown, **dict.fromkeys(WORDS)})


def reports_blueprint(reports: Reports) -> Blueprint:
    """Return the addresses of log and usage."""
    routes = Blueprint("admin_reports", __name__)
    admin_errors(routes)
    routes.add_url_rule("/api/admin/questions", "questions", reports.questions)
    routes.add_url_rule("/api/admin/questions/export", "questions_export", reports.questions_export)
    routes.add_url_rule("/api/admin/questions/<stream_id>", "question", reports.question)
    routes.add_url_rule("/api/admin/questions/<stream_id>/story", "story", reports.story)
    routes.add_url_rule("/api/admin/usage", "usage", reports.usage)
    routes.add_url_rule("/api/admin/usage/chart", "usage_chart", reports.usage_chart)
    routes.add_url_rule("/api/admin/usage/export", "usage_export", reports.usage_export)
    return routes


def _stored(store: S | None) -> S:
    """Return the store; without a database there is none."""
    if store is None:
        raise RestError(404)
    return store


def _filter(asked: QuestionsTable) -> LogFilter:
    return LogFilter(**asked.model_dump(exclude={"with_words", "cursor", "limit"}))


def _by(names: str) -> list[str]:
    return list(dict.fromkeys(names.split(","))) if names else []


def _chosen(asked: _Counted) -> dict[str, str]:
    return {name: value for name in CHOSEN_BY if (value := getattr(asked, name)) is not None}


def _sums(by: Sequence[str], totals: Totals) -> Iterator[dict[str, Any]]:
    """Yield the documented rows of sums: the values of `by`, null where they are unknown, and the figures."""
    for key, total in totals:
        yield {**{name: value or None for name, value in zip(by, key, strict=True)}, **total.documented()}


def _first(totals: Totals, by: Sequence[str], most: int) -> Totals:
    """Return the last of sums over time, else the largest."""
    if not TIMES.isdisjoint(by):
        return totals[-most:]
    return sorted(totals, key=lambda each: each[1].questions, reverse=True)[:most]


def _times(since: date, until: date, by: str) -> list[str]:
    """Return the names of all days or months of a span, of a long one the last."""
    most = MOST_COLUMNS * 31
    days = (until - timedelta(days=ago) for ago in range(min(most, (until - since).days + 1)))
    names = dict.fromkeys(day.isoformat()[: 7 if by == "month" else 10] for day in days)
    return list(names)[:MOST_COLUMNS][::-1]


def _currency(totals: Totals) -> str:
    """Return the currency in which most was spent, whatever it is worth."""
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    for _, total in totals:
        for currency, price in total.prices.items():
            spent[currency] += price
    return max(spent, key=lambda currency: spent[currency], default="")


def _amount(total: Total, of: str, currency: str) -> float:
    return float(total.prices.get(currency, 0) if of == "price" else total.documented()[of] or 0)


def _plain(value: Any) -> Any:
    """Return a value of JSON: exact amounts become numbers, days texts."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case Decimal():
            return float(value)
        case date():
            return value.isoformat()
    return value


def _cursor(place: LogPlace) -> str:
    written = f"{place.time.isoformat()} {place.stream_id}"
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def _place(cursor: str) -> LogPlace:
    try:
        time, stream_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        return LogPlace(datetime.fromisoformat(time).astimezone(UTC), stream_id)
    except (ValueError, OverflowError) as exc:
        raise wrong_field("cursor", "is not the `next` of a page") from exc
