"""The first page of an administrator: the day's figures, the replicas, the dependencies, and what is wrong now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from math import ceil
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from flask import Blueprint, Response
from pydantic import Field

from channels.admin.endpoints import TAG
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestModel, envelope
from services.errors import StoreUnavailable
from services.ops.health import DependencyProblem
from services.ops.replica_store import RunningReplica
from services.usage.sums_store import Total
from services.wecom.long_connection.lease_store import LeaseState

#: Answers of a day whose time to the first text is measured, the newest ones: a bounded read of the log.
MOST_MEASURED = 1_000


class DayShown(RestModel):
    """The figures of a day, of the questions whose answers have ended."""

    day: date
    questions: int
    people: int = Field(description="Persons who are known.")
    failures: dict[str, int] = Field(description="By the error's code.")
    prices: dict[str, float] = Field(description="By currency.")
    dislikes: int
    first_text_median: float | None = Field(description="Seconds to the first text.")
    first_text_p95: float | None
    measured: int = Field(description=f"Answers behind the two figures before: the newest {MOST_MEASURED} at most.")


class ReplicaShown(RestModel):
    """A running replica, as it was two seconds ago at most."""

    name: str = Field(description="Host and process.", examples=["pod-1:17"])
    version: str
    since: str = Field(description="When it started.")
    draining: bool = Field(description="Whether it leaves: it takes no more questions.")
    answers: int = Field(description="Answers in progress that it writes.")
    capacity: int = Field(description="How many it may write at once: `STREAM_MAX_PER_REPLICA`.")


class LongConnectionShown(RestModel):
    """A bot's long connection."""

    bot: str
    holder: str | None = Field(description="The replica that holds it.")
    subscribed: bool
    stands_by: bool = Field(description="Whether another replica is ready to take it over.")


class ProblemShown(RestModel):
    """Something that is wrong now."""

    name: str = Field(description="The dependency, as in `/health`.", examples=["sql"])
    cause: str
    remedy: str = Field(description="What to do, as `python -m tools.doctor` says it.")
    remedy_zh: str = Field(description="The same in Chinese.")


class Overview(RestModel):
    """The state of the product now."""

    time: str
    zone: str = Field(description="`REPORT_TZ`, whose days are counted.")
    today: DayShown | None
    last_week: DayShown | None = Field(description="The whole of the same weekday a week ago.")
    figures_missing: str | None = Field(
        description="Why `today` and `last_week` are null: `no_database`, or `store_unavailable`."
    )
    in_progress: int | None = Field(description="Answers in progress on all replicas; null while Redis is away.")
    replicas: list[ReplicaShown] = Field(
        description="The one that answers comes first; without Redis it is the only one. A killed one is gone in 5 s."
    )
    status: str = Field(description="As in `/health`.")
    dependencies: dict[str, str] = Field(description="As in `/health`, with `rag`, `search` and `batch_processing`.")
    long_connections: list[LongConnectionShown]
    problems: list[ProblemShown]
    alerts: bool = Field(description="Whether alerts are posted to a group: `ALERT_WEBHOOK` is set.")


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/overview",
        "The day's figures, replicas, dependencies, and what is wrong now",
        TAG,
        answers={200: Overview},
        auth="viewer",
        description="An outage of Redis or the database makes the figures null that need it, and is among `problems`.",
    ),
)


class DaySums(Protocol):
    """The daily sums, as `SqlSumsStore` reads them."""

    def totals(self, since: date, until: date, *, by: Sequence[str]) -> list[tuple[tuple[Any, ...], Total]]: ...

    def people(self, day: date) -> int: ...


class DayLog(Protocol):
    """The question log, as `SqlLogStore` reads it."""

    def first_texts(self, since: datetime, until: datetime, most: int) -> list[float]: ...


class RunningReplicas(Protocol):
    """The registry of replicas, as `ReplicaStore` has it."""

    def this(self) -> RunningReplica: ...

    def all(self) -> list[RunningReplica]: ...


class OverviewParts(NamedTuple):
    """What the overview reads; `log` and `sums` are None without a database."""

    log: DayLog | None
    sums: DaySums | None
    zone: ZoneInfo
    #: How many answers are in progress on all replicas.
    running: Callable[[], int]
    replicas: RunningReplicas
    look: Callable[[], tuple[Mapping[str, Any], Sequence[DependencyProblem]]]
    #: The bots with a long connection.
    bots: Sequence[str]
    lease: Callable[[str], LeaseState]
    #: Whether alerts are posted to a group.
    alerts: bool = False


def overview_blueprint(
    administrators: Administrators, parts: OverviewParts, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Blueprint:
    """Return the address of the overview."""
    routes = Blueprint("admin_overview", __name__)
    admin_errors(routes)

    @routes.get("/api/admin/overview")
    def overview() -> Response:
        administrators.check("viewer")
        return envelope(_overview(parts, clock().astimezone(parts.zone)))

    return routes


def _overview(parts: OverviewParts, now: datetime) -> dict[str, Any]:
    report, problems = parts.look()
    services = {name: _word(ok) for name, ok in report["services"].items()}
    if report["providers"]["search"]["name"] is None:
        services["search"] = "not configured"
    return {
        "time": now.isoformat(timespec="seconds"),
        "zone": str(parts.zone),
        **_figures(parts, now, away=report["dependencies"].get("sql", "ok") != "ok"),
        **_load(parts),
        "status": report["status"],
        "dependencies": {**services, **report["dependencies"]},
        "long_connections": list(_long_connections(parts)),
        "problems": [problem._asdict() for problem in problems],
        "alerts": parts.alerts,
    }


def _figures(parts: OverviewParts, now: datetime, *, away: bool) -> dict[str, Any]:
    none = {"today": None, "last_week": None}
    if parts.log is None or parts.sums is None:
        return {**none, "figures_missing": "no_database"}
    if away:
        # A database that hangs would hold the page for its timeout.
        return {**none, "figures_missing": "store_unavailable"}
    try:
        days = [_day(parts.log, parts.sums, now.date() - timedelta(days=ago), parts.zone) for ago in (0, 7)]
    except StoreUnavailable:
        return {**none, "figures_missing": "store_unavailable"}
    return {"today": days[0], "last_week": days[1], "figures_missing": None}


def _day(log: DayLog, sums: DaySums, day: date, zone: ZoneInfo) -> dict[str, Any]:
    found = sums.totals(day, day, by=())
    total = found[0][1] if found else Total()
    begin, end = (datetime.combine(each, time(), zone).astimezone(UTC) for each in (day, day + timedelta(days=1)))
    seconds = log.first_texts(begin, end, MOST_MEASURED)
    return {
        "day": day.isoformat(),
        "questions": total.questions,
        "people": sums.people(day),
        "failures": dict(sorted(total.failures.items())),
        "prices": {currency: float(price) for currency, price in sorted(total.prices.items())},
        "dislikes": total.dislikes,
        "first_text_median": _quantile(seconds, 0.5),
        "first_text_p95": _quantile(seconds, 0.95),
        "measured": len(seconds),
    }


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return the least of the sorted values that `share` of them do not exceed."""
    return round(values[ceil(share * len(values)) - 1], 3) if values else None


def _load(parts: OverviewParts) -> dict[str, Any]:
    """Return the replicas, and the answers in progress on all of them; this one alone while Redis is away."""
    try:
        replicas, total = parts.replicas.all(), parts.running()
    except StoreUnavailable:
        replicas, total = [parts.replicas.this()], None
    return {"in_progress": total, "replicas": [_replica(each, parts.zone) for each in replicas]}


def _replica(replica: RunningReplica, zone: ZoneInfo) -> dict[str, Any]:
    since = datetime.fromtimestamp(replica.since, zone).isoformat(timespec="seconds")
    return {**asdict(replica), "since": since}


def _long_connections(parts: OverviewParts) -> Iterable[dict[str, Any]]:
    # Without Redis the list is empty: its outage is among the problems.
    with suppress(StoreUnavailable):
        for bot in parts.bots:
            lease = parts.lease(bot)
            # The holder's name ends with a random part.
            holder = lease.holder.rpartition(":")[0] or lease.holder if lease.is_held else None
            subscribed = lease.is_held and lease.subscribed
            yield {"bot": bot, "holder": holder, "subscribed": subscribed, "stands_by": lease.has_successor}


def _word(ok: bool) -> str:
    return "ok" if ok else "unavailable"
